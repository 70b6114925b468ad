"""Records as the bytes they are: chosen from, put together, and told apart by some of their fields."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
    selected: npt.NDArray[np.void] = records.view(raw(records.dtype))[keep].view(records.dtype)
    return selected


def joined(parts: Iterable[npt.NDArray[Any]], kind: npt.DTypeLike) -> npt.NDArray[Any]:
    """Put records of one *kind* under each other: numpy would copy them field by field."""
    dtype = np.dtype(kind)
    bare = [part.view(raw(dtype)) for part in parts if len(part)]
    return (np.concatenate(bare) if bare else np.empty(0, raw(dtype))).view(dtype)


def put(records: npt.NDArray[np.void], *, into: npt.NDArray[np.void], at: Any) -> None:
    """Copy *records* to the places *at* of others of their kind."""
    bare = raw(records.dtype)
    into.view(bare)[at] = records.view(bare)


def raw(dtype: np.dtype[Any]) -> np.dtype[np.void]:
    """Return the layout of as many bytes without fields."""
    return np.dtype(("V", dtype.itemsize))


def numbered(keys: pa.Array) -> tuple[npt.NDArray[np.int64], pa.Array]:
    """Return a number for each key, the same for the same, and the distinct keys by number."""
    encoded = keys.dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary


def places(keys: pa.Array, among: pa.Array) -> npt.NDArray[np.int64]:
    """Return where each key is *among* distinct ones, -1 where it is not."""
    found = pc.index_in(keys, value_set=among).fill_null(_NOWHERE)
    return np.asarray(found.to_numpy(), np.int64)
