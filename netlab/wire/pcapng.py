"""Captured packets: classic pcap (draft-ietf-opsawg-pcap) and pcapng (draft-ietf-opsawg-pcapng).

A pcapng file is kept block by block as it is, so that what is not understood here is not lost; comments are
put into the blocks of packets.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from netlab.errors import DecodeError

Read: TypeAlias = Callable[[int], bytes]  # returns so many bytes, fewer only at the end

_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_BYTE_ORDER = 0x1A2B3C4D
_COMMENT, _RESOLUTION, _OFFSET = 1, 9, 14  # options; the last two are of interfaces
_CLASSIC = {0xA1B2C3D4: 10**6, 0xA1B23C4D: 10**9}  # ticks per second by magic number
_MOST_BYTES = 64 << 20  # of one block
_NS = 10**9


@dataclass(frozen=True, slots=True)
class Interface:
    """Where packets were captured, and how their times are counted."""

    linktype: int
    ticks_per_s: int = 10**6
    offset_s: int = 0

    def at_ns(self, ticks: int) -> int:
        """Return a packet's time in UTC."""
        return self.offset_s * _NS + ticks * _NS // self.ticks_per_s


@dataclass(frozen=True, slots=True)
class Packet:
    """One captured packet; *body* is its block up to the options, *options* are those that it has."""

    linktype: int
    at_ns: int
    data: bytes
    order: str  # of bytes, as struct has it
    body: bytes = field(repr=False)
    options: bytes = field(default=b"", repr=False)

    def block(self, comments: Sequence[str]) -> bytes:
        """Return its block with more comments in front of the options that it has."""
        told = b"".join(_option(self.order, _COMMENT, comment.encode()) for comment in comments)
        end = b"" if self.options or not told else bytes(4)
        return _block(self.order, _PACKET, self.body + told + self.options + end)


def blocks(read: Read) -> Iterator[Packet | bytes]:
    """Return the packets of a file, and all else in it as blocks of pcapng.

    Raises DecodeError at what is neither format, and EOFError where a file ends in the middle of a packet.
    """
    start = read(4)
    if len(start) < 4:
        raise DecodeError("a file of less than four bytes is no packet capture")
    for order in "<>":
        (magic,) = struct.unpack(f"{order}I", start)
        if magic in _CLASSIC:
            return _of_pcap(read, order, _CLASSIC[magic])
    if struct.unpack("<I", start)[0] == _SECTION:
        return _of_pcapng(read, start)
    raise DecodeError("this file is neither pcap nor pcapng")


def _of_pcap(read: Read, order: str, ticks_per_s: int) -> Iterator[Packet | bytes]:
    *_, snap_bytes, linktype = struct.unpack(f"{order}HHiIII", _exactly(read, 20))
    interface = Interface(linktype & 0xFFFF, ticks_per_s)
    yield _block("<", _SECTION, struct.pack("<IHHq", _BYTE_ORDER, 1, 0, -1))
    digits = len(str(ticks_per_s)) - 1
    options = _option("<", _RESOLUTION, bytes([digits])) + bytes(4)
    yield _block("<", _INTERFACE, struct.pack("<HHI", interface.linktype, 0, snap_bytes) + options)
    while header := read(16):
        seconds, ticks, kept, size = struct.unpack(f"{order}IIII", header + _exactly(read, 16 - len(header)))
        data = _exactly(read, _bounded(kept))
        count = seconds * ticks_per_s + ticks
        body = struct.pack("<IIIII", 0, count >> 32, count & 0xFFFFFFFF, kept, size) + _padded(data)
        yield Packet(interface.linktype, interface.at_ns(count), data, "<", body)


def _of_pcapng(read: Read, start: bytes) -> Iterator[Packet | bytes]:
    order, interfaces = "<", list[Interface]()
    while start:
        start += _exactly(read, 8 - len(start))
        kind = struct.unpack(f"{order}I", start[:4])[0]
        if kind == _SECTION:
            magic = _exactly(read, 4)
            order = "<" if struct.unpack("<I", magic)[0] == _BYTE_ORDER else ">"
            if struct.unpack(f"{order}I", magic)[0] != _BYTE_ORDER:
                raise DecodeError("a section of this pcapng file does not say its byte order")
            interfaces = []
        else:
            magic = b""
        (length,) = struct.unpack(f"{order}I", start[4:])
        if length < 12 + len(magic) or length % 4:
            raise DecodeError(f"a block of this pcapng file says it is {length} bytes long")
        rest = magic + _exactly(read, _bounded(length) - 8 - len(magic))
        body = rest[:-4]
        if kind == _INTERFACE:
            interfaces.append(_interface(order, body))
        yield _packet(order, body, interfaces) if kind == _PACKET else start + rest
        start = read(4)


def _interface(order: str, body: bytes) -> Interface:
    if len(body) < 8:
        raise DecodeError("an interface of this pcapng file is cut short")
    ticks_per_s, offset_s = 10**6, 0
    for code, value in _options(order, body[8:]):
        if code == _RESOLUTION and len(value) == 1:
            ticks_per_s = 2 ** (value[0] & 0x7F) if value[0] & 0x80 else 10 ** value[0]
        elif code == _OFFSET and len(value) == 8:
            (offset_s,) = struct.unpack(f"{order}q", value)
    return Interface(struct.unpack(f"{order}H", body[:2])[0], ticks_per_s, offset_s)


def _packet(order: str, body: bytes, interfaces: Sequence[Interface]) -> Packet:
    if len(body) < 20:
        raise DecodeError("a packet of this pcapng file is cut short")
    place, high, low, kept, _ = struct.unpack(f"{order}IIIII", body[:20])
    end = 20 + kept + -kept % 4
    if place >= len(interfaces) or end > len(body):
        raise DecodeError("a packet of this pcapng file is longer than its block or of no interface")
    interface = interfaces[place]
    data = body[20 : 20 + kept]
    return Packet(interface.linktype, interface.at_ns(high << 32 | low), data, order, body[:end], body[end:])


def _options(order: str, data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 4:
        code, size = struct.unpack(f"{order}HH", data[:4])
        if code == 0:
            return
        yield code, data[4 : 4 + size]
        data = data[4 + size + -size % 4 :]


def _option(order: str, code: int, value: bytes) -> bytes:
    kept = value[:0xFFFF].decode(errors="ignore").encode() if len(value) > 0xFFFF else value
    return struct.pack(f"{order}HH", code, len(kept)) + _padded(kept)


def _block(order: str, kind: int, body: bytes) -> bytes:
    length = struct.pack(f"{order}I", 12 + len(body))
    return struct.pack(f"{order}I", kind) + length + body + length


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _bounded(size: int) -> int:
    if size > _MOST_BYTES:
        raise DecodeError(f"a packet of this capture says it has {size} bytes")
    return size


def _exactly(read: Read, size: int) -> bytes:
    data = read(size)
    if len(data) < size:
        raise EOFError
    return data
