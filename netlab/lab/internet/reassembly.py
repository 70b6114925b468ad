"""The client's fragments, put together at their target (RFC 791 section 3.2, RFC 8200 section 4.5)."""

from __future__ import annotations

from dataclasses import dataclass, field

from netlab.lab.internet.parcel import Parcel
from netlab.wire import ip

_OFFSET4, _OFFSET6, _MORE6 = 0x1FFF, 0xFFF8, 0x0001
_HEADER6 = 8


@dataclass(slots=True)
class _Waiting:
    """The pieces of one packet by where they belong; `size` is known with the last one."""

    pieces: dict[int, bytes] = field(default_factory=dict)
    size: int | None = None

    def whole(self) -> bytes | None:
        joined = b""
        while (piece := self.pieces.get(len(joined))) is not None and piece:
            joined += piece
        return joined if len(joined) == self.size else None


class Reassembly:
    """The packets of which a host has pieces. They wait for ever: nobody simulates that long."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, _Waiting] = {}

    def join(self, parcel: Parcel) -> Parcel | None:
        """Return the packet that *parcel* is or completes, None while pieces are missing."""
        if not parcel.is_fragment:
            return parcel
        header = parcel.current()
        key, offset, more, piece = _parts(header, parcel.transport)
        waiting = self._waiting.setdefault(key, _Waiting())
        waiting.pieces[offset] = piece
        if not more:
            waiting.size = offset + len(piece)
        whole = waiting.whole()
        if whole is None:
            return None
        del self._waiting[key]
        if isinstance(header, ip.IPv4):
            return Parcel(header._replace(flags_offset=0), whole)
        return Parcel(header._replace(protocol=parcel.transport[0]), whole)


def _parts(header: ip.Header, transport: bytes) -> tuple[bytes, int, bool, bytes]:
    """Return what tells the packet, where the piece belongs, whether more follows it, and the piece."""
    ends = header.source + header.destination
    if isinstance(header, ip.IPv4):
        key = ends + bytes([header.protocol]) + header.identification.to_bytes(2, "big")
        offset = (header.flags_offset & _OFFSET4) * 8
        return key, offset, bool(header.flags_offset & ip.MORE_FRAGMENTS), transport
    place = int.from_bytes(transport[2:4], "big")
    return ends + transport[4:8], place & _OFFSET6, bool(place & _MORE6), transport[_HEADER6:]
