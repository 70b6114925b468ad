"""Where a trace comes from: what tells its rows from those of other traces, hosts and namespaces."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from netlab.frames import Gap, Missing
from netlab.kernel import lookups, netlink, rtnetlink
from netlab.kernel.lookups import Question
from netlab.kernel.netns import NetNs, entered, inode
from netlab.path.target import Target

COLUMNS = ("trace", "host", "netns", "source_address", "gateway", "interface")  # of hops


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The call that probed, and the way its packets left; `nexthops` counts those of their route."""

    trace: str
    host: str
    netns: int
    source_address: str
    gateway: str | None
    interface: str | None
    nexthops: int | None

    def missing(self) -> list[Missing]:
        """Return what these columns do not tell."""
        if (self.nexthops or 0) < 2:
            return []
        detail = "the route has several next hops, and the kernel's choice for a probe may be another"
        return [Missing("gateway, interface", Gap.APPROXIMATE, None, detail)]


def origins(targets: Sequence[tuple[Target, bytes]], netns: NetNs) -> list[Origin]:
    """Return the origins of new traces to *targets* from source addresses, a trace each."""
    return looked_up(targets, netns, [])[0]


def looked_up(
    targets: Sequence[tuple[Target, bytes]], netns: NetNs, besides: Sequence[Question]
) -> tuple[list[Origin], list[lookups.Answer]]:
    """Return the origins of new traces, and what the kernel answers to other questions.

    Its routing is asked once for all, as `ip route get` does.
    """
    questions = [Question(to.family, to.packed, source, interface=to.scope) for to, source in targets]
    with entered(netns), netlink.opened(rtnetlink.ROUTE) as kernel:
        told = lookups.answers(kernel, [*questions, *besides])
        ways, more = told[: len(targets)], told[len(targets) :]
        interfaces = {way.index: _interface(way.index) for way in ways}
    host, number = socket.gethostname(), inode(netns)
    found = [
        Origin(
            trace=secrets.token_hex(8),
            host=host,
            netns=number,
            source_address=socket.inet_ntop(rtnetlink.FAMILIES[to.family], source),
            gateway=way.gateway,
            interface=interfaces[way.index],
            nexthops=way.nexthops,
        )
        for (to, source), way in zip(targets, ways, strict=True)
    ]
    return found, more


def _interface(index: int) -> str | None:
    try:
        return socket.if_indextoname(index)
    except OSError:  # it is gone by now, or the packet does not leave: 0 is no interface
        return None
