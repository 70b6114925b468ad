"""The members of a probe's structs as columns: by their type, and some by what they are called."""

from __future__ import annotations

import re
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from netlab import addresses
from netlab.kernel.processes import printable
from netlab.probes.network import of_member

Records: TypeAlias = npt.NDArray[Any]

_ADDRESS = re.compile(r"(?:.*_)?(?:address|addr|saddr|daddr|ip|ip4|ip6)")
_TIME = re.compile(r"((?:.*_)?at)_ns")
_LONGEST_TEXT = 4096


def columns(
    records: Records, network_order: frozenset[str], to_utc_ns: int, *, inside: str = ""
) -> dict[str, Any]:
    """Return the members of *records* as columns, those of inner structs with dots in their names.

    Parameters
    ----------
    records
        An array of structs.
    network_order
        Paths of the numbers that are in network order, such as `peer.port`: they become the host's.
    to_utc_ns
        What to add to the kernel's clock to get UTC.
    inside
        What the names begin with.

    Notes
    -----
    `char[]` is text up to its NUL. A member named `address`, `addr`, `saddr`, `daddr` or `ip`, alone or
    behind an underscore, is an address if it has 4 or 16 bytes. A `u64` named `at_ns` or `…_at_ns` is a
    reading of `bpf_ktime_get_ns()` and becomes UTC. Other arrays are lists, other numbers stay as wide as
    they are.
    """
    found: dict[str, Any] = {}
    for name in records.dtype.names or ():
        values, title = records[name], f"{inside}{name}"
        if _ADDRESS.fullmatch(name) and (shown := _addresses(values)) is not None:
            found[title] = shown
        elif values.dtype.names:
            found |= columns(values, of_member(name, network_order), to_utc_ns, inside=f"{title}.")
        elif (time := _TIME.fullmatch(name)) and values.dtype == np.uint64:
            found[f"{inside}{time[1]}"] = _times(values, to_utc_ns)
        else:
            found[title] = plain(values, swapped=name in network_order)
    return found


def plain(values: Records, *, swapped: bool = False) -> Any:
    """Return one member as a column by its type alone."""
    if swapped:
        values = values.byteswap()
    if values.dtype.kind == "S":
        return _texts(values)
    if values.ndim > 1:
        flat = pa.array(np.ascontiguousarray(values).reshape(-1))
        lists = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
        return pd.arrays.ArrowExtensionArray(lists)
    return np.ascontiguousarray(values)


def _addresses(values: Records) -> pd.api.extensions.ExtensionArray | None:
    """Return addresses as text, in the bytes' order, which is the network's; None of any other size."""
    size = values.dtype.itemsize * int(np.prod(values.shape[1:]))
    if size not in {4, 16} or values.dtype.kind == "S":
        return None
    octets = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), size)
    return addresses.column([addresses.text(4 if size == 4 else 6, octets)])


def _texts(values: Records) -> pd.api.extensions.ExtensionArray:
    """Return text up to its first NUL, made once per distinct value, with what cannot be shown escaped."""
    distinct, places = np.unique(values, return_inverse=True)
    texts = [printable(raw.partition(b"\0")[0], _LONGEST_TEXT) for raw in distinct.tolist()]
    return addresses.column([pa.array(texts, pa.large_string())]).take(places)


def _times(values: Records, to_utc_ns: int) -> pd.DatetimeIndex:
    """Return readings of the kernel's clock as UTC; 0 was never read."""
    utc = np.where(values == 0, np.iinfo(np.int64).min, values.astype(np.int64) + to_utc_ns)
    return pd.DatetimeIndex(utc.view("M8[ns]")).tz_localize("UTC")
