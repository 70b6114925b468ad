"""The kinds of probe: UDP datagrams, TCP SYNs, ICMP echo requests.

Where the mark is: in UDP the checksum, for which the payload makes up (Paris traceroute, Augustin et al.,
IMC 2006), and the start of the payload; in TCP the low half of the sequence number; in an echo request the
sequence number, for which the payload makes up so that the checksum stays. All carry it as IPv4's
identification, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from netlab.path import probes
from netlab.path.probes import Flow, identification
from netlab.path.state import CHALLENGE, ECHO_REPLY, RST, SYN_ACK, UDP_REPLY
from netlab.wire import icmp, ip, tcp, udp

_MSS = b"\x02\x04\x05\xb4"  # 1460; firewalls distrust a SYN without options
_WINDOW = 64240

# Only what acknowledges a SYN tells which one it answers; some firewalls reset without doing so.
_REPLIES = {
    tcp.Flags.SYN | tcp.Flags.ACK: SYN_ACK,
    tcp.Flags.RST | tcp.Flags.ACK: RST,
    tcp.Flags.ACK: CHALLENGE,
}
_CONTROL = tcp.Flags.SYN | tcp.Flags.ACK | tcp.Flags.RST


@dataclass(frozen=True, slots=True, kw_only=True)
class PortFlow(Flow):
    """A flow that is told by its ports."""

    source_port: int
    port: int

    @property
    def key(self) -> bytes:
        """The ports."""
        return self.source_port.to_bytes(2, "big") + self.port.to_bytes(2, "big")

    @property
    def back(self) -> bytes:
        """The ports, the other way round."""
        return self.key[2:] + self.key[:2]

    @staticmethod
    def back_in(data: bytes) -> bytes:
        """Return an answer's ports."""
        return data[:4]

    @property
    def ports(self) -> tuple[int, int]:
        """Source and destination port."""
        return self.source_port, self.port


@dataclass(frozen=True, slots=True, kw_only=True)
class UdpFlow(PortFlow):
    """Datagrams."""

    numbers: ClassVar = {4: ip.UDP, 6: ip.UDP}
    marks_at: ClassVar = (6, udp.HEADER)  # the checksum, and the start of the payload
    makes_up_at: ClassVar = udp.HEADER + 2
    refused_by_error: ClassVar = True

    @property
    def hidden(self) -> bytes:
        """The end of the payload."""
        return self.trailer

    @staticmethod
    def hidden_in(transport: bytes) -> bytes:
        """Return the end of a quoted payload."""
        return transport[udp.HEADER + udp.MARKED :][: probes.TRAILER]

    def _transport(self, mark: int, padding_bytes: int) -> bytes:
        ports = self.source_port, self.port
        rest = self.trailer + bytes(padding_bytes)
        return udp.encode_marked(self.source, self.target, ports, mark, rest)

    def claims(self, quote: icmp.Quote) -> tuple[int, ...]:
        """Return what the payload, the identification and the checksum show."""
        header, payload = udp.decode(quote.transport)
        if not self._is_own(payload):
            return ()
        return (*udp.mark(payload), *identification(quote), header.checksum)

    def _is_own(self, payload: bytes) -> bool:
        return self.trailer.startswith(probes.unpadded(payload[udp.MARKED :][: probes.TRAILER]))

    def answer(self, data: bytes) -> tuple[str, tuple[int, ...]] | None:
        """Return what a datagram says: its payload may begin as the probe's did."""
        # Echo servers send the whole probe back, DNS servers its first two bytes, the query's id.
        _, payload = udp.decode(data)
        return UDP_REPLY, udp.mark(payload)


