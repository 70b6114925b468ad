"""What ICMP errors carry behind their quote (RFC 4884): objects, such as MPLS label stacks (RFC 4950)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from netlab.errors import DecodeError
from netlab.wire import checksum
from netlab.wire.icmp import Error, Message

MPLS = (1, 1)  # class and type of an incoming label stack (RFC 4950 section 3)

_VERSION = 2
_QUOTED = 128  # bytes: a quote in front of extensions is padded to this (RFC 4884 sections 4.1 to 4.6)
_UNIT = {4: 4, 6: 8}  # the length field counts words of this many bytes (section 4)
_LENGTH_AT = {4: 1, 6: 0}  # its place in the second word of the header
_HEADER = struct.Struct("!BBH")
_OBJECT = struct.Struct("!HBB")
_ENTRY = struct.Struct("!I")
EXTENSIBLE = {Error.TIME_EXCEEDED, Error.PORT_UNREACHABLE, Error.ADMIN_PROHIBITED, Error.NET_UNREACHABLE}


@dataclass(frozen=True, slots=True)
class Label:
    """An entry of an MPLS label stack (RFC 3032)."""

    label: int
    traffic_class: int = 0
    ttl: int = 1


@dataclass(frozen=True, slots=True)
class Object:
    """An extension object: its class, its type, and what is in it."""

    kind: tuple[int, int]
    value: bytes


def extended(message: Message, objects: Sequence[Object]) -> Message:
    """Return the error *message* with *objects* behind its quote, which is cut or padded to 128 bytes."""
    if message.error not in EXTENSIBLE:
        raise ValueError(f"an ICMP {message.error} has no room for extensions")
    packed = b"".join(_OBJECT.pack(_OBJECT.size + len(o.value), *o.kind) + o.value for o in objects)
    blank = _HEADER.pack(_VERSION << 4, 0, 0) + packed
    structure = _HEADER.pack(_VERSION << 4, 0, checksum.internet(blank)) + packed
    rest = bytearray(message.rest)
    rest[_LENGTH_AT[message.family]] = _QUOTED // _UNIT[message.family]
    quoted = message.body[:_QUOTED].ljust(_QUOTED, b"\0")
    return message._replace(rest=bytes(rest), body=quoted + structure)


def split(message: Message) -> tuple[bytes, list[Object]]:
    """Return what the error *message* quotes, and the objects behind it.

    A message that says no length has no extensions, unless what follows its first 128 quoted bytes is a
    structure with a right checksum, as old routers send it (RFC 4884 section 5.5).

    Raises
    ------
    DecodeError
        If the message says that there are extensions and they are damaged.
    """
    length = message.rest[_LENGTH_AT[message.family]] * _UNIT[message.family]
    if length and message.error is not Error.PACKET_TOO_BIG:  # where the whole word is the MTU
        return message.body[:length], objects(message.body[length:])
    if len(message.body) <= _QUOTED:
        return message.body, []
    try:
        return message.body[:_QUOTED], objects(message.body[_QUOTED:])
    except DecodeError:
        return message.body, []


def objects(data: bytes) -> list[Object]:
    """Return the objects of an extension structure.

    Raises
    ------
    DecodeError
        If *data* is no such structure, or a damaged one.
    """
    if len(data) < _HEADER.size or data[0] >> 4 != _VERSION:
        raise DecodeError(f"no ICMP extension structure in {len(data)} bytes")
    sealed = int.from_bytes(data[2:4], "big")
    if sealed and checksum.internet(data):  # 0 means that there is none (RFC 4884 section 7)
        raise DecodeError("ICMP extensions with a wrong checksum")
    found = []
    place = _HEADER.size
    while place < len(data):
        length, kind, subtype = _OBJECT.unpack_from(data, place) if len(data) - place >= 4 else (0, 0, 0)
        if not _OBJECT.size <= length <= len(data) - place:
            raise DecodeError(f"ICMP extension object of {length} bytes in {len(data) - place}")
        found.append(Object((kind, subtype), data[place + _OBJECT.size : place + length]))
        place += length
    return found


def encode_labels(stack: Sequence[Label]) -> Object:
    """Return *stack*, the outermost label first, as an extension object."""
    last = len(stack) - 1
    entries = [
        _ENTRY.pack(entry.label << 12 | entry.traffic_class << 9 | (index == last) << 8 | entry.ttl)
        for index, entry in enumerate(stack)
    ]
    return Object(MPLS, b"".join(entries))


def decode_labels(objects: Sequence[Object]) -> list[Label]:
    """Return the label stack among *objects*, the outermost label first; empty if there is none."""
    words = [
        word
        for found in objects
        if found.kind == MPLS
        for (word,) in _ENTRY.iter_unpack(found.value[: len(found.value) // 4 * 4])
    ]
    return [Label(word >> 12, word >> 9 & 7, word & 0xFF) for word in words]
