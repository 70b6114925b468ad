"""What a caller asks for, checked before anything is opened or sent."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from netlab import checks
from netlab.errors import BadInput
from netlab.kernel import netns as namespaces
from netlab.path import sack
from netlab.path.engine import Plan, Turns
from netlab.path.methods import Method
from netlab.path.probes import Protocol

_PORTS = {
    Protocol.UDP: 33434,  # the port range traceroute has used since 1988; nothing listens there
    Protocol.TCP: 80,  # what firewalls let through most often, and what traceroute -T takes
    Protocol.SACK: 80,
}
_TURNS = {Protocol.TCP: Turns.UNTIL_ACCEPTED, Protocol.SACK: Turns.SINGLE}
_NO_PORT = 0
_MOST_PER_S = 100_000
_SENT_AGAIN = 2  # probes to a TTL above `queries`, at most: see `netlab.path.engine`


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to send, and how. `port` is 0 and `source_port` None for ICMP."""

    protocol: Protocol
    port: int
    source_port: int | None
    plan: Plan
    runs: int
    packets_per_s: int
    netns: namespaces.NetNs
    method: Method = Method.RAW
    tos: int = 0


def request_of(
    *,
    protocol: str,
    port: int | None,
    source_port: int | None,
    tos: int = 0,
    first_ttl: int,
    max_ttl: int,
    queries: int,
    timeout_s: float,
    runs: int,
    packets_per_s: int,
    method: str = Method.RAW.value,
    netns: namespaces.NetNs,
) -> Request:
    """Return what to send, with every option checked."""
    kind = Protocol(checks.choice("protocol", protocol, list(Protocol)))
    port, source_port = ports_of(kind, port, source_port)
    how = Method(checks.choice("method", method, list(Method)))
    namespaces.path(netns)
    max_ttl = checks.whole("max_ttl", max_ttl, 1, 255)
    request = Request(
        method=how,
        protocol=kind,
        port=port,
        source_port=source_port,
        tos=tos,
        plan=Plan(
            first_ttl=checks.whole("first_ttl", first_ttl, 1, max_ttl),
            max_ttl=max_ttl,
            queries=checks.whole("queries", queries, 1, 100),
            timeout_ns=round(checks.positive("timeout_s", timeout_s, unit="seconds", most=60) * 10**9),
            turns=_TURNS.get(kind, Turns.TOGETHER),
        ),
        runs=checks.whole("runs", runs, 1, 100_000),
        packets_per_s=checks.whole("packets_per_s", packets_per_s, 1, _MOST_PER_S),
        netns=netns,
    )
    if kind is Protocol.SACK:
        _bounded(request)
    return request


def ports_of(kind: Protocol, port: int | None, source_port: int | None = None) -> tuple[int, int | None]:
    """Return the port and the source port that were asked for, checked, or the kind's usual ones."""
    if kind is Protocol.ICMP:
        for name, value in (("port", port), ("source_port", source_port)):
            if value is not None:
                raise BadInput(f"{name} {value!r} was given, and icmp has no ports", fix=f"Leave {name} out")
        return _NO_PORT, None
    return (
        _PORTS[kind] if port is None else checks.port(port),
        None if source_port is None else checks.port(source_port, "source_port"),
    )


def tos_of(dscp: int, ecn: int) -> int:
    """Return the traffic class that a service class and ECN bits make, both checked."""
    return checks.whole("dscp", dscp, 0, 63) << 2 | checks.whole("ecn", ecn, 0, 3)


def stopped_by(stop: threading.Event | None) -> Callable[[], bool] | None:
    """Return what says whether to stop, if anything does."""
    if stop is None:
        return None
    if not callable(getattr(stop, "is_set", None)):
        raise BadInput(f"stop {stop!r} is no event", fix="Give a threading.Event, and set it to stop")
    return stop.is_set


def _bounded(request: Request) -> None:
    """Refuse more probes than one connection can carry."""
    arriving = request.runs * request.plan.queries
    if arriving > sack.ARRIVALS:
        raise BadInput(
            f"{request.runs} runs of {request.plan.queries} queries are more than tcp-sack can send",
            fix=f"Give runs and queries whose product is at most {sack.ARRIVALS}",
        )
    most = request.runs * (request.plan.queries + _SENT_AGAIN) * request.plan.max_ttl
    if most > sack.MARKS:
        raise BadInput(
            f"{most} probes are more than tcp-sack can send", fix="Give a lower max_ttl, or fewer runs"
        )
