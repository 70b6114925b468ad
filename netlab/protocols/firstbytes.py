"""How each protocol begins, and how its messages look in the middle: opinions on the bytes of both sides."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from enum import IntEnum

ENOUGH = 256  # bytes of a side: what these have not told, more will not tell


class Opinion(IntEnum):
    """What one protocol says about some bytes."""

    NO = 0  # not mine
    MORE = 1  # too few to say
    LIKELY = 2  # could be mine, and others' too
    SURE = 3


Reader = Callable[[bytes], Opinion]
Judge = Callable[[bytes, bytes], Opinion]  # of the client's bytes and the server's

_HTTP_METHOD = re.compile(rb"(?:GET|HEAD|POST|PUT|DELETE|OPTIONS|PATCH|TRACE|CONNECT) ")
_HTTP_REQUEST = re.compile(_HTTP_METHOD.pattern + rb"[!-~]+ HTTP/1\.[01]\r?\n")
_HTTP_LONG = re.compile(_HTTP_METHOD.pattern + rb"(?:/|https?://)[!-~]*")
_HTTP_STATUS = re.compile(rb"HTTP/1\.[01] [1-5][0-9][0-9][ \r]")
_METHODS = (b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"TRACE ", b"CONNECT ")
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_GRPC = (b"application/grpc", bytes.fromhex("1d75d0620d263d4c4d6564"))  # as text and in HPACK's Huffman code
_RESP_ARRAY = re.compile(rb"\*[1-9][0-9]{0,6}\r\n\$[0-9]{1,9}\r\n[A-Za-z]")
_RESP_ARRAY_START = re.compile(rb"\*(?:[1-9][0-9]{0,6}(?:\r(?:\n(?:\$(?:[0-9]{1,9}(?:\r\n?)?)?)?)?)?)?")
_RESP_ANSWER = re.compile(rb"[+-][ -~]*\r\n|:-?[0-9]{1,19}\r\n|[$*%~>](?:-1|[0-9]{1,9})\r\n|_\r\n")
_SQL = re.compile(rb"(?i)\s*(?:select|insert|update|delete|show|set|begin|commit|rollback|call|with|use)\b")
_DNS_FLAGS = 0xFE4F  # a query's bits that are 0: it is no answer, its opcode, and what only answers say
_SSL_REQUEST, _GSS_REQUEST, _CANCEL = 80877103, 80877104, 80877102
_AMQP_CLASSES = {10, 20, 30, 40, 50, 60, 85, 90}
_MONGO_COMMANDS = {2004, 2012, 2013}
_MONGO_ANSWERS = {1, 2012, 2013}
_POSTGRES_ANSWERS = b"123ACDEGHIKNRSTVWZnst"
_POSTGRES_REQUESTS = b"BCDEFHPQSXcdfp"
KAFKA_NEWEST = 95  # no API has a higher number
_KAFKA_VERSIONS = 20  # nor a higher version


def _by_either(client: Reader, server: Reader) -> Judge:
    """Return the judge who is sure when one side is, or when both sides are likely."""

    def judge(asked: bytes, answered: bytes) -> Opinion:
        one, other = _of(client, asked), _of(server, answered)
        if one is other is Opinion.LIKELY:
            return Opinion.SURE
        return (
            max(one, other) if Opinion.SURE in (one, other) or Opinion.NO not in (one, other) else Opinion.NO
        )

    return judge


def _of(reader: Reader, data: bytes) -> Opinion:
    opinion = reader(data[:ENOUGH]) if data else Opinion.MORE
    return Opinion.NO if opinion is Opinion.MORE and len(data) >= ENOUGH else opinion


def _begun(data: bytes, whole: bytes) -> Opinion:
    if data.startswith(whole):
        return Opinion.SURE
    return Opinion.MORE if whole.startswith(data) else Opinion.NO


def _by_client(reader: Reader) -> Judge:
    return lambda client, _: _of(reader, client)


def _by_server(reader: Reader) -> Judge:
    return lambda _, server: _of(reader, server)


def _first_of(*judges: Judge) -> Judge:
    return lambda client, server: max(judge(client, server) for judge in judges)


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


def h2_frames(data: bytes) -> list[tuple[int, int, bytes]] | None:
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
    frames = h2_frames(data)
    if frames is None:
        return Opinion.NO
    if not frames:
        return Opinion.MORE if not any(data[:1]) else Opinion.NO
    return Opinion.LIKELY if frames[0][:2] == (4, 0) else Opinion.NO


def _h2_middle(data: bytes) -> Opinion:
    frames = h2_frames(data)
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
    frames = h2_frames(client.removeprefix(_PREFACE)) or []
    return any(kind == 1 and any(text in payload for text in _GRPC) for kind, _, payload in frames)


# Kafka (kafka.apache.org/protocol): size, API, version, correlation id, client id; answers repeat the fourth.


def _kafka_request(data: bytes) -> Opinion:
    if len(data) < 14:
        return Opinion.MORE if data[0] < 8 else Opinion.NO
    size, api, version, correlation, named = struct.unpack_from("!ihhih", data)
    if not (10 <= size < 1 << 27 and 0 <= api <= KAFKA_NEWEST and 0 <= version <= _KAFKA_VERSIONS):
        return Opinion.NO
    name = data[14 : 14 + max(named, 0)]
    if correlation < 0 or not -1 <= named <= size - 10 or (name and not name.isascii()):
        return Opinion.NO
    if any(byte < 32 for byte in name):
        return Opinion.NO
    return Opinion.LIKELY


def _kafka(client: bytes, server: bytes) -> Opinion:
    asked = _of(_kafka_request, client)
    if asked is not Opinion.LIKELY:
        return asked
    if len(server) < 8:
        return Opinion.LIKELY
    size = int.from_bytes(server[:4], "big")
    if not 4 <= size < 1 << 27 or server[4:8] != client[8:12]:
        return Opinion.NO
    return Opinion.SURE if client[12:14] != b"\0\0" else Opinion.LIKELY  # without a name: ZooKeeper's, too


# AMQP 0-9-1 (section 4.2) and 1.0 (section 2.2)


def _amqp_header(data: bytes) -> Opinion:
    if len(data) < 8:
        return min(_begun(data[:4], b"AMQP"), Opinion.MORE)
    versions = {b"\0\0\x09\x01", b"\1\1\0\x09", b"\1\1\x08\0", b"\0\1\0\0", b"\2\1\0\0", b"\3\1\0\0"}
    return Opinion.SURE if data[:4] == b"AMQP" and data[4:8] in versions else Opinion.NO


def _amqp_start(data: bytes) -> Opinion:
    if data[:1] == b"A":
        return _amqp_header(data)
    if len(data) < 13:
        return Opinion.MORE if b"\1\0\0"[: len(data)] == data[:3] else Opinion.NO
    return Opinion.SURE if data[:3] == b"\1\0\0" and data[7:13] == b"\0\x0a\0\x0a\0\x09" else Opinion.NO


def _amqp_frame(data: bytes) -> Opinion:
    if len(data) < 7 or data[0] not in {1, 2, 3, 8}:
        return Opinion.MORE if data[0] in {1, 2, 3, 8} else Opinion.NO
    kind, channel, size = struct.unpack_from("!BHI", data)
    if kind == 8:
        return _begun(data[:8], b"\x08\0\0\0\0\0\0\xce")
    if len(data) < size + 8:
        return Opinion.MORE
    known = kind == 1 and size >= 4 and int.from_bytes(data[7:9], "big") in _AMQP_CLASSES
    return Opinion.SURE if known and channel < 4096 and data[size + 7] == 0xCE else Opinion.NO


# Redis (RESP2 and 3): a command is an array of bulk strings.


def _redis_command(data: bytes) -> Opinion:
    if _RESP_ARRAY.match(data):
        return Opinion.SURE
    return Opinion.MORE if _RESP_ARRAY_START.fullmatch(data) else Opinion.NO


def _redis_answer(data: bytes) -> Opinion:
    if _RESP_ANSWER.match(data):
        return Opinion.LIKELY
    return Opinion.MORE if data[:1] in b"+-:$*%~>_" and b"\r\n" not in data else Opinion.NO


# MongoDB (the wire protocol's message header, OP_MSG and OP_QUERY)


def _mongo(operations: set[int], *, answers: bool) -> Reader:
    def read(data: bytes) -> Opinion:
        if len(data) < 40:
            return Opinion.MORE
        length, _, responding, operation, first = struct.unpack_from("<iiiiI", data)
        if not 26 <= length <= 48_000_000 or operation not in operations or bool(responding) is not answers:
            return Opinion.NO
        return Opinion.SURE if _is_mongo_body(operation, length, first, data) else Opinion.NO

    return read


def _is_mongo_body(operation: int, length: int, first: int, data: bytes) -> bool:
    if operation == 2013:  # OP_MSG: flags, then a section with a document
        (size,) = struct.unpack_from("<I", data, 21)
        return not first & ~0x1_0003 and data[20] in {0, 1} and 5 <= size <= length - 21
    if operation == 2012:  # OP_COMPRESSED: what it was, its size, by what
        return first in {2004, 2013} and data[24] <= 3
    if operation == 1:  # OP_REPLY: flags, cursor, two numbers, documents
        (size,) = struct.unpack_from("<I", data, 36)
        return first < 16 and 5 <= size <= length - 36
    return first < 256 and 32 <= data[20] < 127  # OP_QUERY: flags, the collection's name


# PostgreSQL (message formats): a startup message without a type, later a type and a length.


def _postgres_startup(data: bytes) -> Opinion:
    if len(data) < 8:
        return Opinion.MORE if data[:2] == bytes(len(data[:2])) else Opinion.NO
    length, code = struct.unpack_from("!II", data)
    if (length, code) in {(8, _SSL_REQUEST), (8, _GSS_REQUEST), (16, _CANCEL)}:
        return Opinion.SURE
    if not (8 < length <= 10_000 and code >> 16 == 3 and code & 0xFFFF <= 9_999):
        return Opinion.NO
    key, end, _ = data[8:].partition(b"\0")
    if key.isascii() and key.replace(b"_", b"").isalnum():
        return Opinion.SURE if end else Opinion.MORE
    return Opinion.NO if key or end else Opinion.MORE


def _postgres_messages(kinds: bytes) -> Reader:
    def read(data: bytes) -> Opinion:
        place = count = 0
        while len(data) - place >= 5:
            kind, length = struct.unpack_from("!BI", data, place)
            if kind not in kinds or not 4 <= length < 1 << 30:
                return Opinion.NO
            if data[place : place + 5] == b"Z\0\0\0\5" and data[place + 5 : place + 6] in {b"I", b"T", b"E"}:
                return Opinion.SURE
            place += 1 + length
            count += place <= len(data)
        if count:
            return Opinion.LIKELY
        return Opinion.MORE if data[0] in kinds else Opinion.NO

    return read


# MySQL and MariaDB (connection phase): the server begins; packets have a length of three bytes and a number.


def _mysql_greeting(data: bytes) -> Opinion:
    if len(data) < 6:
        return Opinion.MORE if data[3:5] == b"\0\x0a"[: len(data[3:5])] else Opinion.NO
    length = int.from_bytes(data[:3], "little")
    version, end, rest = data[5:].partition(b"\0")
    if data[3:5] != b"\0\x0a" or not 30 <= length <= 512 or not re.match(rb"[0-9]+\.[0-9.]*[ -~]*$", version):
        return Opinion.NO
    if len(rest) < 13:
        return Opinion.MORE
    return Opinion.SURE if end and rest[12] == 0 else Opinion.NO  # behind thread id and challenge


def _mysql_query(data: bytes) -> Opinion:
    if len(data) < 16:
        return Opinion.MORE if data[3:5] == b"\0\x03"[: len(data[3:5])] else Opinion.NO
    whole = data[3:5] == b"\0\x03" and int.from_bytes(data[:3], "little") + 4 >= len(data)
    return Opinion.LIKELY if whole and _SQL.match(data, 5) else Opinion.NO


def _mysql_answer(data: bytes) -> Opinion:
    if len(data) < 5:
        return Opinion.MORE
    return Opinion.LIKELY if data[3] == 1 and 0 < int.from_bytes(data[:3], "little") < 1 << 16 else Opinion.NO


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
    "tls": _by_either(_tls_hello(1), _tls_hello(2)),
    "http": _by_either(_http_request, _http_answer),
    "http2": _by_either(lambda data: _begun(data, _PREFACE), _h2_opening),
    "kafka": _kafka,
    "amqp": _by_either(_amqp_header, _amqp_start),
    "redis": _by_either(_redis_command, _redis_answer),
    "mongodb": _by_either(_mongo(_MONGO_COMMANDS, answers=False), _mongo(_MONGO_ANSWERS, answers=True)),
    "postgres": _by_client(_postgres_startup),
    "mysql": _by_server(_mysql_greeting),
    "dns": _by_client(_dns_query),
}
_MIDDLE: dict[str, Judge] = {
    "tls": _by_either(_tls_records, _tls_records),
    "http2": _by_either(_h2_middle, _h2_middle),
    "amqp": _by_either(_amqp_frame, _amqp_frame),
    "postgres": _by_either(_postgres_messages(_POSTGRES_REQUESTS), _postgres_messages(_POSTGRES_ANSWERS)),
    "mysql": _by_either(_mysql_query, _mysql_answer),
}
MIDDLE = {
    name: _first_of(judge, _MIDDLE[name]) if name in _MIDDLE else judge for name, judge in OPENING.items()
}
