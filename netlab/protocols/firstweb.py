"""How what browsers speak begins, and looks in the middle: TLS, HTTP/1, HTTP/2, gRPC, and DNS over TCP."""

from __future__ import annotations

import re
import struct

from netlab.protocols.h2frames import PREFACE
from netlab.protocols.opinions import ENOUGH, Judge, Opinion, Reader, begun, by_client, by_either

_HTTP_METHOD = re.compile(rb"(?:GET|HEAD|POST|PUT|DELETE|OPTIONS|PATCH|TRACE|CONNECT) ")
_HTTP_REQUEST = re.compile(_HTTP_METHOD.pattern + rb"[!-~]+ HTTP/1\.[01]\r?\n")
_HTTP_LONG = re.compile(_HTTP_METHOD.pattern + rb"(?:/|https?://)[!-~]*")
_HTTP_STATUS = re.compile(rb"HTTP/1\.[01] [1-5][0-9][0-9][ \r\n]")
_METHODS = (b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"TRACE ", b"CONNECT ")
_GRPC = (b"application/grpc", bytes.fromhex("1d75d0620d263d4c4d6564"))  # as text and in HPACK's Huffman code
_DNS_FLAGS = 0xFE4F  # a query's bits that are 0: it is no answer, its opcode, and what only answers say


# TLS (RFC 8446 section 5.1): records of a type, a version 3.x and a length.


def _tls_hello(kind: int) -> Reader:
    def read(data: bytes) -> Opinion:
        shape = bytes([22, 3])
        if data[:2] != shape[: len(data)]:
            return Opinion.NO
        if len(data) < 11:
            return Opinion.MORE
        version, length, said, _, size = struct.unpack_from("!BHBBH", data, 2)
        whole = version <= 4 and 4 < length <= 1 << 14 and said == kind and data[6] == 0 and size > 34
        return Opinion.SURE if whole and data[9] == 3 and data[10] <= 4 else Opinion.NO

    return read


def _tls_records(data: bytes) -> Opinion:
    place = count = 0
    while len(data) - place >= 5:
        kind, version, length = struct.unpack_from("!BHH", data, place)
        if (
            kind not in {20, 21, 22, 23}
            or not 0x301 <= version <= 0x303
            or not 0 < length <= (1 << 14) + 2048
        ):
            return Opinion.NO
        place += 5 + length
        count += 1
    if count == 0:
        return Opinion.MORE if data[:2] in {b"\x17", b"\x17\x03"} else Opinion.NO
    return Opinion.SURE if count > 1 else Opinion.LIKELY


# HTTP/1 (RFC 9112 sections 3 and 4)


def _http_request(data: bytes) -> Opinion:
    if _HTTP_REQUEST.match(data):
        return Opinion.SURE
    if len(data) >= ENOUGH and _HTTP_LONG.fullmatch(data):
        return Opinion.LIKELY
    growing = _HTTP_LONG.match(data) or any(method.startswith(data) for method in _METHODS)
    return Opinion.MORE if growing and b"\n" not in data else Opinion.NO


def _http_answer(data: bytes) -> Opinion:
    if _HTTP_STATUS.match(data):
        return Opinion.SURE
    return Opinion.MORE if len(data) < 13 and b"HTTP/1.1 "[: len(data)] == data[:9] else Opinion.NO


# HTTP/2 (RFC 9113 sections 3.4, 4.1 and 6)


def _h2_frames(data: bytes) -> list[tuple[int, int, bytes]] | None:
    """Return the type, stream and payload of the frames that *data* begin with; None: no frames these."""
    frames, place = [], 0
    while len(data) - place >= 9:
        length = int.from_bytes(data[place : place + 3], "big")
        kind, flags, stream = struct.unpack_from("!BBI", data, place + 3)
        if not _is_h2_frame(length, kind, flags, stream):
            return None
        frames.append((kind, stream, data[place + 9 : place + 9 + length]))
        place += 9 + length
    return frames


def _is_h2_frame(length: int, kind: int, flags: int, stream: int) -> bool:
    if kind > 9 or length > 1 << 14 or stream >> 31:
        return False
    whole = {2: length == 5, 3: length == 4, 6: length == 8, 8: length == 4, 4: length % 6 == 0}.get(
        kind, True
    )
    placed = kind == 8 or (stream == 0) == (kind in {4, 6, 7})
    return whole and placed and not flags & ~0x2D


def _h2_opening(data: bytes) -> Opinion:
    frames = _h2_frames(data)
    if frames is None:
        return Opinion.NO
    if not frames:
        return Opinion.MORE if not any(data[:1]) else Opinion.NO
    return Opinion.LIKELY if frames[0][:2] == (4, 0) else Opinion.NO


def _h2_middle(data: bytes) -> Opinion:
    frames = _h2_frames(data)
    if frames is None:
        return Opinion.NO
    if not frames:
        return Opinion.MORE if not any(data[:1]) else Opinion.NO
    exact = sum(
        kind in {3, 6, 8} and any(payload) for kind, _, payload in frames
    )  # their sizes are laid down
    if len(frames) > 1 and exact:
        return Opinion.SURE
    kind, stream, payload = frames[0]
    asks = kind == 1 and stream & 1 and payload[:1] >= b"\x80"  # begins with a field of HPACK's tables
    return Opinion.LIKELY if exact or asks else Opinion.MORE


def speaks_grpc(client: bytes) -> bool:
    """Say whether a request among HTTP/2's first frames is gRPC's, by its content type."""
    frames = _h2_frames(client.removeprefix(PREFACE)) or []
    return any(kind == 1 and any(text in payload for text in _GRPC) for kind, _, payload in frames)


# DNS over TCP (RFC 1035 sections 4.1 and 4.2.2)


def _dns_query(data: bytes) -> Opinion:
    if len(data) < 14:
        return Opinion.MORE if data[0] < 16 else Opinion.NO
    length, _, flags, asked, answers, authority, additional = struct.unpack_from("!7H", data)
    if flags & _DNS_FLAGS & ~0x100 or (asked, answers, authority) != (1, 0, 0) or additional > 2:
        return Opinion.NO
    place = 14
    while place < len(data) and data[place]:
        if data[place] > 63:
            return Opinion.NO
        place += 1 + data[place]
    if place + 5 > len(data):
        return Opinion.MORE if place < 14 + 255 else Opinion.NO
    exact = place + 3 == length if not additional else place + 3 < length
    return (
        Opinion.SURE if exact and data[place + 3 : place + 5] in {b"\0\1", b"\0\3", b"\0\xff"} else Opinion.NO
    )


OPENING: dict[str, Judge] = {
    "tls": by_either(_tls_hello(1), _tls_hello(2)),
    "http": by_either(_http_request, _http_answer),
    "http2": by_either(lambda data: begun(data, PREFACE), _h2_opening),
    "dns": by_client(_dns_query),
}
MIDDLE: dict[str, Judge] = {
    "tls": by_either(_tls_records, _tls_records),
    "http2": by_either(_h2_middle, _h2_middle),
}
