"""How what stores and queues speak begins, and looks in the middle: Kafka, AMQP, Redis, databases."""

from __future__ import annotations

import re
import struct

from netlab.protocols.opinions import (
    Judge,
    Opinion,
    Reader,
    begun,
    by_client,
    by_either,
    by_server,
    first_of,
    opinion_of,
)
from netlab.protocols.rediscommands import is_command

_RESP_ARRAY = re.compile(rb"\*[1-9][0-9]{0,6}\r\n\$[0-9]{1,9}\r\n[A-Za-z]")
_RESP_ARRAY_START = re.compile(rb"\*(?:[1-9][0-9]{0,6}(?:\r(?:\n(?:\$(?:[0-9]{1,9}(?:\r\n?)?)?)?)?)?)?")
_INLINE = re.compile(rb"[A-Za-z][ -~]*\r?")
_RESP_ANSWER = re.compile(rb"[+-][ -~]*\r\n|:-?[0-9]{1,19}\r\n|[$*%~>](?:-1|[0-9]{1,9})\r\n|_\r\n")
_SQL = re.compile(rb"(?i)\s*(?:select|insert|update|delete|show|set|begin|commit|rollback|call|with|use)\b")
_SSL_REQUEST, _GSS_REQUEST, _CANCEL = 80877103, 80877104, 80877102
_AMQP_CLASSES = {10, 20, 30, 40, 50, 60, 85, 90}
_MONGO_COMMANDS = {2004, 2012, 2013}
_MONGO_ANSWERS = {1, 2012, 2013}
_POSTGRES_ANSWERS = b"123ACDEGHIKNRSTVWZcdnstv"  # as pgmessages, which brings an SQL parser
_POSTGRES_REQUESTS = b"BCDEFHPQSXcdfp"
_POSTGRES_ENDS = b"QS"  # of requests: what is answered at once
KAFKA_LARGEST = 1 << 30  # bytes of a message
KAFKA_APIS, KAFKA_VERSIONS = 128, 31  # none has as high a number: what says more is no header


# Kafka (kafka.apache.org/protocol): size, API, version, correlation id, client id; answers repeat the fourth.


def _kafka_request(data: bytes) -> Opinion:
    if len(data) < 14:
        return Opinion.MORE if data[0] < KAFKA_LARGEST >> 24 else Opinion.NO
    size, api, version, correlation, named = struct.unpack_from("!ihhih", data)
    if not (10 <= size < KAFKA_LARGEST and 0 <= api < KAFKA_APIS and 0 <= version < KAFKA_VERSIONS):
        return Opinion.NO
    name = data[14 : 14 + max(named, 0)]
    if correlation < 0 or not -1 <= named <= size - 10 or (name and not name.isascii()):
        return Opinion.NO
    if any(byte < 32 for byte in name):
        return Opinion.NO
    return Opinion.LIKELY


def _kafka(client: bytes, server: bytes) -> Opinion:
    asked = opinion_of(_kafka_request, client)
    if asked is not Opinion.LIKELY:
        return asked
    if len(server) < 8:
        return Opinion.LIKELY
    size = int.from_bytes(server[:4], "big")
    if not 4 <= size < KAFKA_LARGEST or server[4:8] != client[8:12]:
        return Opinion.NO
    return Opinion.SURE if client[12:14] != b"\0\0" else Opinion.LIKELY  # without a name: ZooKeeper's, too


# AMQP 0-9-1 (section 4.2) and 1.0 (section 2.2)


def _amqp_header(data: bytes) -> Opinion:
    if len(data) < 8:
        return min(begun(data[:4], b"AMQP"), Opinion.MORE)
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
        return begun(data[:8], b"\x08\0\0\0\0\0\0\xce")
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


def _redis_inline(data: bytes) -> Opinion:
    """Judge a command as a line of words, as health checks send it, and people who type it."""
    line, end, _ = data.partition(b"\n")
    if not _INLINE.fullmatch(line):
        return Opinion.NO
    if not end:
        return Opinion.MORE
    return Opinion.LIKELY if is_command(line.split()[0].decode("ascii").upper()) else Opinion.NO


def _redis_inline_answer(data: bytes) -> Opinion:
    """Of POP3, whose commands have such names, too, the greeting says more than OK."""
    return Opinion.NO if data.startswith(b"+OK ") else _redis_answer(data)


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
        if count and place == len(data) and kind in _POSTGRES_ENDS:
            return Opinion.SURE
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


OPENING: dict[str, Judge] = {
    "kafka": _kafka,
    "amqp": by_either(_amqp_header, _amqp_start),
    "redis": first_of(
        by_either(_redis_command, _redis_answer), by_either(_redis_inline, _redis_inline_answer)
    ),
    "mongodb": by_either(_mongo(_MONGO_COMMANDS, answers=False), _mongo(_MONGO_ANSWERS, answers=True)),
    "postgres": by_client(_postgres_startup),
    "mysql": by_server(_mysql_greeting),
}
MIDDLE: dict[str, Judge] = {
    "amqp": by_either(_amqp_frame, _amqp_frame),
    "postgres": by_either(_postgres_messages(_POSTGRES_REQUESTS), _postgres_messages(_POSTGRES_ANSWERS)),
    "mysql": by_either(_mysql_query, _mysql_answer),
}
