"""Where a trace comes from: what tells its rows from those of other traces, hosts and namespaces."""

from __future__ import annotations

import contextlib
import secrets
import socket
from dataclasses import dataclass

from netlab.frames import Gap, Missing
from netlab.kernel import lookups, netlink, rtnetlink
from netlab.kernel.lookups import Question
from netlab.kernel.netns import NetNs, entered, inode
from netlab.path.target import Target


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

    def columns(self) -> dict[str, str | int | None]:
        """Return what every row of the trace has."""
        return {
            "trace": self.trace,
            "host": self.host,
            "netns": self.netns,
            "source_address": self.source_address,
            "gateway": self.gateway,
            "interface": self.interface,
        }

    def missing(self) -> list[Missing]:
        """Return what these columns do not tell."""
        if (self.nexthops or 0) < 2:
            return []
        detail = "the route has several next hops, and the kernel's choice for a probe may be another"
        return [Missing("gateway, interface", Gap.APPROXIMATE, None, detail)]


def origin(target: Target, source: bytes, netns: NetNs) -> Origin:
    """Return the origin of a new trace to *target*; the kernel's routing is asked, as `ip route get` does."""
    question = Question(target.family, target.packed, source, interface=target.scope)
    with entered(netns), netlink.opened(rtnetlink.ROUTE) as kernel:
        (way,) = lookups.answers(kernel, [question])
        interface = None
        with contextlib.suppress(OSError):  # it may be gone by now; 0 is none
            interface = socket.if_indextoname(way.index)
    return Origin(
        trace=secrets.token_hex(8),
        host=socket.gethostname(),
        netns=inode(netns),
        source_address=socket.inet_ntop(rtnetlink.FAMILIES[target.family], source),
        gateway=way.gateway,
        interface=interface,
        nexthops=way.nexthops,
    )
