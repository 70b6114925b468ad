"""The packets of a flow from its first one: they differ in TTL and mark, and in what makes up for these."""

from __future__ import annotations

import struct

from netlab.path.probes import Flow
from netlab.wire import ip

_WORD = struct.Struct("!H")
_TTL_AT = {4: 8, 6: 7}
_IDENTIFICATION_AT, _CHECKSUM_AT = 4, 10  # of an IPv4 header


class Mould:
    """Makes what `netlab.path.probes.Flow.packet` makes, in a twentieth of the time.

    A packet is one number, to which each field adds its own in its place. In one's complement a word that
    makes up for others goes down by what these go up (RFC 1624).
    """

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._is_made = bool(flow.marks_at)
        if not self._is_made:
            return
        first = bytearray(flow.packet(1, 1))
        self._size = len(first)
        header = ip.SIZE[flow.family]
        ttl_at, makes_up_at = _TTL_AT[flow.family], header + flow.makes_up_at
        marks_at = [header + place for place in flow.marks_at]
        self._marks = len(marks_at)
        self._ttl_at, self._mark_at = ttl_at, marks_at[0]
        self._transport = _WORD.unpack_from(first, makes_up_at)[0] + self._marks
        self._header, self._header_unit = 0, 0
        if flow.family == 4:
            self._header = _WORD.unpack_from(first, _CHECKSUM_AT)[0] + 1 + (1 << 8)
            self._header_unit = self._unit(_CHECKSUM_AT)
            marks_at.append(_IDENTIFICATION_AT)
            first[_CHECKSUM_AT : _CHECKSUM_AT + 2] = bytes(2)
        for place in (*marks_at, makes_up_at):
            first[place : place + 2] = bytes(2)
        first[ttl_at] = 0
        self._blank = int.from_bytes(first, "big")
        self._ttl_unit = 1 << 8 * (self._size - ttl_at - 1)
        self._mark_unit = sum(map(self._unit, marks_at))
        self._transport_unit = self._unit(makes_up_at)

    def packet(self, ttl: int, mark: int) -> bytes:
        """Return the whole IP packet of the probe with *mark*."""
        if not self._is_made:
            return self._flow.packet(ttl, mark)
        number: int = (
            self._blank
            + ttl * self._ttl_unit
            + mark * self._mark_unit
            + (self._transport - self._marks * mark) % 0xFFFF * self._transport_unit
            + (self._header - mark - (ttl << 8)) % 0xFFFF * self._header_unit
        )
        return number.to_bytes(self._size, "big")

    def found(self, quote: bytes) -> tuple[int, int] | None:
        """Return TTL and mark of the packet at the start of *quote*, if it is as it left but for the TTL.

        None does not mean that it is of another flow: a NAT or a router may have rewritten it.
        """
        if not self._is_made or len(quote) < self._mark_at + _WORD.size:
            return None
        ttl, mark = quote[self._ttl_at], _WORD.unpack_from(quote, self._mark_at)[0]
        return (ttl, mark) if self.packet(ttl, mark).startswith(quote[: self._size]) else None

    def _unit(self, place: int) -> int:
        """Return what a word of 1 at *place* adds to the packet."""
        return 1 << 8 * (self._size - place - 2)
