"""The whole way of one connection on this host: its socket, translations, routes, and the other end."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from netlab import addresses, checks
from netlab.errors import BadInput, NetlabError
from netlab.foreign import escaped
from netlab.frames import Gap, Missing
from netlab.kernel import netns as namespaces
from netlab.tracer import stations
from netlab.tracer.stations import FourTuple, Line, Station
from netlab.tracer.walk import Flow, Walk

_ENDS = ["local_address", "local_port", "remote_address", "remote_port"]
_NEEDED = ["protocol", *_ENDS, "netns"]
_HOPS = ["target_address", "ttl", "address", "rtt_ms", "reached"]
_MAKERS = "Capture.connections() or netlab.connections()"
_UNSPECIFIED = {"0.0.0.0", "::"}  # noqa: S104 - nothing is bound
_NO_PEER = "this socket has no peer: there is no way to follow"
_NO_SPACE = "the row does not say in which network namespace it is"
_ENDED = "it has ended: routes and sockets are those of now"
_LONGEST_CELL = 2000  # characters
_STATELESS = {"closed", "time-wait"}


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Explanation:
    """What one connection passes, as a frame; shown as text and, in a notebook, as a table."""

    frame: pd.DataFrame
    lines: tuple[Line, ...]

    def __repr__(self) -> str:
        """Return a line for each station, the connection itself first."""
        where, what = (max(len(line[column]) for line in self.lines) for column in (0, 1))
        told = [f"{line.where:{where}}  {line.what:{what}}  {line.said}".rstrip() for line in self.lines]
        return "\n".join([*told, *(f"  gap: {gap}" for gap in self._gaps())])

    def _repr_html_(self) -> str:
        rows = "".join(
            "<tr>"
            + "".join(f"<td style='text-align:left'>{escaped(cell, _LONGEST_CELL)}</td>" for cell in line)
            + "</tr>"
            for line in self.lines
        )
        gaps = "".join(f"<li>{escaped(gap, _LONGEST_CELL)}</li>" for gap in self._gaps())
        head = "<tr><th>namespace</th><th>station</th><th></th></tr>"
        table = f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"
        return table + (f"<ul>{gaps}</ul>" if gaps else "")

    def _gaps(self) -> list[str]:
        return [f"{gap['what']}: {stations.plain(gap['detail'])}" for gap in self.frame.attrs["coverage"]]


@checks.options
def explain(
    row: pd.Series[Any] | Mapping[str, Any] | pd.DataFrame, *, hops: pd.DataFrame | None = None
) -> Explanation:
    """Tell which way a connection's packets go on this host: namespaces, translations, routes, the other end.

    Parameters
    ----------
    row
        One row of what `Capture.connections()` or `netlab.connections()` returned on this host: a Series, a
        dict, or a DataFrame of one row.
    hops
        What `netlab.traceroute` returned for the peer's address, before or after translation: its hops follow
        the other stations.

    Returns
    -------
    Explanation
        Shown as a line for each station. `frame` has one row for each, columns as in
        `netlab.schemas.EXPLANATION`; what could not be found out is in a station's `detail` and in the
        coverage, with the fix.

    Raises
    ------
    BadInput
        If *row* is not one row of connections, or *hops* is no trace of this peer.

    Notes
    -----
    The packets that this end sends are followed, as the kernel would treat one now: the conntrack entry of
    each namespace (in the default zone), its routing of what came in by that interface (RTM_GETROUTE with
    RTA_IIF), the other end of veth pairs (IFLA_LINK, IFLA_LINK_NETNSID) and bridges' forwarding tables. No
    packet is sent. What eBPF programs or stateless rules rewrite is not seen.

    Examples
    --------
    >>> import netlab, socket
    >>> with socket.create_server(("127.0.0.1", 0)) as server:
    ...     with socket.create_connection(server.getsockname()) as client:
    ...         now = netlab.connections(port=server.getsockname()[1])
    ...         told = netlab.explain(now[now.direction == "outgoing"])
    >>> told.frame.station.tolist()
    ['socket', 'route', 'peer']
    """
    values = _values(row)
    traced = None if hops is None else _trace(hops)
    flow = _flow(values)
    found = [_socket(values)]
    missing = []
    if isinstance(flow, Flow):
        walk = Walk(flow)
        walk.go()
        found += walk.stations
        missing += walk.missing
    else:
        missing.append(Missing("stations", Gap.UNAVAILABLE, None, flow))
    if _has_ended(values):
        missing.append(Missing("stations", Gap.APPROXIMATE, None, _ENDED))
    if traced is not None:
        found += _hops(traced, found)
    names = _names()
    return Explanation(stations.framed(found, names, missing), tuple(stations.lines(found, names)))


def _values(row: Any) -> dict[str, Any]:
    """Return the row's values; None is what is missing."""
    fix = f"Pass one row of what {_MAKERS} returned, such as frame.iloc[0]"
    if isinstance(row, pd.DataFrame):
        if len(row) != 1:
            raise BadInput(f"explain() takes one row, and this frame has {len(row)}", fix=fix)
        row = row.iloc[0]
    if not isinstance(row, pd.Series | Mapping):
        raise BadInput(f"explain() takes a row of connections, not {type(row).__name__} objects", fix=fix)
    values = {str(name): None if _is_missing(value) else value for name, value in row.items()}
    lacking = [name for name in _NEEDED if name not in values]
    if lacking:
        raise BadInput(f"this row has no {lacking[0]!r}", fix=fix)
    return values


