"""`netlab.traceroute`: which way the packets go."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable

import pandas as pd

from netlab import checks
from netlab.errors import BadInput
from netlab.frames import Gap, Missing
from netlab.kernel import netns as namespaces
from netlab.path import engine, names, rows
from netlab.path.pace import Pace
from netlab.path.probes import MARKS, Protocol
from netlab.path.sockets import RawChannel
from netlab.path.state import Run
from netlab.path.target import resolve as addresses_of, routed

_PORTS = {
    Protocol.UDP: 33434,  # the port range traceroute has used since 1988; nothing listens there
    Protocol.TCP: 80,  # what firewalls let through most often, and what traceroute -T takes
}
_NO_PORT = 0


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
    resolve: bool = False,
    netns: namespaces.NetNs = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Find the routers between this host and a target, and how long each takes to answer.

    All probes are of one flow (same addresses, ports and IPv6 flow label), so that a load balancer sends
    them all the same way and every pair of neighbouring hops is a real link. Probes to all TTLs are under
    way at once; silent hops are waited for together. Never more than 1000 packets are sent in a second.

    Parameters
    ----------
    target
        A host name or an address. Of several addresses the first that this host has a route to.
    protocol
        "udp" datagrams, "tcp" SYNs (which never complete a connection) or "icmp" echo requests.
    port
        Destination port: 33434 for udp and 80 for tcp unless given; icmp has none.
    family
        4 or 6 for that IP version only.
    first_ttl, max_ttl
        The TTLs (hop limits) to probe, 1 to 255.
    queries
        How many probes each TTL gets, 1 to 100.
    timeout_s
        How long the last silent probes are waited for, in seconds. A silent hop before one that answered
        gets less: three times that hop's round-trip time, at least 10 ms.
    runs
        How often to repeat the whole trace, with the same flow.
    source_port
        The flow's source port; the same ports take the same way through a load balancer again.
    resolve
        Whether to look up the names of the hops, after probing and for 2 seconds at most.
    netns
        Network namespace to probe from: a name under /run/netns, a path, or a process id. The target's
        name is still looked up in the caller's.
    progress
        Whether to show a progress bar over the runs.

    Returns
    -------
    DataFrame
        One row per probe, as in `netlab.schemas.HOPS`, by run, TTL and attempt; `address` is missing where
        nothing answered. It ends with the first TTL that the target answered (`reached`) or from which a
        router said that the packet cannot go on. `reached` goes by the kind of answer, not the address,
        so a firewall that rejects with port-unreachable looks like the target.

    Raises
    ------
    BadInput
        If an argument cannot be right.
    ProbeError
        If the target has no address or no route, the source port is taken, or the host refuses to send.
    CapabilityError
        Without CAP_NET_RAW, or with `netns` without CAP_SYS_ADMIN.

    Notes
    -----
    Each probe carries its number where load balancers do not look and eight quoted bytes show it, after
    Augustin et al., "Avoiding traceroute anomalies with Paris traceroute" (IMC 2006). Round-trip times run
    from the wall clock just before the send to the kernel's receive timestamp (`clock` = kernel).

    Examples
    --------
    >>> import netlab
    >>> hops = netlab.traceroute("127.0.0.1")
    >>> hops[["ttl", "address", "reply", "reached"]].drop_duplicates().values.tolist()
    [[1, '127.0.0.1', 'port-unreachable', True]]
    """
    kind = Protocol(checks.choice("protocol", protocol, list(Protocol)))
    port, source_port = ports(kind, port, source_port)
    plan = engine.Plan(
        first_ttl=checks.whole("first_ttl", first_ttl, 1, checks.whole("max_ttl", max_ttl, 1, 255)),
        max_ttl=max_ttl,
        queries=checks.whole("queries", queries, 1, 100),
        timeout_ns=round(checks.positive("timeout_s", timeout_s, unit="seconds", most=60) * 10**9),
    )
    checks.whole("runs", runs, 1, 100_000)
    namespaces.path(netns)
    chosen, source = routed(addresses_of(target, family), netns)
    with RawChannel(kind, chosen, source, port=port, source_port=source_port, netns=netns) as channel:
        done = _runs(plan, channel, _counted(runs, target, progress=progress))
    missing = _losses(channel)
    found: dict[str, str] = {}
    if resolve:
        found, unfinished = names.names_of(answer.address for run in done for answer in run.answers.values())
        missing += _unnamed(unfinished)
    return rows.frame(done, chosen, kind.value, channel.ports, names=found, missing=missing)


def ports(kind: Protocol, port: int | None, source_port: int | None) -> tuple[int, int | None]:
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


def _counted(runs: int, target: str, *, progress: bool) -> Iterable[int]:
    if not progress:
        return range(runs)
    from tqdm.auto import tqdm

    return tqdm(range(runs), desc=f"traceroute {target}", unit="run")  # type: ignore[no-any-return]


def _runs(plan: engine.Plan, channel: engine.Channel, numbers: Iterable[int]) -> list[Run]:
    # Going on with the marks from run to run keeps an answer that comes a run late from fitting anything;
    # starting anywhere does the same for the next trace from this port.
    start = random.randrange(MARKS)  # noqa: S311 - no secret
    marks = (1 + number % MARKS for number in itertools.count(start))
    pace = Pace()
    done = []
    for number in numbers:
        done.append(Run(number))
        engine.probe_path(plan, channel, done[-1], pace=pace, marks=marks)
    return done


def _losses(channel: RawChannel) -> list[Missing]:
    lost = [
        Missing(
            "answers", Gap.LOST, channel.dropped, "the sockets' buffers were full: this host was too busy"
        ),
        Missing("answers", Gap.UNSEEN, channel.unreadable, "packets that are not what they claim to be"),
    ]
    return [item for item in lost if item.count]


def _unnamed(unfinished: int) -> list[Missing]:
    detail = f"the resolver did not answer within {names.WAIT_S:g} s"
    return [Missing("names", Gap.INCOMPLETE, unfinished, detail)] if unfinished else []
