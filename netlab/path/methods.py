"""How to probe: with raw sockets, or with what any process may have."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from enum import StrEnum
from typing import TypeAlias

from netlab.errors import BadInput, CapabilityError
from netlab.frames import Gap, Missing
from netlab.kernel import capabilities
from netlab.kernel.netns import NetNs, entered
from netlab.path.alone import OneByOne, Send, Twice
from netlab.path.connecting import LONGEST_NS
from netlab.path.engine import Plan, Prober
from netlab.path.outlet import Outlet
from netlab.path.plain import PlainStation
from netlab.path.probes import Protocol
from netlab.path.state import Run
from netlab.path.station import Station
from netlab.path.target import FAMILIES, Target
from netlab.path.unprivileged import PlainOutlet

AnyStation: TypeAlias = Station | PlainStation
AnyOutlet: TypeAlias = Outlet | PlainOutlet
AnyProber: TypeAlias = Prober | Twice | OneByOne
Strategy: TypeAlias = Callable[[Plan, Send, Run, Iterator[int]], AnyProber]


_IN_HEADERS = "reply_id, quoted_ttl, quoted_dscp, quoted_ecn, rewritten"
_ELSEWHERE = (
    "sockets without CAP_NET_RAW hear the target at the address that was asked alone: a host that answers "
    "from another one looks silent"
)
_LABELS_SINCE = (5, 9)  # IP_RECVERR_RFC4884
_ECN = 3  # the lower bits of the traffic class (RFC 3168)


class Method(StrEnum):
    """How to probe."""

    AUTO = "auto"
    RAW = "raw"
    UNPRIVILEGED = "unprivileged"


def chosen(method: Method, netns: NetNs) -> Method:
    """Return *method*, or in place of "auto" the best one that this process can use."""
    if method is not Method.AUTO:
        return method
    with entered(netns):
        refused = capabilities.raw_socket(FAMILIES[4])
    return Method.RAW if refused is None else Method.UNPRIVILEGED


def station(
    method: Method,
    protocol: Protocol,
    families: Collection[int],
    *,
    port: int,
    source_port: int | None,
    netns: NetNs,
    patience_s: float = 1.0,
    tos: int = 0,
) -> AnyStation:
    """Return what sends the probes and hears the answers; the parameters are those of `Station`.

    "auto" takes raw sockets where they open.

    Raises
    ------
    BadInput
        If unprivileged TCP shall have ECN, which the kernel keeps for itself there.
    CapabilityError
        Without CAP_NET_RAW, if *method* or *protocol* is one that takes it.
    """
    if method is not Method.UNPRIVILEGED:
        try:
            return Station(
                protocol,
                families,
                port=port,
                source_port=source_port,
                netns=netns,
                patience_s=patience_s,
                tos=tos,
            )
        except CapabilityError:
            if method is Method.RAW:
                raise
    if protocol is Protocol.SACK:
        raise CapabilityError(
            "traceroute cannot probe with tcp-sack without CAP_NET_RAW",
            fix=f"Use protocol='tcp', or: {capabilities.grant(['CAP_NET_RAW'])}",
        )
    if protocol is Protocol.TCP and tos & _ECN:
        raise BadInput("unprivileged tcp cannot set ecn", fix="Use protocol='udp', or leave ecn out")
    return PlainStation(protocol, port=port, source_port=source_port, tos=tos, netns=netns)


def method_of(station: AnyStation) -> Method:
    """Return how *station* probes."""
    return Method.UNPRIVILEGED if isinstance(station, PlainStation) else Method.RAW


def outlet(station: AnyStation, target: Target, source: bytes) -> AnyOutlet:
    """Return the outlet of *station* to one target; raises what the outlets raise."""
    if isinstance(station, PlainStation):
        return PlainOutlet(station, target, source)
    return Outlet(station, target, source)


def unseen(station: AnyStation, *, reached: bool) -> list[Missing]:
    """Return what the sockets of *station* never tell; *reached* if no target stayed silent."""
    if not isinstance(station, PlainStation):
        return []
    why = "the kernel keeps IP headers from sockets without CAP_NET_RAW"
    lacking = [Missing(_IN_HEADERS, Gap.UNAVAILABLE, None, why)]
    if capabilities.kernel_version() < _LABELS_SINCE:
        lacking.append(Missing("mpls", Gap.UNAVAILABLE, None, "without CAP_NET_RAW it takes Linux 5.9"))
    if not reached and station.protocol is not Protocol.ICMP:
        lacking.append(Missing("answers of the target", Gap.UNSEEN, None, _ELSEWHERE))
    return lacking


def strategy(method: Method, protocol: Protocol) -> Strategy:
    """Return what makes the track of one run."""
    if method is not Method.UNPRIVILEGED:
        return Prober
    return _one_by_one if protocol is Protocol.TCP else Twice


def _one_by_one(plan: Plan, send: Send, run: Run, marks: Iterator[int]) -> OneByOne:
    return OneByOne(replace(plan, timeout_ns=min(plan.timeout_ns, LONGEST_NS)), send, run, marks)
