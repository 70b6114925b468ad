"""What the target of a packet answers."""

from __future__ import annotations

from enum import Enum, auto
from typing import TypeAlias

from netlab.errors import DecodeError
from netlab.lab.internet import connections
from netlab.lab.internet.parcel import Parcel
from netlab.lab.internet.shape import Echo, Node, Tcp, Udp
from netlab.wire import icmp, ip, tcp, udp


class Quiet(Enum):
    """Why there is no answer."""

    SILENT = auto()  # the host was told to be silent
    TAKEN = auto()  # nothing to say: an ACK, a reset, an answer
    DAMAGED = auto()  # a checksum or a length is wrong


Answer: TypeAlias = bytes | icmp.Error | Quiet  # bytes: a transport of the same protocol, the other way

_QUIET_OR_ERROR: dict[str, Answer] = {
    "silent": Quiet.SILENT,
    "prohibited": icmp.Error.ADMIN_PROHIBITED,
    "port-unreachable": icmp.Error.PORT_UNREACHABLE,
}


def answer(node: Node, parcel: Parcel, open_connections: connections.Connections) -> Answer:
    """Return what *node* answers to a packet that has arrived there."""
    if not parcel.has_right_checksum:
        return Quiet.DAMAGED
    protocol = parcel.header.protocol
    try:
        if protocol == ip.UDP:
            return _udp(node, parcel)
        if protocol == ip.TCP:
            return _tcp(node, parcel, open_connections)
        if parcel.is_icmp:
            return _icmp(node, parcel)
    except DecodeError:
        return Quiet.DAMAGED
    return icmp.Error.PROTOCOL_UNREACHABLE


def _udp(node: Node, parcel: Parcel) -> Answer:
    header, payload = udp.decode(parcel.transport)
    behaviour = node.udp_ports.get(header.destination_port, node.udp)
    if behaviour is not Udp.REPLY:
        return _QUIET_OR_ERROR[behaviour]
    ports = header.destination_port, header.source_port
    return udp.encode(parcel.header.destination, parcel.header.source, ports, payload)


def _tcp(node: Node, parcel: Parcel, open_connections: connections.Connections) -> Answer:
    segment, payload = tcp.decode(parcel.transport)
    behaviour = node.tcp_ports.get(segment.destination_port, node.tcp)
    if behaviour in _QUIET_OR_ERROR:
        return _QUIET_OR_ERROR[behaviour]
    if behaviour in {Tcp.RST, Tcp.RST_ACK}:
        reply = connections.reset(segment, payload, bare=behaviour is Tcp.RST)
    else:
        key = parcel.header.source + parcel.header.destination + parcel.transport[:4]
        reply = open_connections.answer(key, segment, payload, sack=behaviour is Tcp.SACK)
    if reply is None:
        return Quiet.TAKEN
    return reply.encode(parcel.header.destination, parcel.header.source)


def _icmp(node: Node, parcel: Parcel) -> Answer:
    family = parcel.family
    kind, rest, body = parcel.transport[0], parcel.transport[4:8], parcel.transport[8:]
    if kind != icmp.ECHO_REQUEST[family]:
        return Quiet.TAKEN
    if node.echo is not Echo.REPLY:
        return _QUIET_OR_ERROR[node.echo]
    message = icmp.Message(family=family, type=icmp.ECHO_REPLY[family], code=0, rest=rest, body=body)
    return message.encode(parcel.header.destination, parcel.header.source)
