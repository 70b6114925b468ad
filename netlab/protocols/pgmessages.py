"""PostgreSQL's messages (documentation, message formats): which there are, their length, what is read."""

from __future__ import annotations

import string
from collections.abc import Iterator

from netlab.protocols import sql
from netlab.protocols.dialog import Side
from netlab.protocols.framing import Framer, Message
from netlab.protocols.sqlstates import condition

LONGEST_SQL = 4096  # bytes that are read of a statement
LONGEST_STARTUP = 10_000  # as the server allows
TLS, GSS, CANCEL = (
    80877103,
    80877104,
    80877102,
)  # what a message without a type asks for, instead of a version

_OF_NAMES = string.ascii_letters.encode() + b"0123456789_$." + bytes(range(0x80, 0x100))
UNASKED = {b"A", b"N", b"S"}  # a server says that at any time: notification, notice, parameter status
KINDS = {Side.CLIENT: b"BCDEFHPQSXcdfp", Side.SERVER: b"123ACDEGHIKNRSTVWZcdnstv"}
_EMPTY = {Side.CLIENT: b"HSXc", Side.SERVER: b"123Icns"}  # of these the length is laid down
_KEPT = {  # bytes of the body; of the others none, so neither passwords nor rows
    Side.CLIENT: {b"Q": LONGEST_SQL, b"P": LONGEST_SQL, b"B": 160, b"C": 96, b"E": 96},
    Side.SERVER: {b"C": 64, b"E": 256, b"Z": 1, b"v": 4},
}


def framer(side: Side) -> Framer:
    """Return what cuts the messages with a type of *side*."""

    def measure(header: bytes) -> int:
        kind, length = header[:1], int.from_bytes(header[1:5], "big")
        if kind not in KINDS[side] or not 4 <= length < 1 << 30:
            return 0
        if (kind in _EMPTY[side] and length != 4) or (side is Side.SERVER and kind == b"Z" and length != 5):
            return 0
        return 1 + length

    return Framer(5, measure, lambda header: _KEPT[side].get(header[:1], 0))


def are_whole(data: bytes) -> bool:
    """Return whether *data* of a client are whole messages up to one that the server answers at once."""
    place, last = 0, b""
    while len(data) - place >= 5:
        last = data[place : place + 1]
        if last not in KINDS[Side.CLIENT]:
            return False
        place += 1 + max(4, int.from_bytes(data[place + 1 : place + 5], "big"))
    return place == len(data) and last in {b"Q", b"F", b"S"}


def database(startup: bytes) -> str | None:
    """Return the database that a startup message names, which is the user's name where it names none."""
    words = startup[8:].split(b"\0")
    named = dict(zip(words[::2], words[1::2], strict=False))
    return _text(named.get(b"database") or named.get(b"user") or b"") or None


def query(body: bytes) -> Iterator[sql.Statement]:
    """Yield the statements of a Query's body, or what there is of it: up to its last whole word."""
    said, is_whole, _ = body.partition(b"\0")
    return sql.statements(_text(said if is_whole else said.rstrip(_OF_NAMES)))


def is_single(body: bytes) -> bool:
    """Return whether a Query's body surely is one statement."""
    said, is_whole, _ = body.partition(b"\0")
    return bool(is_whole) and b";" not in said.rstrip(b"; \t\r\n")


def parsed(body: bytes) -> tuple[bytes, sql.Statement] | None:
    """Return the name and the statement of a Parse's body; None: too little was seen."""
    name, end, rest = body.partition(b"\0")
    return (name, next(query(rest), sql.Statement())) if end else None


def bound(body: bytes) -> tuple[bytes, bytes] | None:
    """Return the names of portal and statement of a Bind's body; None: too little was seen."""
    names = body.split(b"\0", 2)
    return (names[0], names[1]) if len(names) > 2 else None


def executed(body: bytes) -> bytes | None:
    """Return the name of the portal of an Execute's body; None: too little was seen."""
    name, end, _ = body.partition(b"\0")
    return name if end else None


def closed(body: bytes) -> bytes | None:
    """Return the name of what a Close's body closes; None: too little was seen, or it is not known what."""
    name, end, _ = body[1:].partition(b"\0")
    return name if end and body[:1] in {b"S", b"P"} else None


def failure(message: Message) -> tuple[str | None, str]:
    """Return the code of an ErrorResponse, of its fields the one that begins with C, and the code's name."""
    for line in message.body.split(b"\0"):
        if line[:1] == b"C" and len(line) == 6 and line.isalnum():
            return _text(line[1:]), condition(_text(line[1:]))
    return None, "unknown"


def completed(message: Message) -> tuple[str | None, int | None]:
    """Return the command and the number of rows of a CommandComplete ("INSERT 0 5", "BEGIN")."""
    words = _text(message.body.partition(b"\0")[0]).split()
    rows = int(words[-1]) if len(words) > 1 and words[-1].isdecimal() else None
    return (words[0] if words else None), rows


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
