"""Conntrack entries as a frame: layouts joined column by column, each distinct value named once.

Entries of one layout stay together from the dump to the frame, so that every column is one gather for each
layout. A dump's own order is that of a hash table, and nothing is lost with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from netlab import addresses
from netlab.frames import Gap, Missing, Schema
from netlab.kernel import ctentries, ctnames, nlmessages
from netlab.kernel.ctentries import Array, Entries
from netlab.schemas import CONNTRACK

_PIECE = 16_384  # entries decoded at a time: their messages stay in the cache from column to column
BODY = 4  # bytes of struct nfgenmsg: address family, version, resource id
Masked: TypeAlias = "np.ma.MaskedArray[Any, Any]"

_NAMED = {
    "status": ctnames.flag_names,
    "protocol": ctnames.protocol_name,
    "nat": ctnames.NAT.__getitem__,
    "offload": ctnames.OFFLOAD.__getitem__,
    "zone_direction": ctnames.ZONE_DIRECTION.__getitem__,
}
_ZERO_IS_NONE = {"nat", "offload", "zone_direction"}
_SPELT: dict[str, Callable[[bytes], str | None]] = {
    "helper": ctnames.text,
    "secctx": ctnames.text,
    "labels": ctnames.label_bits,
}


@dataclass(frozen=True, slots=True)
class Part:
    """Entries of one layout in one network namespace."""

    inode: int
    entries: Entries


def parts_of(dump: nlmessages.Dump, inode: int) -> Iterator[Part]:
    """Decode a dump of the namespace *inode*, one part for each layout."""
    return (
        Part(inode, ctentries.decoded(piece)) for group in dump.groups(BODY) for piece in group.pieces(_PIECE)
    )


def frame_of(dump: nlmessages.Dump, inode: int) -> pd.DataFrame:
    """Return the conntrack messages of the namespace *inode* as a frame, in the order they came in."""
    groups = list(dump.groups(BODY))
    frame = framed([Part(inode, ctentries.decoded(group)) for group in groups], [])
    return frame.iloc[arrival(groups)].reset_index(drop=True)


def arrival(groups: list[nlmessages.Group]) -> nlmessages.Rows:
    """Return the order in which the messages came in, for rows that are sorted by group."""
    return np.argsort(np.concatenate([np.empty(0, np.intp), *(group.rows for group in groups)]))


def framed(
    found: list[Part], missing: list[Missing], schema: Schema = CONNTRACK, **more: Any
) -> pd.DataFrame:
    """Return the entries as a frame of *schema*; *more* columns are for the rows of all parts in turn."""
    parts = [part for part in found if len(part.entries)]
    if not parts:
        return schema.empty(missing)
    entries = [part.entries for part in parts]
    numbers = [name for name in entries[0].numbers if name in schema.names]
    data: dict[str, Any] = {name: _joined(entries, name) for name in numbers}
    uncounted = _uncounted(data["packets"])
    for name, spelling in _NAMED.items():
        data[name] = _category(data[name], spelling, zero_is_none=name in _ZERO_IS_NONE)
    data["state"] = pd.Categorical.from_codes(data["state"].filled(-1), pd.Index(ctnames.STATES))
    data |= {name: _spelt(entries, name, spelling) for name, spelling in _SPELT.items()}
    texts = [_texts(part.places) for part in entries]
    data |= {name: addresses.column([text[name] for text in texts]) for name in entries[0].places}
    data["netns"] = np.repeat([part.inode for part in parts], [len(part.entries) for part in parts])
    return schema.frame(data | more, [*missing, *uncounted])


def _joined(parts: list[Entries], name: str) -> Masked:
    """Join one column of all layouts; rows of a layout that lacks the attribute are masked."""
    rows = [len(part) for part in parts]
    values, absent = np.zeros(sum(rows), np.int64), np.zeros(sum(rows), bool)
    for part, end in zip(parts, np.cumsum(rows), strict=True):
        column, place = part.numbers[name], slice(end - len(part), end)
        if column is None:
            absent[place] = True
        else:
            values[place] = column
    return np.ma.array(values, mask=absent, copy=False)


def _category(values: Masked, name: Callable[[int], str], *, zero_is_none: bool) -> pd.Categorical[str]:
    """Name every distinct number once; masked ones stay missing."""
    known = ~np.ma.getmaskarray(values)
    if zero_is_none:
        known &= values.data != 0
    codes = np.full(len(values), -1, np.int32)
    codes[known], distinct = pd.factorize(values.data[known])
    return pd.Categorical.from_codes(codes, pd.Index([name(int(number)) for number in distinct], dtype="str"))


def _spelt(parts: list[Entries], name: str, spelling: Callable[[bytes], str | None]) -> pd.Categorical[str]:
    """Spell every distinct byte string of a column once."""
    columns = [(part.octets[name], len(part)) for part in parts]
    texts = [
        pa.nulls(rows, pa.string()) if found is None else _text_of(found, spelling) for found, rows in columns
    ]
    encoded = pa.chunked_array(texts, pa.string()).combine_chunks().dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return pd.Categorical.from_codes(codes, pd.Index(encoded.dictionary.to_pylist(), dtype="str"))


def _text_of(octets: Array, spelling: Callable[[bytes], str | None]) -> pa.Array:
    rows, length = octets.shape
    column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(length), rows, [None, pa.py_buffer(octets)])
    encoded = column.dictionary_encode()
    distinct = [spelling(value) for value in encoded.dictionary.to_pylist()]
    return pa.array(distinct, pa.string()).take(encoded.indices)


def _texts(places: dict[str, Array]) -> dict[str, pa.Array]:
    source, target = _text(places["src"]), _text(places["dst"])
    return {
        "src": source,
        "dst": target,
        "reply_src": _text_like(target, places["dst"], places["reply_src"]),
        "reply_dst": _text_like(source, places["src"], places["reply_dst"]),
    }


def _text(places: Array) -> pa.Array:
    return addresses.text(ctentries.family_of(places.shape[1]), places)


def _text_like(text: pa.Array, its_places: Array, places: Array) -> pa.Array:
    """Return the text of *places*, made anew only where they are not *its_places*: at translated flows."""
    differs = ctentries.differ(its_places, places)
    return pc.replace_with_mask(text, differs, _text(places[differs])) if differs.any() else text


def _uncounted(packets: Masked) -> list[Missing]:
    count = int(np.ma.getmaskarray(packets).sum())
    if not count:
        return []
    detail = (
        "accounting was off when these entries were made; "
        "`sysctl -w net.netfilter.nf_conntrack_acct=1` counts new ones"
    )
    return [Missing("packets, bytes, reply_packets, reply_bytes", Gap.UNAVAILABLE, count, detail)]
