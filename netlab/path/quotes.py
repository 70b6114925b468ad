"""What a router shows of the probe that it answers: how the probe arrived there, and under which labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from netlab.errors import DecodeError
from netlab.wire import extensions, icmp, ip
from netlab.wire.extensions import Label


@dataclass(frozen=True, slots=True, kw_only=True)
class Quoted:
    """A probe as it arrived where it ended.

    `mtu_bytes` is that of the next link, where the probe was too big for it and the router says so.
    """

    ttl: int
    tos: int
    labels: tuple[Label, ...]
    mtu_bytes: int | None = None


def quoted(message: icmp.Message, quote: icmp.Quote) -> Quoted:
    """Return what *message* and its *quote* show."""
    header = quote.header
    return Quoted(
        ttl=header.ttl,
        tos=header.tos if isinstance(header, ip.IPv4) else header.traffic_class,
        labels=tuple(labels(message)),
        mtu_bytes=mtu_bytes(message),
    )


def labels(message: icmp.Message) -> list[Label]:
    """Return the MPLS labels that the error *message* carries; damaged extensions have none."""
    try:
        _, objects = extensions.split(message)
    except DecodeError:
        return []
    return extensions.decode_labels(objects)


def mtu_bytes(message: icmp.Message) -> int | None:
    """Return the MTU that *message* tells; routers from before RFC 1191 tell 0, which is nothing."""
    if message.error is icmp.Error.FRAGMENTATION_NEEDED:
        return int.from_bytes(message.rest[2:], "big") or None
    if message.error is icmp.Error.PACKET_TOO_BIG:
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
