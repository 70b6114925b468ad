"""Frames of HTTP/2 (RFC 9113 sections 4 to 7)."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER = 9  # bytes
END_STREAM = 0x1
END_HEADERS = 0x4

_PADDED, _PRIORITY = 0x8, 0x20
_USUAL_LENGTH = 1 << 14  # until a peer allows more


class Kind(IntEnum):
    """What a frame is for."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Frame(NamedTuple):
    """A frame's header."""

    length: int
    kind: int  # those that are no Kind are extensions
    flags: int
    stream: int


_OF_STREAM = {Kind.DATA, Kind.HEADERS, Kind.PRIORITY, Kind.RST_STREAM, Kind.PUSH_PROMISE, Kind.CONTINUATION}
_OF_CONNECTION = {Kind.SETTINGS, Kind.PING, Kind.GOAWAY}
_LENGTHS: dict[int, int] = {Kind.PRIORITY: 5, Kind.RST_STREAM: 4, Kind.PING: 8, Kind.WINDOW_UPDATE: 4}
_FLAGS: dict[int, int] = {  # that are defined
    Kind.DATA: 0x9,
    Kind.HEADERS: 0x2D,
    Kind.SETTINGS: 0x1,
    Kind.PUSH_PROMISE: 0xC,
    Kind.PING: 0x1,
    Kind.CONTINUATION: 0x4,
}
_IN_A_ROW = {Kind.DATA, Kind.CONTINUATION}  # never the first to be found: they look like what they carry
_ERRORS = (
    None,  # NO_ERROR
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
)


def frame_at(data: bytes, place: int) -> Frame | None:
    """Read the frame header at *place*; None: no peer may send that."""
    length = int.from_bytes(data[place : place + 3], "big")
    kind, flags = data[place + 3], data[place + 4]
    stream = int.from_bytes(data[place + 5 : place + 9], "big") & 0x7FFFFFFF
    wrong = (
        (kind in _OF_STREAM and not stream)
        or (kind in _OF_CONNECTION and stream)
        or _LENGTHS.get(kind, length) != length
        or (kind == Kind.SETTINGS and length % 6)
        or (kind == Kind.GOAWAY and length < 8)
    )
    return None if wrong else Frame(length, kind, flags, stream)


def seem_to_begin(data: bytes, place: int) -> bool:
    """Return whether frames begin at *place*: one that is whole, and fitting ones up to the end of *data*."""
    count = 0
    while len(data) - place >= HEADER:
        frame = frame_at(data, place)
        if frame is None or not _is_usual(frame, data[place + 5]) or (not count and frame.kind in _IN_A_ROW):
            return False
        place += HEADER + frame.length
        count += place <= len(data)
    return bool(count) and place >= len(data)


def _is_usual(frame: Frame, reserved: int) -> bool:
    flags = _FLAGS.get(frame.kind, 0)
    known = frame.kind <= Kind.CONTINUATION and not frame.flags & ~flags
    return bool(known) and frame.length <= _USUAL_LENGTH and reserved < 0x80


def block_of(frame: Frame, payload: bytes) -> bytes | None:
    """Return the part of a header block in a frame without its padding; None: it is damaged."""
    begin, end = 0, len(payload)
    if frame.kind != Kind.CONTINUATION and frame.flags & _PADDED:
        begin, end = 1, end - (payload[0] if payload else 1)
    if frame.kind == Kind.HEADERS and frame.flags & _PRIORITY:
        begin += 5
    if frame.kind == Kind.PUSH_PROMISE:
        begin += 4
    return payload[begin:end] if begin <= end else None


def error_name(code: bytes) -> str | None:
    """Return the name of an error code (section 7); None: it is no error."""
    number = int.from_bytes(code, "big")
    return _ERRORS[number] if number < len(_ERRORS) else f"0x{number:x}"
