"""Conntrack messages read byte by byte: what the decoder is held against, whatever it is given.

`python tests/support/ctfuzz.py 1000000` counts what becomes of a million damaged inputs.
"""

from __future__ import annotations

import random
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from ctmessages import DELETE, NEW, damaged

from netlab.errors import KernelError
from netlab.kernel import ctentries, ctframe, ctnames, nlmessages

Path: TypeAlias = tuple[int, ...]
Row: TypeAlias = dict[str, Any]

SIDES = {1: "", 2: "reply_"}  # CTA_TUPLE_ORIG, CTA_TUPLE_REPLY
AT_ONCE = 2_000  # inputs whose entries become one frame


class RefusedError(Exception):
    """What a kernel cannot have sent."""


def expected(data: bytes) -> list[Row]:
    """Return what the messages say, or raise RefusedError."""
    return [_row(whole) for whole in list(_messages(data))]


def _messages(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        (length,) = struct.unpack_from("=I", data, at)
        if length < 16 or at + length > len(data):
            raise RefusedError
        yield data[at : at + length]
        at += -(-length // 4) * 4


def _row(whole: bytes) -> Row:
    if struct.unpack_from("=H", whole, 4)[0] not in {NEW, DELETE}:
        raise RefusedError
    found = _attributes(whole[20:])
    first = 1 if len(found.get((1, 1, 1), b"")) == 4 else 3
    size, family = (4, socket.AF_INET) if first == 1 else (16, socket.AF_INET6)
    row: Row = {"family": 4 if first == 1 else 6}
    for kind, prefix in SIDES.items():
        for name, path in (("src", (kind, 1, first)), ("dst", (kind, 1, first + 1))):
            if len(found.get(path, b"")) != size:
                raise RefusedError
            row[prefix + name] = socket.inet_ntop(family, found[path])
        ids = [_number(found, (kind, 2, place), 2) for place in (2, 4, 7)]
        row[f"{prefix}sport"] = next((number for number in ids if number is not None), None)
        row[f"{prefix}dport"] = _number(found, (kind, 2, 3), 2)
    protocol, status = _number(found, (1, 2, 1), 1), _number(found, (3,), 4)
    row["protocol"] = None if protocol is None else ctnames.protocol_name(protocol)
    row["status"] = None if status is None else ctnames.flag_names(status)
    row["offload"] = [None, "software", "hardware", "hardware"][(status or 0) >> 14 & 3]
    row |= {name: _number(found, path, size) for name, (path, size) in _NUMBERS.items()}
    row["icmp_type"], row["icmp_code"] = (
        next(
            (n for n in (_number(found, (1, 2, place + more), 1) for place in (5, 8)) if n is not None), None
        )
        for more in (0, 1)
    )
    if any(isinstance(row[name], int) and row[name] >= 1 << 63 for name in _LARGE):
        raise RefusedError
    return row | _state(found) | _zone(found) | _texts(found) | {"nat": _translated(row)}


_LARGE = ("packets", "bytes", "reply_packets", "reply_bytes", "started_at", "stopped_at", "at")
_NUMBERS = {
    "timeout_s": ((7,), 4), "packets": ((9, 1), 8), "bytes": ((9, 2), 8), "reply_packets": ((10, 1), 8),
    "reply_bytes": ((10, 2), 8), "mark": ((8,), 4), "id": ((12,), 4), "use": ((11,), 4),
    "started_at": ((20, 1), 8), "stopped_at": ((20, 2), 8), "at": ((27,), 8),
}  # fmt: skip


def _attributes(data: bytes, parent: Path = ()) -> dict[Path, bytes]:
    found: dict[Path, bytes] = {}
    while data:
        if len(data) < 4:
            raise RefusedError
        length, kind = struct.unpack_from("=HH", data)
        if not 4 <= length <= len(data):
            raise RefusedError
        path, payload = (*parent, kind & 0x3FFF), data[4:length]
        found = {known: value for known, value in found.items() if known[: len(path)] != path}
        found[path] = payload
        if kind & 0x8000:
            found |= _attributes(payload, path)
        data = data[-(-length // 4) * 4 :]
    return found


def _number(found: dict[Path, bytes], path: Path, size: int) -> int | None:
    value = found.get(path, b"")
    return int.from_bytes(value[:size], "big") if len(value) >= size else None


def _state(found: dict[Path, bytes]) -> Row:
    for place, names in ((1, ctnames.TCP), (2, ctnames.DCCP), (3, ctnames.SCTP)):
        state = _number(found, (4, place, 1), 1)
        if state is not None:
            return {"state": names[state] if state < len(names) else None}
    return {"state": None}


def _zone(found: dict[Path, bytes]) -> Row:
    for path, direction in (((18,), None), ((1, 3), "original"), ((2, 3), "reply")):
        zone = _number(found, path, 2)
        if zone is not None:
            return {"zone": zone, "zone_direction": direction}
    return {"zone": 0, "zone_direction": None}


def _texts(found: dict[Path, bytes]) -> Row:
    texts: Row = {name: ctnames.text(found.get(path, b"")) for name, path in _TEXTS.items()}
    return texts | {"labels": ctnames.label_bits(found.get((22,), b""))}


_TEXTS = {"helper": (5, 1), "secctx": (19, 1)}


def _translated(row: Row) -> str | None:
    def changed(place: str, port: str, to_place: str, to_port: str) -> bool:
        known = row[port] is not None and row[to_port] is not None
        return row[place] != row[to_place] or (known and row[port] != row[to_port])

    # An ICMP identifier stays where it is in a reply.
    source = changed("src", "sport", "reply_dst", "reply_sport" if row["dport"] is None else "reply_dport")
    target = changed("dst", "dport", "reply_src", "reply_sport")
    return "both" if source and target else "snat" if source else "dnat" if target else None


def plain(frame: pd.DataFrame) -> list[Row]:
    """Return the rows of a frame without missing values of pandas' own."""
    columns: dict[str, list[object]] = {}
    for name in frame.columns:
        values = frame[name].tolist()
        columns[name] = [
            None if pd.isna(value) else value.value if isinstance(value, pd.Timestamp) else value
            for value in values
        ]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def decoded(data: bytes) -> list[tuple[list[int], ctentries.Entries]]:
    """Return what netlab reads, with the places of the entries among the messages."""
    dump = nlmessages.Dump.of(np.frombuffer(data, np.uint32))
    return [(group.rows.tolist(), ctentries.decoded(group)) for group in dump.groups(ctframe.BODY)]


def hold(inputs: list[bytes]) -> Counter[str]:
    """Hold netlab's reading of each input against the bytes; return how many were refused, and the rows.

    Raises
    ------
    AssertionError
        At an input that only one of the two refuses, and at a wrong row.
    """
    counts = Counter(inputs=len(inputs))
    truths: list[tuple[bytes, Row]] = []
    parts: list[ctframe.Part] = []
    for data in inputs:
        truth, found = _or_none(expected, RefusedError, data), _or_none(decoded, KernelError, data)
        assert (truth is None) == (found is None), (
            f"refused by {'netlab' if found is None else 'the truth'}: {data!r}"
        )
        counts["refused"] += found is None
        for places, entries in found or ():
            parts.append(ctframe.Part(1, entries))
            truths += [(data, truth[place]) for place in places]
    rows = plain(ctframe.framed(parts, []))
    for row, (data, true) in zip(rows, truths, strict=True):
        wrong = {name: value for name, value in row.items() if name != "netns" and value != true[name]}
        assert not wrong, f"{wrong} instead of {true}: {data!r}"
    return counts + Counter(rows=len(rows))


def _or_none(function: Callable[[bytes], Any], refusal: type[Exception], data: bytes) -> Any:
    try:
        return function(data)
    except refusal:
        return None


def check(count: int, seed: int) -> Counter[str]:
    """Do `hold` for *count* damaged inputs."""
    chance, counts = random.Random(seed), Counter[str]()
    for first in range(0, count, AT_ONCE):
        counts += hold([damaged(chance) for _ in range(min(AT_ONCE, count - first))])
    return counts


if __name__ == "__main__":
    start = time.monotonic()
    print(dict(check(int(sys.argv[1]), seed=1)), f"{time.monotonic() - start:.0f} s")  # noqa: T201 - a command
