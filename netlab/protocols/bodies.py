"""Where a side is in its HTTP/1 messages (RFC 9112 sections 6 and 7): how bodies are counted, and end."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from enum import Enum, auto

from netlab.protocols import heads
from netlab.protocols.dialog import Side

_LONGEST_LINE = 4096  # of a chunk's size with its extensions, of a trailer


class At(Enum):
    """Where in a message a side is."""

    LOST = auto()  # nobody knows: a head that a packet begins with is waited for
    HEAD = auto()
    BODY = auto()  # `left` bytes of it are still to come
    SIZE = auto()  # of a chunk
    CHUNK = auto()  # `left` bytes of it and its line end, like that of its size, are still to come
    TRAILERS = auto()
    REST = auto()  # a body that ends with the connection
    OVER = auto()  # behind the last byte of a message


LOST, HEAD, BODY, SIZE, CHUNK, TRAILERS, REST, OVER = At  # a member is found more slowly by way of its class


@dataclass(slots=True)
class Voice:
    """What one side is saying."""

    side: Side
    at: At
    held: bytes = b""  # of a head or line that is not whole yet
    began_ns: int = 0  # first byte of the message
    said_ns: int = 0  # last byte so far
    size: int = 0  # of the message so far
    left: int = 0
    unsized: bool = False  # nobody knows how much of the message was missed

    def expect(self, length: int) -> None:
        """Expect a body of so many bytes, or of a length that `heads` names."""
        if length > 0:
            self.at, self.left = BODY, length
        elif length == heads.CHUNKED:
            self.at = SIZE
        elif length == heads.UNTOLD:
            self.at = REST
        else:
            self.at = OVER

    def count(self, available: int) -> int:
        """Pass over what is left of a body or chunk and return how much that was."""
        count = min(self.left, available)
        self.left -= count
        self.size += count
        if self.left == 0:
            self.at = SIZE if self.at is CHUNK else OVER
        return count

    def spare(self) -> int:
        """Return how many of the next bytes are only counted."""
        if (self.at is BODY or self.at is CHUNK) and not self.held:
            return self.left
        return sys.maxsize if self.at is REST else 0

    def lose(self) -> int:
        """Know no longer where in its messages the side is; return how much was held."""
        size = len(self.held)
        self.held, self.at, self.unsized = b"", LOST, False
        return size

    def line(self, data: bytes, place: int) -> int | None:
        """Read a chunk's size or a trailer at *place* and return the place behind it; None: it is none."""
        end = data.find(b"\n", place)  # alone, or behind CR (RFC 9112 section 2.2)
        if (len(data) if end < 0 else end) - place > _LONGEST_LINE:
            return None
        if end < 0:
            self.held = data[place:]
            return len(data)
        line = data[place:end].removesuffix(b"\r")
        behind = end + 1
        if self.at is SIZE:
            size = heads.chunk_size(line)
            if size is None:
                return None
            self.at, self.left = (CHUNK, size + behind - place - len(line)) if size else (TRAILERS, 0)
        elif not line:
            self.at = OVER
        self.size += behind - place
        return behind