@dataclass(frozen=True, slots=True, kw_only=True)
class SynFlow(PortFlow):
    """TCP SYNs, which the target answers and the kernel then resets: nobody listens on the source port."""

    numbers: ClassVar = {4: ip.TCP, 6: ip.TCP}
    marks_at: ClassVar = (6,)
    makes_up_at: ClassVar = 16  # the checksum

    @property
    def hidden(self) -> bytes:
        """The high half of the sequence numbers: whose, and of which flow."""
        return ((self.salt + self.number) & 0xFFFF).to_bytes(2, "big")

    @staticmethod
    def hidden_in(transport: bytes) -> bytes:
        """Return the high half of a quoted sequence number."""
        return transport[4:6]

    def _transport(self, mark: int, padding_bytes: int) -> bytes:
        return tcp.TCP(
            source_port=self.source_port,
            destination_port=self.port,
            sequence=int.from_bytes(self.hidden, "big") << 16 | mark,
            acknowledgment=0,
            flags=tcp.Flags.SYN,
            window=_WINDOW,
            options=_MSS,
        ).encode(self.source, self.target, bytes(padding_bytes))

    def claims(self, quote: icmp.Quote) -> tuple[int, ...]:
        """Return what the sequence number and the identification show."""
        return (*self._numbered(tcp.decode_start(quote.transport).sequence), *identification(quote))

    def _numbered(self, sequence: int) -> tuple[int, ...]:
        return (sequence & 0xFFFF,) if sequence >> 16 == int.from_bytes(self.hidden, "big") else ()

    def answer(self, data: bytes) -> tuple[str, tuple[int, ...]] | None:
        """Return what a segment says, and which SYN it acknowledges."""
        header, _ = tcp.decode(data)
        if header.flags & _CONTROL == tcp.Flags.RST:
            return RST, ()
        reply = _REPLIES.get(header.flags & _CONTROL)
        marks = self._numbered((header.acknowledgment - 1) & 0xFFFFFFFF)
        if not reply or not marks:
            return None
        return (reply, () if reply == CHALLENGE else marks)


@dataclass(frozen=True, slots=True, kw_only=True)
class EchoFlow(Flow):
    """ICMP echo requests with one checksum, which load balancers take for ports."""

    identifier: int
    checksum: int
    numbers: ClassVar = {4: ip.ICMP, 6: ip.ICMPV6}
    marks_at: ClassVar = (6,)
    makes_up_at: ClassVar = icmp.ECHOED - 2

    @property
    def key(self) -> bytes:
        """Type, code and checksum."""
        return bytes([icmp.ECHO_REQUEST[self.family], 0]) + self.checksum.to_bytes(2, "big")

    @property
    def back(self) -> bytes:
        """The identifier and the end of the data, which come back as they were."""
        return self.identifier.to_bytes(2, "big") + self.trailer

    @staticmethod
    def back_in(data: bytes) -> bytes:
        """Return the identifier and the end of the data of an answer."""
        return data[4:6] + data[icmp.ECHOED :][: probes.TRAILER]

    @property
    def hidden(self) -> bytes:
        """The end of the data."""
        return self.trailer

    @staticmethod
    def hidden_in(transport: bytes) -> bytes:
        """Return the end of the quoted data."""
        return transport[icmp.ECHOED :][: probes.TRAILER]

    @property
    def ports(self) -> tuple[None, None]:
        """None."""
        return None, None

    def _transport(self, mark: int, padding_bytes: int) -> bytes:
        identity = self.identifier, mark
        data = self.trailer + bytes(padding_bytes)
        return icmp.encode_echo(self.source, self.target, identity, data, checksum=self.checksum)

    def claims(self, quote: icmp.Quote) -> tuple[int, ...]:
        """Return what the sequence number and the identification show."""
        identifier, sequence = icmp.decode_echo(quote.transport)
        trailer = probes.unpadded(self.hidden_in(quote.transport))
        if trailer == probes.unpadded(self.trailer):
            own = True  # a NAT may have left its own identifier in the quote
        else:
            own = identifier == self.identifier and self.trailer.startswith(trailer)
        return (sequence, *identification(quote)) if own else ()

    def answer(self, data: bytes) -> tuple[str, tuple[int, ...]] | None:
        """Return what an echo reply is for."""
        _, sequence = icmp.decode_echo(data)
        return (ECHO_REPLY, (sequence,)) if data[0] == icmp.ECHO_REPLY[self.family] else None
