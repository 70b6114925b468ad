"""Records told apart by some of their fields: the bytes of those fields as one Arrow column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_NOWHERE = -1


def packed(records: npt.NDArray[np.void], names: Sequence[str]) -> pa.Array:
    """Return the bytes of the fields of each record side by side.

    Records of two kinds compare if the fields have the same types in the same order.
    """
    layout = np.dtype([(name, records.dtype[name]) for name in names])
    key = np.empty(len(records), layout)
    for name in names:
        key[name] = records[name]
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(layout.itemsize), len(key), [None, pa.py_buffer(key.view(np.uint8))]
    )


def chosen(records: npt.NDArray[np.void], keep: npt.NDArray[Any]) -> npt.NDArray[np.void]:
    """Return the records that *keep* selects, flags or places: numpy would copy them field by field."""
    raw = records.view(np.dtype(("V", records.dtype.itemsize)))
    selected: npt.NDArray[np.void] = raw[keep].view(records.dtype)
    return selected


def numbered(keys: pa.Array) -> tuple[npt.NDArray[np.int64], pa.Array]:
    """Return a number for each key, the same for the same, and the distinct keys by number."""
    encoded = keys.dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary


def places(keys: pa.Array, among: pa.Array) -> npt.NDArray[np.int64]:
    """Return where each key is *among* distinct ones, -1 where it is not."""
    found = pc.index_in(keys, value_set=among).fill_null(_NOWHERE)
    return np.asarray(found.to_numpy(), np.int64)
