"""What a probe looks like on the wire, and how an answer tells which probe it is for.

All probes of a flow share what routers balance load by: addresses, protocol, ports, flow label. The probe's
number, its mark, is where none of them look and where it survives in the eight transport bytes that an
ICMP error must quote (RFC 792): the UDP checksum (Paris traceroute, Augustin et al., IMC 2006), the low half
of the TCP sequence number, and the IPv4 identification (Dublin traceroute), which also survives a NAT that
rewrites checksums and does not restore them in the quote. DF is off: routers must then keep the
identification (RFC 6864 section 4.1 lets them ignore it otherwise).
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from enum import StrEnum

from netlab.path.state import RST, SYN_ACK
from netlab.wire import icmp, ip, tcp, udp

MARKS = 0xFFFE  # 1 to 0xFFFE: a UDP checksum of 0 means none, and 0xFFFF is what a computed 0 is sent as

_MSS = b"\x02\x04\x05\xb4"  # 1460; firewalls distrust a SYN without options
_WINDOW = 64240

# Only what acknowledges a SYN tells which one it answers. A bare ACK is a challenge (RFC 9293 section
# 3.10.7.4): it acknowledges another SYN than the one it answers.
_REPLIES = {tcp.Flags.SYN | tcp.Flags.ACK: SYN_ACK, tcp.Flags.RST | tcp.Flags.ACK: RST}


class Protocol(StrEnum):
    """The kinds of probe."""

    UDP = "udp"
    TCP = "tcp"


NUMBER = {Protocol.UDP: ip.UDP, Protocol.TCP: ip.TCP}


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """What all probes of a trace have in common; `salt` (16 bits) tells this trace's sequence numbers."""

    protocol: Protocol
    source: bytes
    target: bytes
    source_port: int
    port: int
    salt: int

    @property
    def family(self) -> int:
        """4 or 6."""
        return 4 if len(self.target) == 4 else 6

    @property
    def label(self) -> int:
        """The IPv6 flow label: the same for the same five-tuple, spread over 20 bits (RFC 6437)."""
        identity = self.source + self.target + bytes(f"{self.source_port} {self.port}", "ascii")
        return zlib.crc32(identity) & 0xFFFFF or 1

    def packet(self, ttl: int, mark: int) -> bytes:
        """Return the whole IP packet of the probe with *mark*."""
        segment = self._syn(mark) if self.protocol is Protocol.TCP else self._datagram(mark)
        number = NUMBER[self.protocol]
        header: ip.Header
        if self.family == 4:
            header = ip.IPv4(
                source=self.source, destination=self.target, protocol=number, ttl=ttl, identification=mark
            )
        else:
            header = ip.IPv6(
                source=self.source, destination=self.target, protocol=number, ttl=ttl, flow_label=self.label
            )
        return header.encode(segment)

    def _datagram(self, mark: int) -> bytes:
        return udp.encode_marked(self.source, self.target, (self.source_port, self.port), mark)

    def _syn(self, mark: int) -> bytes:
        return tcp.TCP(
            source_port=self.source_port,
            destination_port=self.port,
            sequence=self.salt << 16 | mark,
            acknowledgment=0,
            flags=tcp.Flags.SYN,
            window=_WINDOW,
            options=_MSS,
        ).encode(self.source, self.target)

    def quoted(self, quote: icmp.Quote) -> tuple[int, ...]:
        """Return the marks that *quote* may carry, the most trustworthy first; none if of another flow.

        The quoted source address is not compared: a NAT on the way may have left its own in the quote.
        """
        if (quote.header.protocol, quote.header.destination) != (NUMBER[self.protocol], self.target):
            return ()
        start = tcp.decode_start(quote.transport)  # UDP has its ports at the same place
        if (start.source_port, start.destination_port) != (self.source_port, self.port):
            return ()
        identification = (quote.header.identification,) if isinstance(quote.header, ip.IPv4) else ()
        if self.protocol is Protocol.TCP:
            return (*self._numbered(start.sequence), *identification)
        header, payload = udp.decode(quote.transport)
        return (*udp.mark(payload), *identification, header.checksum)

    def _numbered(self, sequence: int) -> tuple[int, ...]:
        return (sequence & 0xFFFF,) if sequence >> 16 == self.salt else ()

    def segment(self, data: bytes) -> tuple[str, tuple[int, ...]] | None:
        """Return what a TCP segment from the target says, and the mark of the SYN that it acknowledges."""
        header, _ = tcp.decode(data)
        if (header.source_port, header.destination_port) != (self.port, self.source_port):
            return None
        reply = _REPLIES.get(header.flags & (tcp.Flags.SYN | tcp.Flags.ACK | tcp.Flags.RST))
        marks = self._numbered((header.acknowledgment - 1) & 0xFFFFFFFF)
        return (reply, marks) if reply and marks else None
