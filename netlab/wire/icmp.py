"""ICMP (RFC 792) and ICMPv6 (RFC 4443) messages, and the packets that their errors quote."""

from __future__ import annotations

import struct
from enum import StrEnum
from functools import cache
from typing import NamedTuple

from netlab.errors import DecodeError
from netlab.wire import checksum as sums, ip

_HEADER = struct.Struct("!BBH4s")
_ECHO = struct.Struct("!4xHH")
ECHOED = _HEADER.size + 2  # where the data of `encode_echo` begin
PROMISED = 8  # bytes behind the IP header that every error quotes (RFC 792)


class Error(StrEnum):
    """What an ICMP error says, the same word for both families."""

    TIME_EXCEEDED = "time-exceeded"
    REASSEMBLY_EXCEEDED = "reassembly-exceeded"
    NET_UNREACHABLE = "net-unreachable"
    HOST_UNREACHABLE = "host-unreachable"
    PROTOCOL_UNREACHABLE = "protocol-unreachable"
    PORT_UNREACHABLE = "port-unreachable"
    FRAGMENTATION_NEEDED = "fragmentation-needed"
    PACKET_TOO_BIG = "packet-too-big"
    ADMIN_PROHIBITED = "admin-prohibited"
    SOURCE_ROUTE_FAILED = "source-route-failed"
    PARAMETER_PROBLEM = "parameter-problem"
    UNREACHABLE = "unreachable"


_UNREACHABLE_V4 = {  # RFC 792, RFC 1122 section 3.2.2.1, RFC 1812 section 5.2.7.1
    0: Error.NET_UNREACHABLE,
    1: Error.HOST_UNREACHABLE,
    2: Error.PROTOCOL_UNREACHABLE,
    3: Error.PORT_UNREACHABLE,
    4: Error.FRAGMENTATION_NEEDED,
    5: Error.SOURCE_ROUTE_FAILED,
    6: Error.NET_UNREACHABLE,  # network unknown
    7: Error.HOST_UNREACHABLE,  # host unknown
    8: Error.HOST_UNREACHABLE,  # source host isolated
    9: Error.ADMIN_PROHIBITED,  # network
    10: Error.ADMIN_PROHIBITED,  # host
    11: Error.NET_UNREACHABLE,  # for this type of service
    12: Error.HOST_UNREACHABLE,  # for this type of service
    13: Error.ADMIN_PROHIBITED,
    14: Error.ADMIN_PROHIBITED,  # host precedence violation
    15: Error.ADMIN_PROHIBITED,  # precedence cutoff
}
_UNREACHABLE_V6 = {  # RFC 4443 section 3.1
    0: Error.NET_UNREACHABLE,  # no route
    1: Error.ADMIN_PROHIBITED,
    2: Error.NET_UNREACHABLE,  # beyond the scope of the source address
    3: Error.HOST_UNREACHABLE,  # address unreachable
    4: Error.PORT_UNREACHABLE,
    5: Error.ADMIN_PROHIBITED,  # source address failed a policy
    6: Error.NET_UNREACHABLE,  # reject route
}
_EXCEEDED = {0: Error.TIME_EXCEEDED, 1: Error.REASSEMBLY_EXCEEDED}
_PROBLEM_V6 = {1: Error.PROTOCOL_UNREACHABLE}  # unrecognized next header (RFC 4443 section 3.4)

_ERRORS: dict[int, dict[int, tuple[dict[int, Error], Error]]] = {
    # family → type → (what each code says, what any other code says)
    4: {
        3: (_UNREACHABLE_V4, Error.UNREACHABLE),
        11: (_EXCEEDED, Error.TIME_EXCEEDED),
        12: ({}, Error.PARAMETER_PROBLEM),
    },
    6: {
        1: (_UNREACHABLE_V6, Error.UNREACHABLE),
        2: ({}, Error.PACKET_TOO_BIG),
        3: (_EXCEEDED, Error.TIME_EXCEEDED),
        4: (_PROBLEM_V6, Error.PARAMETER_PROBLEM),
    },
}


ECHO_REQUEST = {4: 8, 6: 128}
ECHO_REPLY = {4: 0, 6: 129}

# How each error is sent: the plainest type and code that says it.
_SENT_AS: dict[int, dict[Error, tuple[int, int]]] = {
    4: {
        Error.TIME_EXCEEDED: (11, 0),
        Error.REASSEMBLY_EXCEEDED: (11, 1),
        Error.NET_UNREACHABLE: (3, 0),
        Error.HOST_UNREACHABLE: (3, 1),
        Error.PROTOCOL_UNREACHABLE: (3, 2),
        Error.PORT_UNREACHABLE: (3, 3),
        Error.FRAGMENTATION_NEEDED: (3, 4),
        Error.SOURCE_ROUTE_FAILED: (3, 5),
        Error.ADMIN_PROHIBITED: (3, 13),
        Error.PARAMETER_PROBLEM: (12, 0),
    },
    6: {
        Error.TIME_EXCEEDED: (3, 0),
        Error.REASSEMBLY_EXCEEDED: (3, 1),
        Error.NET_UNREACHABLE: (1, 0),
        Error.ADMIN_PROHIBITED: (1, 1),
        Error.HOST_UNREACHABLE: (1, 3),
        Error.PORT_UNREACHABLE: (1, 4),
        Error.PACKET_TOO_BIG: (2, 0),
        Error.PROTOCOL_UNREACHABLE: (4, 1),
        Error.PARAMETER_PROBLEM: (4, 0),
    },
}