def _is_missing(value: Any) -> bool:
    return value is None or (pd.api.types.is_scalar(value) and bool(pd.isna(value)))


def _whole(values: Mapping[str, Any], name: str, most: int) -> int | None:
    value = values.get(name)
    return None if value is None else checks.whole(name, value, 0, most)


def _packet(values: Mapping[str, Any], prefix: str = "") -> FourTuple | None:
    """Return the packet that this end sends, or None where an end is not known."""
    names = [prefix + name for name in _ENDS]
    local, local_port, remote, remote_port = (values.get(name) for name in names)
    if None in {local, local_port, remote, remote_port} or str(remote) in _UNSPECIFIED:
        return None
    try:
        source, target = (addresses.canonical(str(address)) for address in (local, remote))
    except ValueError as error:
        raise BadInput(
            f"this row's addresses are none: {error}", fix=f"Pass a row that {_MAKERS} returned"
        ) from error
    if (":" in source) != (":" in target):
        raise BadInput(
            f"{source} and {target} are of two families", fix=f"Pass a row that {_MAKERS} returned"
        )
    ports = [checks.port(port, name) for port, name in ((local_port, names[1]), (remote_port, names[3]))]
    return FourTuple(source, ports[0], target, ports[1])


def _flow(values: Mapping[str, Any]) -> Flow | str:
    """Return what to follow, or why nothing can be."""
    protocol = checks.choice("protocol", values["protocol"], ("tcp", "udp"))
    packet = _packet(values)
    if packet is None:
        return _NO_PEER
    netns = _whole(values, "netns", 2**32 - 1)
    if netns is None:
        return _NO_SPACE
    return Flow(
        protocol=protocol,
        packet=packet,
        beyond=_packet(values, "nat_"),
        netns=netns,
        answers=values.get("direction") == "incoming",
        lasting=protocol == "tcp" and not _has_ended(values),
        uid=_whole(values, "uid", 2**32 - 2),
        mark=_whole(values, "mark", 2**32 - 1),
        bound=_whole(values, "bound_ifindex", 2**31 - 1) or 0,
    )


def _has_ended(values: Mapping[str, Any]) -> bool:
    return values.get("closed_at") is not None or values.get("state") in _STATELESS


def _socket(values: Mapping[str, Any]) -> Station:
    """Return the station that the row itself is."""
    return Station(
        "socket",
        netns=_whole(values, "netns", 2**32 - 1),
        protocol=checks.choice("protocol", values["protocol"], ("tcp", "udp")),
        packet=_packet(values),
        state=values.get("state"),
        pid=_whole(values, "pid", 2**32 - 1),
        process=_text(values, "process"),
        error=_text(values, "error"),
        reason=_text(values, "reason"),
        source="connection",
        detail=_ENDED if _has_ended(values) else None,
    )


def _text(values: Mapping[str, Any], name: str) -> str | None:
    value = values.get(name)
    return None if value is None else str(value)


def _trace(hops: object) -> pd.DataFrame:
    columns = getattr(hops, "columns", ())
    lacking = [name for name in _HOPS if name not in columns]
    if lacking or not isinstance(hops, pd.DataFrame):
        raise BadInput("hops is no trace", fix="Pass what netlab.traceroute() returned")
    return hops


def _hops(traced: pd.DataFrame, found: Sequence[Station]) -> list[Station]:
    """Return who answered at each TTL up to the end, of the trace to the last destination that was traced."""
    wanted = dict.fromkeys(packet.dst for one in found for packet in (one.packet, one.new) if packet)
    probes = traced.dropna(subset=["ttl"])  # a target that could not be probed is a row without
    traced_to = [address for address in wanted if address in set(probes["target_address"])]
    if not traced_to:
        targets = sorted(map(str, probes["target_address"].dropna().unique()))
        raise BadInput(
            f"hops leads to {', '.join(targets[:3]) or 'nowhere'}, not to this connection's peer",
            fix=f"Pass the trace to {' or '.join(sorted(wanted))}",
        )
    known = probes[probes["target_address"] == traced_to[-1]]
    end = known.loc[known["reached"].fillna(value=False), "ttl"].min()
    known = known if pd.isna(end) else known[known["ttl"] <= end]  # behind a lost answer the end is met again
    stops = known.groupby(["ttl", "address"], dropna=False)["rtt_ms"].median().reset_index()
    heard = stops["ttl"].isin(stops.loc[stops["address"].notna(), "ttl"])
    stops = stops[stops["address"].notna() | ~heard].astype(object)
    return [
        Station("hop", ttl=ttl, address=address, rtt_ms=rtt_ms, source="traceroute")
        for ttl, address, rtt_ms in stops.where(stops.notna(), None).itertuples(index=False, name=None)
    ]


def _names() -> dict[int, str]:
    """Return the names of namespaces by inode."""
    found = {}
    for name in namespaces.names():
        with contextlib.suppress(NetlabError):
            found[namespaces.inode(name)] = name
    return found
