"""What is read of a Kafka message's body: its fields, by a layout of kafkaapis, in any version."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

_SIZES = {"b": 1, "h": 2, "i": 4, "l": 8, "u": 16}
_NUMBERS = {"h": struct.Struct("!h"), "i": struct.Struct("!i")}
_TOKEN = re.compile(r"(?P<open>[\[<])|(?P<kind>[bhilusB\]>])(?P<versions>\d+(?:\+|-\d+))?(?:=(?P<role>\w+))?")
_COUNT_AT = 57  # of the records of a batch of version 2
_BATCH_HEADER = 61
_CONTROL = 0x20  # of a batch's attributes: written by the broker, not by a producer


class CutError(Exception):
    """The body ends, or makes no sense, before its layout does."""


class RecordsCutError(CutError):
    """It ends within records, before which all that is said of their partition has been read."""


class Field(NamedTuple):
    """One field of a layout: its type, what it is read as, and the fields of an array's items."""

    kind: str
    role: str | None = None
    items: tuple[Field, ...] = ()


@dataclass(slots=True)
class Found:
    """What of a body is told. A part that could not be read leaves *is_whole* false."""

    topics: list[str | None] = field(default_factory=list)  # None: by an id
    ids: list[bytes] = field(default_factory=list)
    partitions: list[int] = field(default_factory=list)
    errors: list[int] = field(default_factory=list)
    records: int | None = None
    acks: int | None = None
    named: dict[bytes, str] = field(default_factory=dict)  # topics that have both a name and an id
    is_whole: bool = True
    has_all_errors: bool = True
    to_come: int = 0  # items of arrays that were announced


def read(layout: str, version: int, body: bytes, place: int, *, flexible: bool) -> Found:
    """Return what the fields of *layout* from *place* on say, as far as they are there."""
    found = Found()
    try:
        _fields(compiled(layout, version), body, place, flexible, found)
    except (CutError, IndexError, struct.error) as error:
        found.is_whole = False
        found.has_all_errors = isinstance(error, RecordsCutError) and not found.to_come
        found.records = None
    return found


def skip_tags(body: bytes, place: int) -> int:
    """Return the place behind the tagged fields at *place* (KIP-482)."""
    count, place = varint(body, place)
    if count > len(body):
        raise CutError
    for _ in range(count):
        _, place = varint(body, place)
        size, place = varint(body, place)
        place += size
    if place > len(body):
        raise CutError
    return place


def varint(body: bytes, place: int) -> tuple[int, int]:
    """Return an unsigned variable-length number of at most five bytes, and the place behind it."""
    value = 0
    for shift in range(0, 35, 7):
        byte = body[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, place
    raise CutError


@lru_cache(maxsize=512)
def compiled(layout: str, version: int) -> tuple[Field, ...]:
    """Return the fields that *layout* has in *version*."""
    stack: list[list[Field]] = [[]]
    for token in _TOKEN.finditer(layout):
        if token["open"]:
            stack.append([])
            continue
        kind = token["kind"]
        items = tuple(stack.pop()) if kind in "]>" else ()
        if _has(token["versions"], version):
            stack[-1].append(Field(kind, token["role"], items))
    return tuple(stack[0])


def _has(versions: str | None, version: int) -> bool:
    first, _, last = (versions or "0+").replace("+", "-").partition("-")
    return int(first) <= version <= (int(last) if last else version)


def _fields(fields: tuple[Field, ...], body: bytes, place: int, flexible: bool, found: Found) -> int:  # noqa: FBT001
    name = topic_id = None
    for one in fields:
        if one.kind in "]>":
            place = _array(one, body, place, flexible, found)
        elif one.kind in "sB":
            size, place = _length(body, place, flexible, wide=one.kind == "B")
            if one.role == "records":
                _count(body[place : place + size], size, found)
            elif one.role == "topic":
                name = body[place : place + size].decode("utf-8", "replace") if size > 0 else None
                found.topics.append(name)
            place += max(size, 0)
        else:
            if one.role == "id":
                topic_id = body[place : place + 16]
                found.ids.append(topic_id)
            elif one.role:
                (value,) = _NUMBERS[one.kind].unpack_from(body, place)
                _keep(one.role, value, found)
            place += _SIZES[one.kind]
        if place > len(body):
            raise CutError
    if name and topic_id and any(topic_id):
        found.named[topic_id] = name
    return place


def _array(one: Field, body: bytes, place: int, flexible: bool, found: Found) -> int:  # noqa: FBT001
    count, place = _length(body, place, flexible, wide=True)
    if count > len(body) - place:
        raise CutError
    found.to_come += max(count, 0)
    for _ in range(count):
        found.to_come -= 1
        place = _fields(one.items, body, place, flexible, found)
        if flexible and one.kind == "]":
            place = skip_tags(body, place)
    return place


def _length(body: bytes, place: int, flexible: bool, *, wide: bool) -> tuple[int, int]:  # noqa: FBT001
    """Return how much follows (-1: null) and where: one more than it as a varint, or as it is."""
    if flexible:
        size, place = varint(body, place)
        return size - 1, place
    (size,) = _NUMBERS["i" if wide else "h"].unpack_from(body, place)
    if size < -1:
        raise CutError
    return size, place + (4 if wide else 2)


def _keep(role: str, value: int, found: Found) -> None:
    if role == "partition":
        found.partitions.append(value)
    elif role == "error":
        found.errors.append(value)
    elif role == "acks":
        found.acks = value


def _count(batches: bytes, size: int, found: Found) -> None:
    """Add the records of *batches*, which every producer since Kafka 0.11 writes in version 2."""
    if len(batches) < size:
        raise RecordsCutError
    place, count = 0, 0
    while place + _BATCH_HEADER <= len(batches):
        if batches[place + 16] != 2:
            raise CutError
        end = place + 12 + int.from_bytes(batches[place + 8 : place + 12], "big")
        if end <= len(batches) and not batches[place + 22] & _CONTROL:  # a broker may cut the last one
            count += int.from_bytes(batches[place + _COUNT_AT : place + _BATCH_HEADER], "big", signed=True)
        place = end
    found.records = (found.records or 0) + count