class Message(NamedTuple):
    """An ICMP message: `rest` is the second word of the header, `body` what follows."""

    family: int
    type: int
    code: int
    rest: bytes
    body: bytes

    @property
    def error(self) -> Error | None:
        """What the message says if it is an error about a packet of ours, else None.

        Redirects quote a packet too, but that packet went on its way.
        """
        return _meaning(self.family, self.type, self.code)

    def encode(self, source: bytes, destination: bytes) -> bytes:
        """Return the message between two packed addresses (which only ICMPv6 adds to its checksum)."""
        blank = _HEADER.pack(self.type, self.code, 0, self.rest) + self.body
        value = (
            sums.internet(blank)
            if self.family == 4
            else sums.transport(source, destination, ip.ICMPV6, blank)
        )
        return _HEADER.pack(self.type, self.code, value, self.rest) + self.body


@cache
def _meaning(family: int, kind: int, code: int) -> Error | None:
    codes, otherwise = _ERRORS[family].get(kind, ({}, None))
    return codes.get(code, otherwise)


def error(family: int, what: Error, quoted: bytes, *, mtu_bytes: int = 0) -> Message:
    """Return the message that says *what* about the packet that starts with *quoted*.

    *mtu_bytes* is for fragmentation-needed (RFC 1191 section 4) and packet-too-big (RFC 4443 section 3.2).
    """
    kind, code = _SENT_AS[family][what]
    return Message(family=family, type=kind, code=code, rest=mtu_bytes.to_bytes(4, "big"), body=quoted)


class Quote(NamedTuple):
    """The packet an error is about: its IP header, and of its transport as much as was quoted.

    Where extension headers stand before the transport (RFC 9486, say), the header has its protocol.
    """

    header: ip.Header
    transport: bytes


def decode(family: int, data: bytes) -> Message:
    """Return the message of *family* (4 or 6) that *data* holds.

    The checksum of ICMP is checked; that of ICMPv6 needs the addresses, and the kernel checks it before a
    raw socket sees the message (RFC 3542 section 3.1).

    Raises
    ------
    DecodeError
        If *data* is cut off or its checksum is wrong.
    """
    if len(data) < _HEADER.size:
        raise DecodeError(f"ICMP message cut off after {len(data)} bytes")
    if family == 4 and sums.internet(data):
        raise DecodeError("ICMP message with a wrong checksum")
    kind, code, _, rest = _HEADER.unpack_from(data)
    return Message(family=family, type=kind, code=code, rest=rest, body=data[_HEADER.size :])


def quote(message: Message) -> Quote:
    """Return the packet that the error *message* is about.

    Raises
    ------
    DecodeError
        If the message is no error, or quotes less than an IP header, or one of the other family.
    """
    if message.error is None:
        raise DecodeError(f"ICMPv{message.family} type {message.type} is no error about a packet")
    header, transport = ip.decode(message.body)
    if header.family != message.family:
        raise DecodeError(f"ICMP error of IPv{message.family} about an IPv{header.family} packet")
    if len(transport) < PROMISED:  # some hosts take the header off the length, or state none
        transport = message.body[ip.size_of(header) :]
    return Quote(*ip.transport_of(header, transport))


def encode_echo(
    source: bytes, destination: bytes, identity: tuple[int, int], data: bytes, *, checksum: int
) -> bytes:
    """Return an echo request of *identity* (identifier, sequence number) with a given *checksum*.

    Two bytes in front of *data* make up for it, as in Paris traceroute (Augustin et al., IMC 2006): routers
    that balance by what they take for ports see the same for every sequence number. The checksum is 1 to
    0xFFFE.
    """
    family = 4 if len(source) == 4 else 6
    rest = b"".join(number.to_bytes(2, "big") for number in identity)
    blank = _HEADER.pack(ECHO_REQUEST[family], 0, 0, rest) + bytes(2) + data
    pseudo = b"" if family == 4 else sums.pseudo_header(source, destination, ip.ICMPV6, len(blank))
    word = sums.word_for(checksum, pseudo + blank)
    return _HEADER.pack(ECHO_REQUEST[family], 0, checksum, rest) + word.to_bytes(2, "big") + data


def decode_echo(data: bytes) -> tuple[int, int]:
    """Return the identifier and the sequence number of an echo packet.

    Raises
    ------
    DecodeError
        If *data* ends inside the header.
    """
    if len(data) < _HEADER.size:
        raise DecodeError(f"ICMP echo cut off after {len(data)} bytes")
    identifier, sequence = _ECHO.unpack_from(data)
    return identifier, sequence
