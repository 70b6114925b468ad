"""The end of an answer of PostgreSQL's of which not all was seen: told by what the server says last."""

from __future__ import annotations

from netlab.protocols import pgmessages as messages
from netlab.protocols.dialog import Side
from netlab.protocols.framing import Framer, Message

_READY = 6  # bytes of ReadyForQuery, which ends all answers
_MOST_KEPT = 1024  # an error says a line or two
_LAST = {b"C", b"E"}  # what comes before that: CommandComplete, ErrorResponse


class Ending:
    """The server's last bytes behind a gap, while the client waits.

    A client that goes on shows that they are the end. That it does not wait, or that more is missed, is for
    others to see.
    """

    __slots__ = ("_at_ns", "tail")

    def __init__(self) -> None:
        self.tail = b""
        self._at_ns = 0

    def said(self, data: bytes, at_ns: int) -> None:
        """Keep the last of what the server says."""
        self.tail, self._at_ns = (self.tail + data[-_MOST_KEPT:])[-_MOST_KEPT:], at_ns

    def missed(self) -> None:
        """Forget what came before a gap."""
        self.tail = b""

    def last(self) -> list[Message]:
        """Return the end of the statement and ReadyForQuery behind it, whole; none if these are not last."""
        framer = messages.framer(Side.SERVER)
        begin = len(self.tail) - _READY
        for place in range(begin - 5, -1, -1):
            size = _size(framer, self.tail, place)
            if size and place + size == begin and self.tail[begin : begin + 5] == b"Z\0\0\0\x05":
                return list(framer.feed(self.tail[place:], self._at_ns))
        return []


def _size(framer: Framer, tail: bytes, place: int) -> int:
    if tail[place : place + 1] not in _LAST:
        return 0
    return framer.measure(tail[place : place + framer.header_size])
