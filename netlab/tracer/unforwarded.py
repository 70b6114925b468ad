"""Why a network namespace does not send a packet on that it has a route for."""

from __future__ import annotations

from netlab.kernel import forwarding
from netlab.kernel.routing import Way
from netlab.tracer.stations import FourTuple

_UNKNOWN = {"failed", "incomplete"}  # nobody has answered the question for its link-layer address, so far


def refusal(way: Way, packet: FourTuple, *, arrived: bool) -> str | None:
    """Return why the calling thread's namespace does not send *packet*, if it does not.

    *arrived* tells whether it came by an interface, and was not sent by a socket here.
    """
    if way.type != "unicast":
        return None
    if arrived and not forwarding.forwards(packet.family):
        return "not forwarded: net.ipv6.conf.all.forwarding is 0 here"
    if way.neighbour in _UNKNOWN:
        hop = f"the next hop {way.gateway}" if way.gateway else packet.dst
        return f"nobody on {way.interface} answers for {hop}: its neighbour entry is {way.neighbour}"
    return None
