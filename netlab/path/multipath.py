"""`netlab.multipath`: all the ways that packets go."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import pandas as pd

from netlab import checks
from netlab.errors import BadInput, ProbeError
from netlab.frames import Gap, Missing
from netlab.kernel import netns as namespaces
from netlab.path import branches, filters, leaving, loop, pace, target as targeting, tracing
from netlab.path.engine import Plan
from netlab.path.explorer import Explorer
from netlab.path.losses import losses
from netlab.path.mda import Limits, Search
from netlab.path.methods import Method
from netlab.path.origin import origins
from netlab.path.outlet import Outlet
from netlab.path.probes import Protocol
from netlab.path.requests import Request, request_of, stopped_by
from netlab.path.rows import Traced
from netlab.path.station import Station, now_ns
from netlab.path.sweep import Sweep
from netlab.path.trace import frame_of

_KINDS = [Protocol.UDP, Protocol.TCP, Protocol.ICMP]  # the flows of SACK probes are connections
_DUBLIN_FLOWS = 20
_LEAST, _MOST = 0.5, 0.9999  # confidence


class How(StrEnum):
    """How flows are chosen."""

    MDA = "mda"
    DUBLIN = "dublin"


@checks.options
def multipath(
    target: str,
    *,
    strategy: str = "mda",
    confidence: float | None = None,
    flows: int | None = None,
    neighbours: Iterable[str] = (),
    protocol: str = "udp",
    port: int | None = None,
    family: int | None = None,
    first_ttl: int = 1,
    max_ttl: int = 30,
    timeout_s: float = 1.0,
    source_port: int | None = None,
    packets_per_s: int = pace.PER_SECOND,
    resolve: bool = False,
    netns: namespaces.NetNs = None,
    stop: threading.Event | None = None,
) -> pd.DataFrame:
    """Find all the ways between this host and a target that load balancers spread flows over.

    Probes are of many flows, told apart by their source port (ICMP: their checksum), and each flow keeps to
    its way. `netlab.traceroute` follows one of them.

    Parameters
    ----------
    target
        A host name or an address. Of several addresses the first that this host has a route to.
    strategy
        "mda" sends each router as many flows as it takes to be sure that none of its next hops is missing.
        "dublin" follows a given number of flows from end to end.
    confidence
        For "mda": how likely the result shall be whole, 0.5 to 0.9999, 0.95 unless given; if all balancers
        spread flows evenly and by what tells these flows apart.
    flows
        How many flows there are at most: for "mda" 2000 unless given, for "dublin" 20.
    neighbours
        Other addresses, say of the target's network, that one flow each is followed to: balancers that choose
        by destination send all flows to one target the same way, and show only so. Each address counts once.
    protocol, port, family, first_ttl, max_ttl, timeout_s, packets_per_s, resolve, netns, stop
        As in `netlab.traceroute`. Unanswered probes are sent again, a bounded number of times.
    source_port
        Source port of the first flow, which the others come after.

    Returns
    -------
    DataFrame
        One row per probe, as in `netlab.schemas.HOPS`; `flow` tells the flows apart, which are not all probed
        at all TTLs. The rows of neighbours come last. With "mda", `attrs["multipath"]` is what was found, by
        node and by link, and how sure it is: see `netlab.path.branches.account`. `netlab.path_graph` draws it
        with these confidences.

    Raises
    ------
    BadInput
        If an argument cannot be right.
    ProbeError
        If the target has no address or no route, a source port is taken, or the host refuses to send from
        the start; later on, a row's `error` says so.
    CapabilityError
        Without CAP_NET_RAW, or with `netns` without CAP_SYS_ADMIN.

    Notes
    -----
    After Veitch, Augustin, Teixeira and Friedman, "Failure control in multipath route tracing" (INFOCOM
    2009), and, for "dublin", dublin-traceroute. Balancers that choose by packet are recognised, since flows
    do not keep to their branch there, and links behind them that may be none are marked (`certain`).

    Examples
    --------
    >>> import netlab
    >>> hops = netlab.multipath("127.0.0.1")
    >>> hops.attrs["multipath"]["reached_confidence"]
    0.95
    >>> [(link["from"], link["to"]) for link in hops.attrs["multipath"]["links"]]
    [('source', '127.0.0.1')]
    """
    how = How(checks.choice("strategy", strategy, list(How)))
    checks.choice("protocol", protocol, _KINDS)
    checks.flag("resolve", resolve)
    request = request_of(
        protocol=protocol,
        port=port,
        source_port=source_port,
        first_ttl=first_ttl,
        max_ttl=max_ttl,
        queries=1,
        timeout_s=timeout_s,
        runs=1,
        packets_per_s=packets_per_s,
        method=Method.RAW,
        netns=netns,
    )
    limits = _limits(how, confidence, flows, request.plan)
    asked = targeting.routed(targeting.resolve(target, family, netns), netns)
    search: Search | Sweep = Search(limits) if how is How.MDA else Sweep(limits)
    others = _beside(asked[0], neighbours, limits, netns)
    traces, missing = _explored([_Job(*asked, search), *others], request, stopped=stopped_by(stop))
    if traces[0].error is not None and not traces[0].sent:
        raise traces[0].error
    if isinstance(search, Sweep):
        return frame_of(traces, request, missing, resolve=resolve)
    found = branches.account(search)
    branches.compare(found, [job.way() for job in others])
    hops = frame_of(traces, request, [*missing, *(_unsure(found) or _lossy(search))], resolve=resolve)
    hops.attrs["multipath"] = found
    return hops


@dataclass(frozen=True, slots=True)
class _Job:
    """A target, the address that it is probed from, and the strategy."""

    target: targeting.Target
    source: bytes
    strategy: Search | Sweep

    def way(self) -> dict[int, str]:
        """Return who answered the first flow, by TTL."""
        sightings = self.strategy.sightings
        heard = {ttl: cell.heard for ttl in sightings.cells for flow, cell in sightings.hop(ttl) if not flow}
        return {ttl: next(iter(addresses)) for ttl, addresses in heard.items() if addresses}


def _beside(
    target: targeting.Target, neighbours: Iterable[str], limits: Limits, netns: namespaces.NetNs
) -> list[_Job]:
    """Return what is to be done for the neighbours of *target*, once for each address."""
    jobs: dict[str, _Job | None] = {target.address: None}
    for name in checks.several("neighbours", neighbours):
        chosen, source = targeting.routed(targeting.resolve(name, target.family, netns), netns)
        if chosen.address not in jobs:
            jobs[chosen.address] = _Job(chosen, source, Sweep(replace(limits, flows=1)))
    return [job for job in jobs.values() if job]


def _limits(how: How, confidence: float | None, flows: int | None, plan: Plan) -> Limits:
    if confidence is not None and how is not How.MDA:
        raise BadInput(f"confidence {confidence!r} was given with strategy {how.value!r}", fix="Leave it out")
    sure = 0.95 if confidence is None else checks.between("confidence", confidence, _LEAST, _MOST)
    usual = filters.MOST_PORTS if how is How.MDA else _DUBLIN_FLOWS
    most = checks.whole("flows", usual if flows is None else flows, 1, filters.MOST_PORTS)
    return Limits(confidence=sure, first_ttl=plan.first_ttl, max_ttl=plan.max_ttl, flows=most)


def _explored(
    jobs: Sequence[_Job], request: Request, *, stopped: Callable[[], bool] | None
) -> tuple[list[Traced], list[Missing]]:
    asked = [(job.target, job.source) for job in jobs]
    ways = origins(asked, request.netns)
    with Station(
        request.protocol,
        {job.target.family for job in jobs},
        port=request.port,
        source_port=request.source_port,
        netns=request.netns,
    ) as station:
        outlets = [Outlet(station, job.target, job.source) for job in jobs]
        places = {id(outlet): [place] for place, outlet in enumerate(outlets)}
        explorers = [
            Explorer(
                job.strategy,
                outlet.send,
                number=0,
                timeout_ns=request.plan.timeout_ns,
                marks=tracing.marks(request),
            )
            for job, outlet in zip(jobs, outlets, strict=True)
        ]
        begin_s = time.monotonic()
        refused = None
        try:
            loop.drive(
                explorers,
                lambda wait_ns: [(places[id(outlet)], answer) for outlet, answer in station.receive(wait_ns)],
                now_ns,
                pace.Pace(request.packets_per_s),
                stopped=stopped,
            )
        except KeyboardInterrupt:
            pass
        except ProbeError as error:
            refused = error
        for explorer in explorers:
            explorer.abandon()
        traces = [
            Traced(
                name=job.target.name,
                target=job.target,
                origin=way,
                ports=outlet.ports,
                runs=[explorer.runs[flow] for flow in sorted(explorer.runs)],
                error=refused,
            )
            for job, way, outlet, explorer in zip(jobs, ways, outlets, explorers, strict=True)
        ]
        return traces, [*losses(station), *leaving.changes(ways, asked, request.netns, begin_s)]


def _unsure(found: branches.Account) -> list[Missing]:
    if found["reached_confidence"] >= found["confidence"]:
        return []
    why = (
        f"all {found['flows']} flows were used"
        if found["flows_exhausted"]
        else "too few probes of some routers were answered"
    )
    detail = f"{why}: no branch is missing with confidence {found['reached_confidence']:.2f} only"
    return [Missing("branches", Gap.INCOMPLETE, None, detail)]


def _lossy(search: Search) -> list[Missing]:
    """Return that probes of flows that are answered at a TTL were lost there: silence may be loss, too."""
    cells = [cell for ttl in search.sightings.cells for _, cell in search.sightings.hop(ttl) if cell.heard]
    lost = sum(cell.lost for cell in cells)
    detail = (
        f"of {sum(cell.sent for cell in cells)} probes of flows that are answered there so many were not, "
        "which is loss: a branch that never answers looks alike, and where the two could not be told "
        "apart the confidence is lower"
    )
    return [Missing("branches", Gap.APPROXIMATE, lost, detail)] if lost else []
