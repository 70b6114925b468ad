"""A side's bytes cut into messages that say their own length, wherever segments end; bodies kept in part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(slots=True)
class Message:
    """One whole message. Its body is what of it was seen and kept."""

    header: bytes
    begun_ns: int
    ended_ns: int = 0
    size: int = 0  # bytes, with the header
    body: bytes = b""
    is_cut: bool = False  # the body goes on where it is not kept or was not seen


class LostError(Exception):
    """No message begins here: nobody knows where the next one does."""


@dataclass(slots=True)
class Framer:
    """Cuts one side into messages. Keeps no more than one header and what *keep* allows of one body."""

    header_size: int
    measure: Callable[[bytes], int]  # bytes of the whole message by its header; 0: no header this
    keep: Callable[[bytes], int]  # bytes to keep of the body, by the header
    _head: bytes = b""
    _body: bytearray | None = None  # None: between messages
    _left: int = 0  # bytes of the body to come
    _room: int = 0  # bytes of the body to keep still
    _begun_ns: int = 0
    _missed: bool = False

    def feed(self, data: bytes, at_ns: int) -> Iterator[Message]:
        """Yield the messages that *data* complete.

        Raises
        ------
        LostError
            If a header is none. What came before it has been yielded.

        """
        place = 0
        while place < len(data):
            if self._body is None:
                if not self._head:
                    self._begun_ns = at_ns
                taken = data[place : place + self.header_size - len(self._head)]
                self._head += taken
                place += len(taken)
                if len(self._head) < self.header_size:
                    return
                self._begin()
            else:
                taken = data[place : place + self._left]
                self._take(taken)
                place += len(taken)
            if self._left == 0:
                yield self._finish(at_ns)

    def skip(self, size: int | None, at_ns: int) -> Message | None:
        """Go on behind *size* bytes that were not seen; return the message that they end.

        Raises
        ------
        LostError
            If they may hold the beginning of another message.

        """
        if size is None or self._body is None or size > self._left:
            raise LostError
        self._left -= size
        self._room = 0
        self._missed = True
        return self._finish(at_ns) if self._left == 0 else None

    def _begin(self) -> None:
        size = self.measure(self._head)
        if size < self.header_size:
            self._head = b""
            raise LostError
        self._body, self._left = bytearray(), size - self.header_size
        self._room = min(self.keep(self._head), self._left)

    def _take(self, taken: bytes) -> None:
        self._left -= len(taken)
        if self._body is not None and self._room:
            self._body += taken[: self._room]
            self._room = max(self._room - len(taken), 0)

    def _finish(self, at_ns: int) -> Message:
        body = bytes(self._body or b"")
        size = self.measure(self._head)
        is_cut = self._missed or len(body) < size - self.header_size
        message = Message(self._head, self._begun_ns, at_ns, size, body, is_cut)
        self._head, self._body, self._left, self._missed = b"", None, 0, False
        return message
