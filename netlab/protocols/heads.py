"""The heads of HTTP/1 messages (RFC 9112 sections 2 to 7): who is asked for what, and how long a body is."""

from __future__ import annotations

import re
from typing import NamedTuple, TypeAlias

CHUNKED = -1  # the length of a body that tells its own end
UNTOLD = -2  # and of one of which the head says nothing
_FOREIGN = -3  # a coding without an end of its own

_FIELDS = rb"(?:(?:[!-9;-~]++:|[ \t])[^\r\n]*+\r\n)*+\r\n"
_LINE = rb"([A-Z][A-Z-]{0,23}+) ([^ \r\n]*+) HTTP/1\.([01])\r"
_REQUEST = re.compile(_LINE + rb"\n" + _FIELDS)
_BEGINNING = re.compile(_LINE + rb"?\n")
_BARE = re.compile(rb"(?<!\r)\n")  # a line's end all the same (RFC 9112 section 2.2)
_FOLD = re.compile(rb"\r\n[ \t]+")  # a value goes on in the next line (RFC 9112 section 5.2)
_TELLING = re.compile(rb"\r\n(host|content-length|transfer-encoding|upgrade|expect):([^\r]*+)")  # lower case
_ANSWER = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: [^\r\n]*+)?\r\n" + _FIELDS)
_Fields: TypeAlias = dict[bytes, list[bytes]]
_VERSIONS = {b"1": "HTTP/1.1", b"0": "HTTP/1.0"}
_METHODS = {b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH", b"PRI"}
_LONGEST_METHOD = 24
_HEX = b"0123456789abcdefABCDEF"


class Request(NamedTuple):
    """What a request's head says."""

    method: str
    path: str | None  # with its query; None: the request is for a tunnel
    host: bytes
    version: str
    length: int
    waits: bool  # for leave to send its body


class Answer(NamedTuple):
    """What an answer's head says."""

    status: str
    length: int
    upgrade: bytes


def may_begin_request(data: bytes, *, sure: bool = False) -> bool:
    """Return whether *data* can be the beginning of a request; *sure*: of one by its method's name.

    The rest of a request that was missed in part looks like one, too: `ET / HTTP/1.1`.
    """
    method, blank, _ = data[: _LONGEST_METHOD + 1].partition(b" ")
    if sure:
        return method in _METHODS if blank else any(known.startswith(method) for known in _METHODS)
    bare = method.replace(b"-", b"")
    return (bare.isalpha() and bare.isupper() and len(method) <= _LONGEST_METHOD) or data == b"\r"


def may_become_request(data: bytes) -> bool:
    """Return whether *data* can be a part of a request's first line."""
    return b"\n" not in data and may_begin_request(data)


def begins_request(data: bytes) -> bool:
    """Return whether *data* begin with the whole first line of a request."""
    return _BEGINNING.match(data) is not None


def may_begin_answer(data: bytes) -> bool:
    """Return whether *data* can be the beginning of an answer."""
    return b"HTTP/1.".startswith(data[:7])


def request(head: bytes) -> Request | None:
    """Read the head of a request; None: it is none, or its body could end in more than one place."""
    found = _REQUEST.fullmatch(head)
    if not found:
        return None
    method, target, minor = found.groups()
    fields = _telling(head)
    length = _length(fields)
    where = _target(method, target, fields)
    if length == _FOREIGN or length is None or where is None:
        return None
    length = 0 if length == UNTOLD else length
    waits = length != 0 and b"100-continue" in fields.get(b"expect", ())
    return Request(method.decode("ascii"), *where, _VERSIONS[minor], length, waits)


def answer(head: bytes) -> Answer | None:
    """Read the head of an answer; None: it is none, or its body could end in more than one place."""
    found = _ANSWER.fullmatch(head)
    if not found:
        return None
    fields = _telling(head)
    length = _length(fields)
    if length is None:
        return None
    upgrade = fields.get(b"upgrade", [b""])[0] if found[1] == b"101" else b""
    return Answer(found[1].decode("ascii"), UNTOLD if length == _FOREIGN else length, upgrade)


def loose(data: bytes, place: int) -> bytes:
    """Return the head at *place*, of which some lines end with LF alone; nothing if it is not whole."""
    ends = (data.find(end, place) + len(end) for end in (b"\n\n", b"\n\r\n"))
    return data[place : min((end for end in ends if end > place + 2), default=place)]


def strict(head: bytes) -> bytes:
    """Return a head whose lines all end with CRLF."""
    return _BARE.sub(b"\r\n", head)


def told(part: bytes) -> bytes:
    """Return a head of the lines that are whole in the first *part* of one; nothing if none is."""
    lines, end, _ = part.rpartition(b"\n")
    return strict(lines.removesuffix(b"\r") + b"\r\n\r\n") if end else b""


def chunk_size(line: bytes) -> int | None:
    """Read the line in front of a chunk; None: it is none."""
    digits = line.partition(b";")[0].strip(b" \t")
    return int(digits, 16) if 0 < len(digits) <= 16 and not digits.strip(_HEX) else None


def _target(method: bytes, target: bytes, fields: _Fields) -> tuple[str | None, bytes] | None:
    """Return the path and the host that are asked for; None: *target* is none (RFC 9112 section 3.2)."""
    host = fields[b"host"][0] if b"host" in fields else b""
    if method == b"CONNECT":
        return None, target.lower()
    if target[:1] == b"/" or target == b"*":
        return target.decode("latin-1"), host
    _, told, rest = target.partition(b"://")
    if not told:
        return None
    authority = rest.partition(b"/")[0].partition(b"?")[0]
    path = rest[len(authority) :]
    return (path if path[:1] == b"/" else b"/" + path).decode("latin-1"), authority.lower()


def _length(fields: _Fields) -> int | None:
    """Return how long the body is; None: its fields contradict each other (RFC 9112 section 6.3)."""
    if not fields:
        return UNTOLD
    codings = b",".join(fields.get(b"transfer-encoding", ())).rstrip(b", \t")  # items may be empty
    last = codings.rpartition(b",")[2].strip()
    if last not in {b"", b"identity"}:  # which was none (RFC 2616 section 3.6)
        return CHUNKED if last == b"chunked" else _FOREIGN
    lengths = fields.get(b"content-length")
    if not lengths:
        return UNTOLD
    only = lengths[0]
    if len(lengths) > 1 or not only.isdigit():
        told = {length.strip() for line in lengths for length in line.split(b",")}
        only = told.pop()
        if told:
            return None
    return int(only) if only.isdigit() and len(only) < 19 else None


def _telling(head: bytes) -> _Fields:
    """Return what the fields say that matter here, by their names in lower case."""
    fields: _Fields = {}
    if b"\r\n " in head or b"\r\n\t" in head:
        head = _FOLD.sub(b" ", head)
    for name, value in _TELLING.findall(head.lower()):
        fields.setdefault(name, []).append(value.strip())
    return fields
