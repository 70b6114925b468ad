"""What a simulated internet consists of: nodes, links, and what changes when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from netlab.wire import icmp
from netlab.wire.extensions import Label

CLIENT = "client"


class Balance(StrEnum):
    """By what a node chooses among links that are equally good."""

    FLOW = "flow"  # addresses, protocol, first four bytes of the transport header, IPv6 flow label
    PACKET = "packet"
    DESTINATION = "destination"


class Tcp(StrEnum):
    """What a host does with TCP segments to a port."""

    SYN_ACK = "syn-ack"
    SACK = "sack"  # SYN-ACK that permits selective acknowledgments, and sends them
    RST = "rst"  # without ACK, as some firewalls send it
    RST_ACK = "rst-ack"  # a closed port
    PROHIBITED = "prohibited"
    SILENT = "silent"


class Udp(StrEnum):
    """What a host does with datagrams to a port."""

    PORT_UNREACHABLE = "port-unreachable"
    REPLY = "reply"  # sends the payload back
    PROHIBITED = "prohibited"
    SILENT = "silent"


class Echo(StrEnum):
    """What a host does with ICMP echo requests."""

    REPLY = "reply"
    PROHIBITED = "prohibited"
    SILENT = "silent"


class Quotes(StrEnum):
    """What a NAT does to the packet quoted in an ICMP error that it sends inside."""

    RESTORED = "restored"  # as it left the inside, its checksum too (RFC 5508 section 4.2)
    ADDRESSES = "addresses"  # address and port put back, the transport checksum left as seen outside
    KEPT = "kept"  # left as seen outside


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A router or host; see `netlab.lab.simulated` for what each attribute means."""

    name: str
    address4: bytes
    address6: bytes
    prefixes: tuple[tuple[int, int, int], ...] = ()  # (bits of an address, network, mask)
    balance: Balance = Balance.FLOW
    silent: frozenset[icmp.Error] = frozenset()
    answers_from4: bytes = b""
    answers_from6: bytes = b""
    reply_ttl: int = 64
    counts_answers: bool = False
    quote_bytes: int | None = None
    told_mtu: int | None = None
    icmp_per_s: float = 0.0
    icmp_burst: int = 0
    mpls: tuple[Label, ...] = ()
    hidden: bool = False
    set_ttl: int = 0
    set_dscp: int | None = None
    set_ecn: int | None = None
    set_ip_id: bool = False
    nat4: bytes = b""
    nat6: bytes = b""
    nat_port_shift: int = 0
    nat_quotes: Quotes = Quotes.RESTORED
    dnat: Mapping[bytes, bytes] = field(default_factory=dict)
    filters: frozenset[int] = frozenset()
    prohibits: frozenset[int] = frozenset()
    tcp: Tcp = Tcp.RST_ACK
    tcp_ports: Mapping[int, Tcp] = field(default_factory=dict)
    udp: Udp = Udp.PORT_UNREACHABLE
    udp_ports: Mapping[int, Udp] = field(default_factory=dict)
    echo: Echo = Echo.REPLY

    def address(self, family: int) -> bytes:
        """Return the node's own address of one family."""
        return self.address4 if family == 4 else self.address6

    def nat(self, family: int) -> bytes:
        """Return the address it hides others behind, or nothing."""
        return self.nat4 if family == 4 else self.nat6

    def error_source(self, family: int) -> bytes:
        """Return the address that all its ICMP errors come from, or nothing if that depends on the link."""
        return self.answers_from4 if family == 4 else self.answers_from6


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One direction of a link."""

    near: str
    far: str
    delay_ns: int = 0
    jitter_ns: int = 0
    loss: float = 0.0
    mtu_bytes: int = 1500
    metric: int = 1
    up: bool = True
    far_address4: bytes = b""
    far_address6: bytes = b""

    def far_address(self, family: int) -> bytes:
        """Return the address of the far end's interface, or nothing if it has none of its own."""
        return self.far_address4 if family == 4 else self.far_address6

    def __str__(self) -> str:
        return f"{self.near} to {self.far}"


@dataclass(frozen=True, slots=True)
class Shape:
    """The nodes and links at one time; links by the node that they leave, sorted by the node they lead to."""

    nodes: Mapping[str, Node]
    links: Mapping[str, tuple[Link, ...]]


@dataclass(frozen=True, slots=True)
class Epoch:
    """A shape, and when it begins to hold, after the start."""

    from_ns: int
    shape: Shape
