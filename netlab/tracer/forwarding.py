"""Why a network namespace does not send a packet on that it has a route for."""

from __future__ import annotations

import contextlib
from pathlib import Path

from netlab.kernel.routing import Way
from netlab.tracer.stations import Packet

_FORWARDS = Path("/proc/sys/net/ipv6/conf/all/forwarding")
_UNKNOWN = {"failed", "incomplete"}  # nobody has answered the question for its link-layer address, so far


def refusal(way: Way, packet: Packet, *, arrived: bool) -> str | None:
    """Return why the calling thread's namespace does not send *packet*, if it does not.

    *arrived* tells whether it came by an interface, and was not sent by a socket here.
    """
    if way.type != "unicast":
        return None
    if arrived and not _forwards(packet.family):
        return "not forwarded: net.ipv6.conf.all.forwarding is 0 here"
    if way.neighbour in _UNKNOWN:
        hop = f"the next hop {way.gateway}" if way.gateway else packet.dst
        return f"nobody on {way.interface} answers for {hop}: its neighbour entry is {way.neighbour}"
    return None


def _forwards(family: int) -> bool:
    """Tell whether this namespace forwards at all; of IPv4 its route look-ups tell that already."""
    if family == 4:
        return True
    with contextlib.suppress(OSError):
        return _FORWARDS.read_text(encoding="ascii").strip() != "0"
    return True
