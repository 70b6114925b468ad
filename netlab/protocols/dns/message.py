"""DNS messages, as far as a lookup goes: header, questions, answers and EDNS (RFC 1035 section 4, RFC 6891).

The structure is read here, because reading all of a message into dnspython's objects takes ten times as long;
what is in a record of any other type than the commonest is still dnspython's to say.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import NamedTuple

from netlab.errors import DecodeError
from netlab.protocols.dns import text

A, CNAME, AAAA, OPT, ANY = 1, 5, 28, 41, 255
CLASS_IN = 1
QUERY = 0  # the opcode of a lookup
NOERROR = 0  # its rcode
CUT = "..."  # what a record says behind the last that is kept
MOST_QUESTIONS = 16  # more than one is seen in multicast DNS only
MOST_RECORDS = 256  # of an answer; the rest of a zone transfer is nobody's address
MOST_TEXT = 4096  # characters that the records of an answer say together

_HEADER = struct.Struct("!HHHHHH")
_QUESTION = struct.Struct("!HH")
_RECORD = struct.Struct("!HHIH")
_LONGEST_NAME = 255  # octets, with the lengths of its labels
_POINTER = 0xC0
_MOST_POINTERS = 127  # of a name: it has no more labels
_UNIQUE = 0x8000  # multicast DNS: "answer me alone", "forget what you knew" (RFC 6762 section 18.12 f.)
_FINAL_TTL = 0x7FFFFFFF  # a larger one counts as 0 (RFC 2181 section 8)


class Question(NamedTuple):
    """What is asked for. The name is in lower case: who asks may have mixed it, to recognise the answer."""

    name: str
    type: int
    rdclass: int


class Record(NamedTuple):
    """One record of an answer. Its text is None where nobody asked for records of its type."""

    name: str
    type: int
    ttl_s: int
    text: str | None


@dataclass(frozen=True, slots=True)
class Message:
    """What a message says about lookups."""

    id: int
    is_answer: bool
    opcode: int
    is_truncated: bool
    rcode: int  # with the upper bits from EDNS
    questions: tuple[Question, ...]
    records: tuple[Record, ...]
    authorities: int  # records behind the answers
    edns_bytes: int | None
    size_bytes: int


def read(data: bytes, *, size_bytes: int | None = None) -> Message:
    """Read one message.

    Parameters
    ----------
    data
        The message, or its beginning.
    size_bytes
        The size of the whole message in bytes, where *data* is only its beginning.

    Raises
    ------
    DecodeError
        If it is no DNS message. The end of one that is cut, or that its sender truncated, may be missing.
    """
    size = len(data) if size_bytes is None else size_bytes
    try:
        number, flags, asked, answers, authorities, extras = _HEADER.unpack_from(data)
        at, questions = _HEADER.size, []
        for _ in range(min(asked, MOST_QUESTIONS)):
            question, at = _question(data, at)
            questions.append(question)
        for _ in range(asked - len(questions)):
            at = _after_name(data, at) + _QUESTION.size
    except (struct.error, IndexError) as error:
        raise DecodeError(f"a DNS message of {len(data)} bytes ends within its questions") from error
    is_truncated = bool(flags & 0x0200)
    records: list[Record] = []
    edns = None
    try:
        at = _answers(data, at, answers, questions, records)
        edns = _edns(data, at, authorities, extras)
    except (struct.error, IndexError) as error:
        if not is_truncated and size == len(data):
            raise DecodeError(f"a DNS message of {len(data)} bytes ends within its records") from error
    upper_rcode = edns[1] >> 24 if edns else 0
    return Message(
        id=number,
        is_answer=bool(flags & 0x8000),
        opcode=flags >> 11 & 15,
        is_truncated=is_truncated,
        rcode=upper_rcode << 4 | flags & 15,
        questions=tuple(questions),
        records=tuple(records),
        authorities=authorities,
        edns_bytes=edns[0] if edns else None,
        size_bytes=size,
    )


def _question(data: bytes, at: int) -> tuple[Question, int]:
    name, at = _name(data, at)
    kind, rdclass = _QUESTION.unpack_from(data, at)
    return Question(name, kind, rdclass & ~_UNIQUE), at + _QUESTION.size


def _answers(data: bytes, at: int, count: int, questions: list[Question], found: list[Record]) -> int:
    """Add the answer section's records to *found*, and return where it ends."""
    asked = {question.type for question in questions}
    tells_all, room = not asked or ANY in asked, MOST_TEXT
    for number in range(count):
        if len(found) == MOST_RECORDS or room < 0:
            found[-1] = found[-1]._replace(text=CUT)
            return _after_records(data, at, count - number)
        name, at = _name(data, at)
        kind, rdclass, ttl, size = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        if at + size > len(data):
            raise IndexError
        told = None
        if tells_all or kind == CNAME or kind in asked:
            told = _told(data, at, size, kind, rdclass & ~_UNIQUE)
            room -= len(told)
        found.append(Record(name, kind, ttl if ttl <= _FINAL_TTL else 0, told))
        at += size
    return at


def _told(data: bytes, at: int, size: int, kind: int, rdclass: int) -> str:
    """Return what a record says."""
    if kind == A and size == 4 and rdclass == CLASS_IN:
        return socket.inet_ntop(socket.AF_INET, data[at : at + 4])
    if kind == AAAA and size == 16 and rdclass == CLASS_IN:
        return socket.inet_ntop(socket.AF_INET6, data[at : at + 16])
    if kind == CNAME:
        return _name(data, at)[0]
    return text.of_rdata(data, at, size, kind, rdclass)


def _edns(data: bytes, at: int, authorities: int, extras: int) -> tuple[int, int] | None:
    """Return the UDP size and the flags of the OPT record behind the authorities, None without one."""
    at = _after_records(data, at, authorities)
    for _ in range(extras):
        kind, size, flags, _ = _RECORD.unpack_from(data, _after_name(data, at))
        if kind == OPT:
            return size, flags
        at = _after_records(data, at, 1)
    return None


def _after_records(data: bytes, at: int, count: int) -> int:
    for _ in range(count):
        at = _after_name(data, at)
        at += _RECORD.size + int(_RECORD.unpack_from(data, at)[3])
        if at > len(data):
            raise IndexError
    return at


def _after_name(data: bytes, at: int) -> int:
    """Return where what follows a name begins, without following its pointers."""
    while size := data[at]:
        if size >= _POINTER:
            return at + 2
        at += 1 + size
    return at + 1


def _name(data: bytes, at: int) -> tuple[str, int]:
    """Return the name at a place, and where what follows it begins.

    A pointer leads before the beginning of what has it (RFC 1035 section 4.1.4), so that no loop can form.
    """
    labels: list[str] = []
    begin, end, length, pointers = at, None, 1, 0
    while size := data[at]:
        if size >= _POINTER:
            end = at + 2 if end is None else end
            target = (size & ~_POINTER) << 8 | data[at + 1]
            if target >= begin:
                raise DecodeError("a name in a DNS message points to what comes after it")
            begin = at = target
            pointers += 1
            if pointers > _MOST_POINTERS:
                raise DecodeError("a name in a DNS message is too long")
            continue
        length += 1 + size
        if size > 63 or length > _LONGEST_NAME:
            raise DecodeError("a name in a DNS message is too long")
        label = data[at + 1 : at + 1 + size]
        labels.append(text.of_label(label))
        at += 1 + size
    return ".".join(labels) or ".", at + 1 if end is None else end
