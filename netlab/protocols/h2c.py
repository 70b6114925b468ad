"""HTTP/1 that goes on as HTTP/2, where both sides agree on it (`Upgrade: h2c`, RFC 7540 section 3.2)."""

from __future__ import annotations

from netlab.protocols import masking
from netlab.protocols.dialog import Exchange, Side
from netlab.protocols.http1 import Http1
from netlab.protocols.http2 import Http2
from netlab.protocols.masking import Masking


class Upgradable:
    """Reads a conversation in HTTP/1, and in HTTP/2 from the answer on that changes to it.

    The request that asked for the change is one in HTTP/1, answered with 101, and the first stream of HTTP/2,
    answered with what was asked for.
    """

    __slots__ = ("_first", "_masks", "_second")

    def __init__(self, *, whole: bool = True, masks: Masking = masking.STANDARD) -> None:
        self._masks = masks
        self._first = Http1(whole=whole, masks=masks)
        self._second: Http2 | None = None

    @property
    def unread_bytes(self) -> int:
        """Bytes that were understood as nothing."""
        return self._first.unread_bytes + (self._second.unread_bytes if self._second else 0)

    @property
    def unknown_fields(self) -> int:
        """Header fields of HTTP/2 that name others which were not seen."""
        return self._second.unknown_fields if self._second else 0

    @property
    def given_up(self) -> int:
        """Streams of HTTP/2 that made room for others."""
        return self._second.given_up if self._second else 0

    @property
    def upgraded(self) -> str | None:
        """What is spoken from now on, if it is not read."""
        return None if self._second else self._first.upgraded

    @property
    def left(self) -> int:
        """Bytes of the last data that are in what is not read."""
        return self._first.left

    def said(self, side: Side, data: bytes, at_ns: int) -> list[Exchange]:
        """Read the next bytes of *side*."""
        if self._second:
            return self._second.said(side, data, at_ns)
        over = self._first.said(side, data, at_ns)
        if self._first.upgraded == "h2c" and over and over[-1].status == "101":
            self._second = Http2.upgraded_by(over[-1], self._masks)
            over += self._second.said(side, data[len(data) - self._first.left :], at_ns)
        return over

    def missed(self, side: Side, size: int | None, at_ns: int) -> list[Exchange]:
        """Go on behind *size* bytes of *side* that were not seen; None: nobody knows how many."""
        return (self._second or self._first).missed(side, size, at_ns)

    def spare(self, side: Side) -> int:
        """Return how many of the next bytes of *side* are only counted: those of a body in HTTP/1."""
        return 0 if self._second else self._first.spare(side)

    def ended(self, at_ns: int) -> list[Exchange]:
        """Take note that the connection is closed."""
        return (self._second or self._first).ended(at_ns)

    def pending(self) -> list[Exchange]:
        """Return what is not over."""
        return (self._second or self._first).pending()
