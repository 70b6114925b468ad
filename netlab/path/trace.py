"""`netlab.traceroute` and `netlab.path.trace_many`: which way the packets go."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterable

import pandas as pd

from netlab import checks
from netlab.errors import BadInput
from netlab.frames import Gap, Missing
from netlab.kernel import netns as namespaces
from netlab.path import names, pace, progress as progress_bar, rows, target as targeting, tracing
from netlab.path.probes import Protocol
from netlab.path.requests import Request, request_of, stopped_by, tos_of
from netlab.path.rows import Traced
from netlab.path.sack import NoSackError

_MANY_PER_S = 10_000


@checks.options
def traceroute(
    target: str,
    *,
    protocol: str = "udp",
    port: int | None = None,
    family: int | None = None,
    first_ttl: int = 1,
    max_ttl: int = 30,
    queries: int = 3,
    timeout_s: float = 1.0,
    runs: int = 1,
    source_port: int | None = None,
    dscp: int = 0,
    ecn: int = 0,
    packets_per_s: int = pace.PER_SECOND,
    method: str = "auto",
    resolve: bool = False,
    netns: namespaces.NetNs = None,
    progress: bool = False,
    stop: threading.Event | None = None,
    seen: Callable[[pd.DataFrame], object] | None = None,
) -> pd.DataFrame:
    """Find the routers between this host and a target, and how long each takes to answer.

    All probes are of one flow (same addresses, ports and IPv6 flow label), so that a load balancer sends
    them all the same way and every pair of neighbouring hops is a real link. Probes to all TTLs are under
    way at once; silent hops are waited for together. Ctrl-C ends probing: what was heard until then is
    returned, and the coverage says so.

    Parameters
    ----------
    target
        A host name or an address. Of several addresses the first that this host has a route to.
    protocol
        "udp" datagrams, "tcp" SYNs (which never complete a connection), "icmp" echo requests, or "tcp-sack":
        data out of order within a real connection, which the target's application never gets. Where the
        target permits no selective acknowledgments, SYNs are sent: the rows and the coverage say so.
    port
        Destination port: 33434 for udp and 80 for tcp and tcp-sack unless given; icmp has none.
    family
        4 or 6 for that IP version only.
    first_ttl, max_ttl
        The TTLs (hop limits) to probe, 1 to 255.
    queries
        How many probes each TTL gets, 1 to 100.
    timeout_s
        How long the last silent probes are waited for, in seconds. A silent hop before one that answered
        gets less: three times that hop's round-trip time, at least 10 ms; so does a target that has answered
        others, at least 50 ms.
    runs
        How often to repeat the whole trace, with the same flow.
    source_port
        The flow's source port; the same ports take the same way through a load balancer again.
    dscp, ecn
        The service class of the probes, 0 to 63 (46 is that of voice), and their ECN bits, 0 to 3.
        `quoted_dscp` and `quoted_ecn` tell where they are rewritten.
    packets_per_s
        The most packets that are sent in any second, 1 to 100,000. Linux routers send 1000 ICMP errors in a
        second at most.
    method
        "raw" sockets, "unprivileged" ones, or "auto": raw where this process may open them (CAP_NET_RAW).
    resolve
        Whether to look up the names of the hops, after probing and for 2 seconds at most.
    netns
        Network namespace to probe from: a name under /run/netns, a path, or a process id. The target's
        name is still looked up in the caller's.
    progress
        Whether to show a progress bar over the runs.
    stop
        An event that ends probing when another thread sets it, as Ctrl-C does.
    seen
        Is called with the table so far a few times per second while probing, in the thread that probes: for
        who wants to show hops as they come.

    Returns
    -------
    DataFrame
        One row per probe, as in `netlab.schemas.HOPS`, by run, TTL and attempt; `address` is missing where
        nothing answered. It ends with the first TTL that the target answered (`reached`) or from which a
        router said that the packet cannot go on. `reached` goes by the kind of answer, not by the address: a
        host may tell from any of its own that a port is unreachable. A firewall that rejects datagrams so
        looks like the target, but for the address, which the coverage says; SYNs and echo requests it is seen
        to reject. Where the host refuses to send any more, in the middle, the last row is no probe and its
        `error` says why.

    Raises
    ------
    BadInput
        If an argument cannot be right.
    ProbeError
        If the target has no address or no route, the source port is taken, or the host refuses to send from
        the start.
    CapabilityError
        With `method="raw"` without CAP_NET_RAW, or with `netns` without CAP_SYS_ADMIN. Unprivileged, "icmp"
        takes a group in the sysctl net.ipv4.ping_group_range, and "tcp" Linux 6.2.

    Notes
    -----
    Each probe carries its number where load balancers do not look and eight quoted bytes show it, after
    Augustin et al., "Avoiding traceroute anomalies with Paris traceroute" (IMC 2006). Round-trip times run
    from the kernel's transmit timestamp to its receive timestamp (`clock` = kernel; see
    Documentation/networking/timestamping.rst) where it gives both.

    Without CAP_NET_RAW the flow is as constant, and ICMP errors come from the error queues of ordinary
    sockets (IP_RECVERR, ip(7)). Behind a NAT that leaves its own address in the packets that routers quote,
    hops are then missing: the kernel finds no socket for their answers. UDP asks again, one probe at a time,
    where a router quotes so little that its answer fits any of them. TCP is connect(2), one TTL after the
    other: a connection that completes is reset, each probe waits for 0.9 s at most, and TTLs behind the last
    one that answered get a single one.

    In asyncio, `await asyncio.to_thread(netlab.traceroute, ...)` keeps the loop free.

    Examples
    --------
    >>> import netlab
    >>> hops = netlab.traceroute("127.0.0.1")
    >>> hops[["ttl", "address", "reply", "reached"]].drop_duplicates().values.tolist()
    [[1, '127.0.0.1', 'port-unreachable', True]]
    """
    checks.flag("resolve", resolve)
    checks.flag("progress", progress)
    request = request_of(
        protocol=protocol,
        port=port,
        source_port=source_port,
        tos=tos_of(dscp, ecn),
        first_ttl=first_ttl,
        max_ttl=max_ttl,
        queries=queries,
        timeout_s=timeout_s,
        runs=runs,
        packets_per_s=packets_per_s,
        method=method,
        netns=netns,
    )
    show = _showing(request, seen)
    addresses = targeting.resolve(target, family, netns)
    with progress_bar.counting(runs, f"traceroute {target}", "run", shown=progress) as count:
        asked = [(target, addresses)]
        (traced,), missing = tracing.trace(request, asked, stopped=stopped_by(stop), on_run=count, seen=show)
        if isinstance(traced.error, NoSackError):
            detail = f"{traced.error.problem}: SYNs were sent instead"
            request = dataclasses.replace(request, protocol=Protocol.TCP)
            (traced,), missing = tracing.trace(
                request, asked, stopped=stopped_by(stop), on_run=count, seen=show
            )
            missing = [Missing("SACK probes", Gap.UNAVAILABLE, None, detail), *missing]
    if traced.error is not None and not traced.sent:
        raise traced.error
    return frame_of([traced], request, missing, resolve=resolve)


@checks.options
def trace_many(
    targets: Iterable[str],
    *,
    protocol: str = "udp",
    port: int | None = None,
    family: int | None = None,
    first_ttl: int = 1,
    max_ttl: int = 30,
    queries: int = 3,
    timeout_s: float = 1.0,
    runs: int = 1,
    source_port: int | None = None,
    dscp: int = 0,
    ecn: int = 0,
    packets_per_s: int = _MANY_PER_S,
    method: str = "auto",
    resolve: bool = False,
    netns: namespaces.NetNs = None,
    progress: bool = False,
    stop: threading.Event | None = None,
) -> pd.DataFrame:
    """Find the ways to many targets at once, over one pair of sockets for each IP version.

    The traces are those of `netlab.traceroute`, all from the same source port, and go on side by side: many
    take little longer than one. Routers near this host are on many of the ways and are asked once for each; a
    rate limit there looks like loss, which fewer `queries` or `packets_per_s` avoid.

    Parameters
    ----------
    targets
        Host names or addresses. One that cannot be resolved or reached does not stop the others.
    packets_per_s
        The most packets that are sent to all of them in any second, 1 to 100,000.
    progress
        Whether to show a progress bar over the targets and runs.
    protocol, port, family, first_ttl, max_ttl, queries, timeout_s
        As in `netlab.traceroute`.
    runs, source_port, dscp, ecn, method, resolve, netns, stop
        As in `netlab.traceroute`.

    Returns
    -------
    DataFrame
        As `netlab.schemas.HOPS`: the rows of each target in the order given; for one that could not be
        probed, or not to the end, a row whose `error` says why and which is no probe.

    Raises
    ------
    BadInput
        If an argument other than the name of a target cannot be right.
    CapabilityError
        As `netlab.traceroute`.

    Examples
    --------
    >>> from netlab.path import trace_many
    >>> hops = trace_many(["127.0.0.1", "no such host"])
    >>> hops.groupby("target")[["address", "error"]].count().values.tolist()
    [[3, 0], [0, 1]]
    """
    checks.flag("resolve", resolve)
    checks.flag("progress", progress)
    request = request_of(
        protocol=protocol,
        port=port,
        source_port=source_port,
        tos=tos_of(dscp, ecn),
        first_ttl=first_ttl,
        max_ttl=max_ttl,
        queries=queries,
        timeout_s=timeout_s,
        runs=runs,
        packets_per_s=packets_per_s,
        method=method,
        netns=netns,
    )
    asked = checks.several("targets", targets)
    if request.protocol is Protocol.SACK:
        raise BadInput("tcp-sack traces one target at a time", fix="Use tcp, or traceroute() for each target")
    if not asked:
        raise BadInput("targets is empty", fix="Give at least one host name or address")
    targeting.checked_family(family)
    known = targeting.resolve_all(asked, family, netns)
    with progress_bar.counting(runs * len(asked), "trace_many", "run", shown=progress) as count:
        traces, missing = tracing.trace(request, known, stopped=stopped_by(stop), on_run=count)
    return frame_of(traces, request, missing, resolve=resolve)


def _showing(
    request: Request, seen: Callable[[pd.DataFrame], object] | None
) -> Callable[[list[Traced]], object] | None:
    """Return what gives *seen* the frame of what was traced so far, if anybody wants to see it."""
    if seen is None:
        return None
    if not callable(seen):
        raise BadInput(f"seen {seen!r} cannot be called", fix="Give a function of one frame")
    under_way = Missing("answers", Gap.INCOMPLETE, None, "probing goes on, and more may come")
    return lambda traced: seen(frame_of(traced, request, [under_way], resolve=False))


def frame_of(
    traces: list[Traced], request: Request, missing: list[Missing], *, resolve: bool
) -> pd.DataFrame:
    """Return what was found as a frame, with the names of the hops if *resolve*."""
    found: dict[str, str] = {}
    if resolve:
        answers = (a for traced in traces for run in traced.runs for a in run.answers.values())
        found, unfinished = names.names_of(answer.address for answer in answers)
        missing = [*missing, *_unnamed(unfinished)]
    return rows.frame_of(traces, request.protocol.value, names=found, missing=missing)


def _unnamed(unfinished: int) -> list[Missing]:
    detail = f"the resolver did not answer within {names.WAIT_S:g} s"
    return [Missing("names", Gap.INCOMPLETE, unfinished, detail)] if unfinished else []
