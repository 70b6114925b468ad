"""DNS over TCP: messages out of a stream's bytes, each behind its length (RFC 1035 section 4.2.2)."""

from __future__ import annotations

from netlab.errors import DecodeError
from netlab.protocols.dns import message
from netlab.protocols.dns.message import Message

_LENGTH = 2


class Stream:
    """One direction of one connection. Where its framing is lost, it looks for a message again.

    It takes a segment for the beginning of messages only if it is nothing but whole readable messages, alone
    or behind two bytes that came by themselves.
    """

    def __init__(self, *, whole: bool = True) -> None:
        self.unread_bytes = 0  # said, and understood as nothing
        self._is_framed = whole
        self._ahead = b""  # what may be the length of a message that comes by itself
        self._rest = bytearray()
        self._missing = 0  # bytes of the message under way that were not seen

    def said(self, data: bytes) -> list[Message]:
        """Return the messages that are complete with these bytes; those that cannot be read are counted."""
        if not self._is_framed:
            data = self._found_again(data)
            if not self._is_framed:
                return []
        self._rest += data
        return self._complete()

    def _found_again(self, data: bytes) -> bytes:
        """Return what messages begin with; some send, or read, the length of one by itself."""
        for ahead in (self._ahead, b""):
            if _is_whole(ahead + data):
                self._is_framed = True
                self.unread_bytes -= len(ahead)
                return ahead + data
        self._ahead = data if len(data) == _LENGTH else b""
        self.unread_bytes += len(data)
        return data

    def missed(self, size: int | None) -> None:
        """Go on behind *size* bytes that were not seen; None: nobody knows how many."""
        wanted = self._wanted()
        if size is not None and wanted is not None and len(self._rest) + size <= wanted:
            self._rest += bytes(size)
            self._missing += size
            self._complete()
            return
        self.unread_bytes += len(self._rest) - self._missing
        self._rest.clear()
        self._missing, self._is_framed, self._ahead = 0, False, b""

    def _wanted(self) -> int | None:
        """Return how many bytes the message under way has with its length, None if that was not seen."""
        return _LENGTH + int.from_bytes(self._rest[:_LENGTH]) if len(self._rest) >= _LENGTH else None

    def _complete(self) -> list[Message]:
        found = []
        while (wanted := self._wanted()) is not None and len(self._rest) >= wanted:
            said = bytes(self._rest[_LENGTH:wanted])
            del self._rest[:wanted]
            try:
                found += [] if self._missing else [message.read(said)]
            except DecodeError:
                self.unread_bytes += wanted
            if self._missing:
                self.unread_bytes += wanted - self._missing
            self._missing = 0
        return found


def _is_whole(data: bytes) -> bool:
    """Tell whether *data* is nothing but whole messages that can be read."""
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + _LENGTH])
        body = data[at + _LENGTH : at + _LENGTH + size]
        if len(body) < max(size, 1):
            return False
        try:
            message.read(body)
        except DecodeError:
            return False
        at += _LENGTH + size
    return at > 0
