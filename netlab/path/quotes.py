"""What a router shows of the probe that it answers: how the probe arrived there, and under which labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from netlab.errors import DecodeError
from netlab.path import probes
from netlab.wire import extensions, icmp, ip
from netlab.wire.extensions import Label

NOTHING = "nothing"  # was rewritten: what the column says then

_CHECKSUM_AT = {ip.UDP: 6, ip.TCP: 16, ip.ICMP: 2, ip.ICMPV6: 2}
_IDENTIFIER = {
    ip.UDP: (0, "source port"),
    ip.TCP: (0, "source port"),
    ip.ICMP: (4, "identifier"),
    ip.ICMPV6: (4, "identifier"),
}


class Quoted(NamedTuple):
    """A probe as it arrived where it ended: `changed` names what was rewritten on the way there.

    Where the kernel keeps the quoted header there are only `labels`. `mtu_bytes` is that of the next link,
    where the probe was too big for it and the router says so.
    """

    labels: tuple[Label, ...]
    ttl: int | None = None
    tos: int | None = None
    changed: tuple[str, ...] | None = None
    mtu_bytes: int | None = None


def quoted(packet: bytes, quote: icmp.Quote, message: icmp.Message) -> Quoted:
    """Return what *message* and its *quote* show of the probe sent as *packet*, without IP options."""
    header = quote.header
    return Quoted(
        ttl=header.ttl,
        tos=header.tos if isinstance(header, ip.IPv4) else header.traffic_class,
        changed=tuple(_changed(packet, quote)),
        labels=tuple(labels(message)),
        mtu_bytes=mtu_bytes(message),
    )


def unaltered(ttl: int, tos: int, message: icmp.Message) -> Quoted:
    """Return what *message* shows of a probe that arrived as it was sent, with *ttl* left."""
    return Quoted(tuple(labels(message)), ttl, tos, (), mtu_bytes(message))


def _changed(packet: bytes, quote: icmp.Quote) -> list[str]:
    header, sent = quote.header, packet[ip.SIZE[quote.header.family] :]
    seen = quote.transport[: icmp.PROMISED] + probes.unpadded(quote.transport[icmp.PROMISED :])
    identifier_at, identifier = _IDENTIFIER[header.protocol]
    checksum_at = _CHECKSUM_AT[header.protocol]
    if isinstance(header, ip.IPv4):
        source, number, same = packet[12:16], "id", packet[4:6] == header.identification.to_bytes(2, "big")
    else:
        flow_label = int.from_bytes(packet[1:4], "big") & 0xFFFFF
        source, number, same = packet[8:24], "flow label", flow_label == header.flow_label
    if same and source == header.source and sent.startswith(seen):
        return []
    rewritten = (
        ("source", source != header.source),
        (identifier, _differs(sent, seen, identifier_at)),
        ("checksum", _differs(sent, seen, checksum_at)),
        (number, not same),
    )
    return [name for name, is_rewritten in rewritten if is_rewritten]


def _differs(sent: bytes, seen: bytes, place: int) -> bool:
    """Return whether a field of two bytes was rewritten; of what the quote does not show nothing is said."""
    found = seen[place : place + 2]
    return len(found) == 2 and found != sent[place : place + 2]


def labels(message: icmp.Message) -> list[Label]:
    """Return the MPLS labels that the error *message* carries; damaged extensions have none."""
    try:
        _, objects = extensions.split(message)
    except DecodeError:
        return []
    return extensions.decode_labels(objects) if objects else []


def mtu_bytes(message: icmp.Message) -> int | None:
    """Return the MTU that *message* tells; routers from before RFC 1191 tell 0, which is nothing."""
    says = message.error
    if says is icmp.Error.FRAGMENTATION_NEEDED:
        return int.from_bytes(message.rest[2:], "big") or None
    if says is icmp.Error.PACKET_TOO_BIG:
        return int.from_bytes(message.rest, "big") or None
    return None


def as_text(stack: Sequence[Label]) -> str | None:
    """Return a label stack as traceroute -e writes it, the outermost label first; None of no label."""
    last = len(stack) - 1
    entries = [
        f"L={entry.label},E={entry.traffic_class},S={int(place == last)},T={entry.ttl}"
        for place, entry in enumerate(stack)
    ]
    return "/".join(entries) or None
