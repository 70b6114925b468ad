"""What a probe is: a packet of a flow, with a number that answers give back.

All probes of a flow share what routers balance load by: addresses, protocol, the first four bytes of the
transport header (`Flow.key`: the ports, or ICMP's type, code and checksum), the IPv6 flow label. The probe's
number, its mark, is where none of them look and where it survives in the eight transport bytes that an ICMP
error must quote (RFC 792). `netlab.path.kinds` has the kinds of flow, `netlab.path.matching` reads answers.
"""

from __future__ import annotations

import ipaddress
import struct
import zlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from netlab.wire import icmp, ip

MARKS = 0xFFFE  # 1 to 0xFFFE: a UDP checksum of 0 means none, and 0xFFFF is what a computed 0 is sent as

_HOSTS_WORDS = {icmp.Error.PORT_UNREACHABLE.value, icmp.Error.PROTOCOL_UNREACHABLE.value}
_TRAILER = struct.Struct("!IH")
TRAILER = _TRAILER.size


class Protocol(StrEnum):
    """The kinds of probe."""

    UDP = "udp"
    TCP = "tcp"
    ICMP = "icmp"
    SACK = "tcp-sack"


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow(ABC):
    """One flow of a trace: `number` is which, `salt` (32 bits) tells this trace's packets from others'."""

    number: int
    source: bytes
    target: bytes
    salt: int
    tos: int = 0  # DSCP and ECN (RFC 2474, RFC 3168)
    numbers: ClassVar[dict[int, int]]  # the IP protocol number by family
    acknowledges_many: ClassVar[bool] = False  # whether the marks of an answer are of as many probes
    # Where in the transport the mark is as such, and the word that makes up for it.
    marks_at: ClassVar[tuple[int, ...]] = ()
    makes_up_at: ClassVar[int] = 0
    # Whether a host that has nothing there says so by an ICMP error: from any of its addresses.
    refused_by_error: ClassVar[bool] = False

    @property
    def family(self) -> int:
        """4 or 6."""
        return 4 if len(self.target) == 4 else 6

    @property
    def protocol_number(self) -> int:
        """What the IP header calls the transport."""
        return self.numbers[self.family]

    @property
    @abstractmethod
    def key(self) -> bytes:
        """The first four bytes of the transport header: what load balancers look at."""

    @property
    @abstractmethod
    def back(self) -> bytes:
        """What the answers of the target to this flow have and no others, at the place of `back_in`."""

    @staticmethod
    @abstractmethod
    def back_in(data: bytes) -> bytes:
        """Return what tells an answer's flow by its `back`."""

    @property
    @abstractmethod
    def hidden(self) -> bytes:
        """What tells this flow where a NAT has rewritten the key, at the place of `hidden_in`."""

    @staticmethod
    @abstractmethod
    def hidden_in(transport: bytes) -> bytes:
        """Return what tells a quoted packet's flow by its `hidden`."""

    @property
    @abstractmethod
    def ports(self) -> tuple[int | None, int | None]:
        """The source and the destination port, if it has any."""

    @property
    def label(self) -> int:
        """The IPv6 flow label: the same for the same five-tuple, spread over 20 bits (RFC 6437)."""
        return zlib.crc32(self.source + self.target + self.key) & 0xFFFFF or 1

    def is_addressed(self, header: ip.Header) -> bool:
        """Return whether the IP header is one of this flow's, whoever it says is the source."""
        return (header.protocol, header.destination) == (self.protocol_number, self.target)

    def is_turned_back(self, reply: str, address: str) -> bool:
        """Return whether *reply* is a host's word in the mouth of *address*: that of a firewall on the way.

        Firewalls reject with port-unreachable unless told otherwise (iptables-extensions(8)).
        """
        if self.refused_by_error or reply not in _HOSTS_WORDS:
            return False
        return not self.is_target(address)

    def is_target(self, address: str) -> bool:
        """Return whether *address* is the target's."""
        return ipaddress.ip_address(address.partition("%")[0]).packed == self.target

    def packet(self, ttl: int, mark: int, *, size_bytes: int = 0) -> bytes:
        """Return the whole IP packet of the probe with *mark*, of *size_bytes* and not to be cut if given.

        IPv4's identification is the mark too, as in Dublin traceroute: it survives a NAT that rewrites
        checksums and does not restore them in the quote. DF is off unless the size matters: routers must then
        keep the identification (RFC 6864 section 4.1 lets them ignore it otherwise).
        """
        header: ip.Header
        transport = self._transport(mark, 0)
        if size_bytes:
            transport = self._transport(mark, size_bytes - ip.SIZE[self.family] - len(transport))
        if self.family == 4:
            header = ip.IPv4(
                source=self.source,
                destination=self.target,
                protocol=self.protocol_number,
                ttl=ttl,
                tos=self.tos,
                identification=mark,
                flags_offset=ip.DONT_FRAGMENT if size_bytes else 0,
            )
        else:
            header = ip.IPv6(
                source=self.source,
                destination=self.target,
                protocol=self.protocol_number,
                ttl=ttl,
                traffic_class=self.tos,
                flow_label=self.label,
            )
        return header.encode(transport)

    @abstractmethod
    def _transport(self, mark: int, padding_bytes: int) -> bytes:
        """Return the transport header of the probe with *mark*, and its payload, longer by the padding."""

    @abstractmethod
    def claims(self, quote: icmp.Quote) -> tuple[int, ...]:
        """Return the marks that the places of a quoted packet of this flow show, one for each place."""

    @abstractmethod
    def answer(self, data: bytes) -> tuple[str, tuple[int, ...]] | None:
        """Return what a transport packet to this flow says, and the marks that it shows; None for strangers.

        No mark means that it answers some probe of this flow and does not say which.
        """

    @property
    def trailer(self) -> bytes:
        """What the payload ends with: whose probe this is, where the quote is that long."""
        return _TRAILER.pack(self.salt, self.number)


def unpadded(trailer: bytes) -> bytes:
    """Return what a quote shows of a trailer: routers pad short quotes with zeros (RFC 4884 section 4.1)."""
    return trailer.rstrip(b"\0")


def identification(quote: icmp.Quote) -> tuple[int, ...]:
    """Return the mark that the quoted IPv4 header shows; IPv6 has no place for one."""
    return (quote.header.identification,) if isinstance(quote.header, ip.IPv4) else ()
