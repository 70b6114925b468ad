"""`netlab.path.path_mtu`: how large packets may be on the way to a target."""

from __future__ import annotations

import fcntl
import socket
import struct
import threading
from collections.abc import Callable

import pandas as pd

from netlab import checks
from netlab.errors import ProbeError
from netlab.frames import Gap, Missing
from netlab.kernel import netns as namespaces
from netlab.path import mtu, target as targeting, tracing
from netlab.path.channel import SizedChannel
from netlab.path.engine import Plan
from netlab.path.methods import Method
from netlab.path.outlet import Outlet
from netlab.path.pace import PER_SECOND
from netlab.path.probes import Protocol
from netlab.path.requests import Request, ports_of, stopped_by
from netlab.path.rows import Traced
from netlab.path.station import Station
from netlab.schemas import PATH_MTU

_GET_MTU = 0x8921  # SIOCGIFMTU (linux/sockios.h)
_INTERFACE = struct.Struct("16si12x")  # struct ifreq
_LARGEST = 65535
_QUERIES = 2  # of each TTL, to learn the way


@checks.options
def path_mtu(
    target: str,
    *,
    protocol: str = "icmp",
    port: int | None = None,
    family: int | None = None,
    max_ttl: int = 30,
    timeout_s: float = 1.0,
    source_port: int | None = None,
    netns: namespaces.NetNs = None,
    stop: threading.Event | None = None,
) -> pd.DataFrame:
    """Find how large packets to a target may be, and which hops limit them, with or without a word.

    Parameters
    ----------
    target
        A host name or an address.
    protocol
        "icmp" echo requests, whose answers are as large and which few hosts limit, or "udp" datagrams, whose
        answers are small: then only the way there is tried.
    port
        Destination port of udp, 33434 unless given.
    family
        4 or 6 for that IP version only.
    max_ttl
        The largest TTL (hop limit), 1 to 255.
    timeout_s
        How long a silent probe is waited for, in seconds, at most: three times the slowest round trip and at
        least 50 ms.
    source_port
        Source port of udp. Load balancers choose by it: with the one of a flow, that flow's way is tried.
    netns
        Network namespace to probe from: a name under /run/netns, a path, or a process id.
    stop
        An event that ends probing when another thread sets it; the coverage then says so.

    Returns
    -------
    DataFrame
        One row per limit from here to the target, columns as in `netlab.schemas.PATH_MTU`: first the own
        interface's, then each that is smaller, the hop before it, and whether it said so. **The last row is
        the path MTU.** Where the target does not answer it is that of the way to the last hop that does,
        and the coverage says so.

    Raises
    ------
    BadInput
        If an argument cannot be right.
    ProbeError
        If the target has no address or no route, or the host refuses to send.
    CapabilityError
        Without CAP_NET_RAW, or with `netns` without CAP_SYS_ADMIN; `netlab.connect().path_mtu()` asks an
        agent, which has them.

    Notes
    -----
    Probes may not be cut (RFC 1191, RFC 8201). What passes a hole, a link that drops what is too large
    without an ICMP error, is found by halving (RFC 8899): at most 16 sizes, each beside a small probe that
    must be answered, so that loss or a rate limit is no hole. The kernel learns from the ICMP errors, too:
    `ip route get` shows what it remembers for the target.

    Examples
    --------
    >>> import netlab
    >>> netlab.path.path_mtu("127.0.0.1")[["ttl", "told"]].values.tolist()
    [[0, 'interface']]
    """
    kind = Protocol(checks.choice("protocol", protocol, [Protocol.ICMP, Protocol.UDP]))
    port, source_port = ports_of(kind, port, source_port)
    plan = Plan(
        first_ttl=1,
        max_ttl=checks.whole("max_ttl", max_ttl, 1, 255),
        queries=_QUERIES,
        timeout_ns=round(checks.positive("timeout_s", timeout_s, unit="seconds", most=60) * 10**9),
    )
    namespaces.path(netns)
    request = Request(
        method=Method.RAW,
        protocol=kind,
        port=port,
        source_port=source_port,
        plan=plan,
        runs=1,
        packets_per_s=PER_SECOND,
        netns=netns,
    )
    stopped = stopped_by(stop)
    asked = [(target, targeting.resolve(target, family, netns))]
    (traced,), missing = tracing.trace(request, asked, stopped=stopped)
    if traced.error is not None:
        raise traced.error
    limits, lacking = _limits(traced, request, stopped)
    return frame_of(traced, kind, limits, [*missing, *lacking])


def _limits(
    traced: Traced, request: Request, stopped: Callable[[], bool] | None
) -> tuple[list[mtu.Limit], list[Missing]]:
    """Return the limits on the way of a trace by small probes, and what is not known of them."""
    target, origin = traced.target, traced.origin
    assert target is not None and origin is not None  # noqa: S101, PT018 - there was no error
    most_bytes = _interface_mtu(origin.interface, request.netns)
    own = mtu.Limit(mtu_bytes=most_bytes, ttl=0, address=origin.source_address, told=mtu.INTERFACE)
    answered = [(probe, answer) for run in traced.runs for probe, answer in run.reported() if answer]
    way = mtu.way_of(answered)
    if way is None:
        return [own], [Missing("path MTU", Gap.UNAVAILABLE, None, "nothing on the way answers")]
    lacking = []
    if not any(answer.reached for _, answer in answered):
        detail = f"the target does not answer: the last row is for the way to TTL {way.end_ttl}"
        lacking.append(Missing("path MTU", Gap.INCOMPLETE, None, detail))
    source = socket.inet_pton(targeting.FAMILIES[target.family], origin.source_address)
    with Station(
        request.protocol,
        [target.family],
        port=request.port,
        source_port=traced.ports[0][0],  # the flow whose way this is
        netns=request.netns,
    ) as station:
        channel = SizedChannel(station, Outlet(station, target, source))
        search = mtu.Search(channel, way, request.plan.timeout_ns, stopped=stopped)
        try:
            search.run(min(most_bytes, _LARGEST))
        except mtu.Gone as gone:
            detail = f"{gone}: there may be smaller limits"
            lacking.append(Missing("path MTU", Gap.INCOMPLETE, None, detail))
    return [own, *search.limits], lacking


def _interface_mtu(name: str | None, netns: namespaces.NetNs) -> int:
    try:
        with namespaces.entered(netns), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            told = fcntl.ioctl(sock, _GET_MTU, _INTERFACE.pack(str(name).encode(), 0))
    except OSError as error:
        raise ProbeError(
            f"cannot read the MTU of interface {name!r}: {error.strerror}", fix="Look at `ip link`"
        ) from error
    return int(_INTERFACE.unpack(told)[1])


def frame_of(traced: Traced, kind: Protocol, limits: list[mtu.Limit], missing: list[Missing]) -> pd.DataFrame:
    """Return the limits on the way of a trace as a frame."""
    target, origin = traced.target, traced.origin
    constant = {
        name: getattr(origin, name, None) for name in ("trace", "host", "netns", "source_address")
    } | {
        "target": traced.name,
        "target_address": target.address if target else None,
        "family": target.family if target else None,
        "protocol": kind.value,
        "at": pd.Timestamp.now(tz="UTC"),
    }
    data = {name: [value] * len(limits) for name, value in constant.items()} | {
        "mtu_bytes": [limit.mtu_bytes for limit in limits],
        "ttl": [limit.ttl for limit in limits],
        "address": [limit.address for limit in limits],
        "told": [limit.told for limit in limits],
    }
    return PATH_MTU.frame(data, missing)
