"""The packets of a flow from its first one: they differ in TTL and mark, and in what makes up for these."""

from __future__ import annotations

import struct

from netlab.path.probes import Flow
from netlab.wire import ip

_WORD = struct.Struct("!H")
_TTL_AT = {4: 8, 6: 7}
_IDENTIFICATION_AT, _CHECKSUM_AT = 4, 10  # of an IPv4 header


class Mould:
    """Makes what `netlab.path.probes.Flow.packet` makes, in a tenth of the time.

    In one's complement a word that makes up for others goes down by what these go up (RFC 1624).
    """

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._first = first = flow.packet(1, 1)
        self._ttl_at = _TTL_AT[flow.family]
        size = ip.SIZE[flow.family]
        self._marks_at = [size + place for place in flow.marks_at]
        self._makes_up_at = size + flow.makes_up_at
        self._header, self._transport = 0, 0
        if self._marks_at:
            self._transport = _WORD.unpack_from(first, self._makes_up_at)[0] + len(self._marks_at)
        self._has_identification = flow.family == 4
        if self._has_identification:
            self._header = _WORD.unpack_from(first, _CHECKSUM_AT)[0] + 1 + (1 << 8)

    def packet(self, ttl: int, mark: int) -> bytes:
        """Return the whole IP packet of the probe with *mark*."""
        if not self._marks_at:
            return self._flow.packet(ttl, mark)
        packet = bytearray(self._first)
        packet[self._ttl_at] = ttl
        for place in self._marks_at:
            _WORD.pack_into(packet, place, mark)
        made_up = (self._transport - len(self._marks_at) * mark) % 0xFFFF
        _WORD.pack_into(packet, self._makes_up_at, made_up)
        if self._has_identification:
            _WORD.pack_into(packet, _IDENTIFICATION_AT, mark)
            _WORD.pack_into(packet, _CHECKSUM_AT, (self._header - mark - (ttl << 8)) % 0xFFFF)
        return bytes(packet)
