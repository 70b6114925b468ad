"""The heads of HTTP/1 messages (RFC 9112 sections 2 to 7): who is asked for what, and how long a body is."""

from __future__ import annotations

import re
from typing import NamedTuple

CHUNKED = -1  # the length of a body that tells its own end
UNTOLD = -2  # and of one of which the head says nothing
_FOREIGN = -3  # a coding without an end of its own

_FIELDS = re.compile(rb"(?:(?:[!-9;-~]++:|[ \t])[^\r\n]*+\r\n)*+")
_VERSIONS = {b"HTTP/1.1": "HTTP/1.1", b"HTTP/1.0": "HTTP/1.0"}
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


def may_begin_answer(data: bytes) -> bool:
    """Return whether *data* can be the beginning of an answer."""
    return b"HTTP/1.".startswith(data[:7])


def request(head: bytes) -> Request | None:
    """Read the head of a request; None: it is none, or its body could end in more than one place."""
    line, _, fields = head.partition(b"\r\n")
    parts = line.split(b" ")
    version = _VERSIONS.get(parts[-1])
    if (
        len(parts) != 3
        or version is None
        or not may_begin_request(line)
        or not _FIELDS.fullmatch(fields[:-2])
    ):
        return None
    named = b"\r\n" + fields.lower()
    length = _length(named)
    where = _target(parts[0], parts[1], named)
    if length == _FOREIGN or length is None or where is None:
        return None
    return Request(parts[0].decode("ascii"), *where, version, 0 if length == UNTOLD else length)


def answer(head: bytes) -> Answer | None:
    """Read the head of an answer; None: it is none, or its body could end in more than one place."""
    line, _, fields = head.partition(b"\r\n")
    code = line[9:12]
    known = line[:8] in _VERSIONS and line[8:9] == b" " and line[12:13] in {b"", b" "}
    if (
        not known
        or len(code) != 3
        or not code.isdigit()
        or code < b"100"
        or not _FIELDS.fullmatch(fields[:-2])
    ):
        return None
    named = b"\r\n" + fields.lower()
    length = _length(named)
    if length is None:
        return None
    upgrade = _values(named, b"\r\nupgrade:") if code == b"101" else ()
    return Answer(
        code.decode("ascii"), UNTOLD if length == _FOREIGN else length, upgrade[0] if upgrade else b""
    )


def chunk_size(line: bytes) -> int | None:
    """Read the line in front of a chunk; None: it is none."""
    digits = line.partition(b";")[0].strip(b" \t")
    return int(digits, 16) if 0 < len(digits) <= 16 and not digits.strip(_HEX) else None


def _target(method: bytes, target: bytes, named: bytes) -> tuple[str | None, bytes] | None:
    """Return the path and the host that are asked for; None: *target* is none (RFC 9112 section 3.2)."""
    hosts = _values(named, b"\r\nhost:")
    host = hosts[0] if hosts else b""
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


def _length(named: bytes) -> int | None:
    """Return how long the body is; None: its fields contradict each other (RFC 9112 section 6.3)."""
    codings = _values(named, b"\r\ntransfer-encoding:")
    if codings:
        return CHUNKED if codings[-1].rpartition(b",")[2].strip() == b"chunked" else _FOREIGN
    lengths = _values(named, b"\r\ncontent-length:")
    if not lengths:
        return UNTOLD
    told = {length.strip() for line in lengths for length in line.split(b",")}
    only = told.pop()
    return int(only) if not told and only.isdigit() and len(only) < 19 else None


def _values(named: bytes, name: bytes) -> list[bytes]:
    """Return what the fields of *name* say; it begins with a line end, and is in lower case like *named*."""
    values = []
    place = named.find(name)
    while place >= 0:
        begin = place + len(name)
        end = named.find(b"\r\n", begin)
        values.append(named[begin:end].strip())
        place = named.find(name, end)
    return values
