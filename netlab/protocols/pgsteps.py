"""What waits for its answer on one PostgreSQL connection: messages, and groups of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from netlab.protocols import sql
from netlab.protocols.dialog import Exchange
from netlab.protocols.framing import Message
from netlab.protocols.pgnames import Naming

_UNKNOWN = sql.Statement()
STARTUP = b"startup"  # a step's kind; the others are the messages' own
SIMPLE = {b"Q", b"F"}
_COPY = {b"G", b"H", b"W", b"d", b"c"}
ENDS = {  # what ends the answer to each
    b"P": {b"1"},
    b"B": {b"2"},
    b"C": {b"3"},
    b"D": {b"T", b"n"},
    b"E": {b"C", b"I", b"s"},
    b"Q": {b"Z"},
    b"F": {b"Z"},
    b"S": {b"Z"},
    STARTUP: {b"Z"},
}
MAY_PRECEDE = {  # and what comes before that
    b"D": {b"t"},
    b"E": {b"D", *_COPY},
    b"Q": {b"T", b"D", b"C", b"I", *_COPY},
    b"F": {b"V"},
    STARTUP: {b"R", b"K", b"v"},
}


@dataclass(slots=True)
class Step:
    """A message of the client that the server answers, and the exchange that it belongs to."""

    kind: bytes
    exchange: Exchange
    naming: Naming = field(default_factory=Naming)
    is_executed: bool = False  # by the same exchange
    is_single: bool = True  # and not a query of several statements, or what may be one
    is_copied_in: bool = False  # the client says data now
    is_completed: bool = False  # what was asked first of the statements of a query; others may follow


@dataclass(slots=True)
class Group:
    """Messages of the extended protocol up to the Execute, Flush or Sync that ends them."""

    begun_ns: int
    size: int = 0
    statement: sql.Statement = _UNKNOWN
    said: list[tuple[bytes, Naming]] = field(default_factory=list)  # messages by kind and what they name
    answers: list[Message] = field(default_factory=list)  # which came before it was said in whole
