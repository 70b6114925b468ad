"""Connections as a graph: who talks to whom, through which translations and gateways."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import networkx as nx
import numpy as np
import numpy.typing as npt
import pandas as pd

from netlab import checks
from netlab.errors import BadInput
from netlab.frames import Gap, Missing
from netlab.schemas import CONNECTIONS

Graph: TypeAlias = "nx.MultiDiGraph[tuple[Hashable, ...]]"
Codes: TypeAlias = npt.NDArray[np.intp]

_NEEDED = ["protocol", "direction", "local_address", "local_port", "remote_address", "remote_port"]
_TEXTS = [
    "process",
    "container",
    "cmdline",
    "remote_name",
    "error",
    "via_gateway",
    "via_mac",
    "via_interface",
]
_NAT = ["nat_local_address", "nat_local_port", "nat_remote_address", "nat_remote_port"]
_NUMBERS = ["netns", "pid", "bytes_sent", "bytes_received", "retransmits", "rtt_ms"]
_UNSPECIFIED = ["0.0.0.0", "::"]  # noqa: S104 - nothing is bound
_LOCAL = r"127\.|::1$|fe80:"  # loopback and link-local
_SUMS = ["bytes_sent", "bytes_received", "retransmits"]
_BY = ("process", "pid")
_PEERLESS = "sockets without a peer are no connections"
_LOWER = "not counted for these connections: the sums of their edges are lower bounds"


@dataclass(frozen=True, slots=True)
class _Nodes:
    """The nodes of one kind: their keys and attributes, and which one each row has (-1: none)."""

    keys: list[tuple[Hashable, ...]]
    attributes: list[dict[str, Any]]
    codes: Codes

    def after(self, others: int) -> Codes:
        """Return the codes, counted on from those of the nodes before."""
        return np.where(self.codes < 0, -1, self.codes + others)


def connection_graph(connections: pd.DataFrame, *, by: str = "process") -> Graph:
    """Draw connections as a graph: processes, addresses, translations and gateways.

    Edges go from who opened the connection to who was called: from a process to an address, or from an
    address to a process. A translated connection goes through a translation in between. What is reached by a
    gateway has an edge to it.

    Parameters
    ----------
    connections
        What `Capture.connections()`, `netlab.connections()` or a recording has; of several hosts, if it has a
        column `host`.
    by
        "process": one node for all processes of one command name in one container; "pid": one for each.

    Returns
    -------
    MultiDiGraph
        A node is a tuple that begins with its kind, which is also its `kind`: process (`process`,
        `container`, `cmdline`, `pids`: how many), address (`address`, `name`, of loopback also `netns`),
        translation (`nat`, `direction`, `service` and `service_port`: who was called, as the socket sees it,
        `new_service` and `new_service_port`: what that is translated to, `client`: the address that stands
        for the caller), gateway (`address`, `mac`, `interface`). All have `host`,
        `connections` and `failures`.

        An edge stands for all connections between its ends to one port: its key is ``"tcp/443"``, of an edge
        to a gateway ``"outgoing tcp/443"``. It has
        `kind` (connects, translated, via), `direction`, `protocol`, `port`, `connections`, `failures`,
        `error` (the most frequent), `errors` (how many different ones), `bytes_sent`, `bytes_received`,
        `retransmits` and `rtt_ms` (median). The port is that of who was called, and None where that is not
        known. What is not known is None.

        The graph has the frame's `coverage`.

    Raises
    ------
    BadInput
        If the frame is of another kind.

    Examples
    --------
    >>> import netlab
    >>> graph = netlab.connection_graph(netlab.connections())
    >>> sorted({kind for _, kind in graph.nodes(data="kind")} - {"process", "address"})
    []
    """
    checks.choice("by", by, _BY)
    table = _table(connections)
    peers = table["remote_address"].notna() & ~table["remote_address"].isin(_UNSPECIFIED)
    whole, table = len(table), table[peers].reset_index(drop=True)
    ends = _ends(table)
    kinds = [_processes(table, by), _addresses(table, ends), _translations(table, ends), _gateways(table)]
    graph: Graph = nx.MultiDiGraph(coverage=_coverage(connections, table, whole))
    failed = table["error"].notna().to_numpy()
    for nodes in kinds:
        graph.add_nodes_from(_counted(nodes, failed))
    for near, far, key, edge in _edges(table, ends, kinds):
        graph.add_edge(near, far, key=key, **edge)
    return graph


def _table(connections: object) -> pd.DataFrame:
    """Return the columns that count, with the schema's dtypes; those that the frame lacks are missing."""
    fix = "Pass what Capture.connections() or netlab.connections() returned"
    if not isinstance(connections, pd.DataFrame):
        raise BadInput(
            f"connection_graph() takes connections, not {type(connections).__name__} objects", fix=fix
        )
    lacking = [name for name in _NEEDED if name not in connections.columns]
    if lacking:
        raise BadInput(f"this frame has no column {lacking[0]!r}", fix=fix)
    wanted = [*_NEEDED, *_TEXTS, *_NAT, *_NUMBERS]
    try:
        known = {name: connections[name].array for name in wanted if name in connections}
        table = CONNECTIONS.frame(known)[wanted]
        host = connections["host"].array if "host" in connections else [None] * len(table)
        return table.assign(host=pd.array(host, "string"))
    except (TypeError, ValueError) as error:
        raise BadInput(f"connection_graph() cannot read this frame: {error}", fix=fix) from error


def _ends(table: pd.DataFrame) -> pd.DataFrame:
    """Return who was called and who called, as the socket sees them and beyond the translation.

    *service* is the end that was called. Where it is not known which one that is, the peer counts as called,
    and has no port.
    """
    incoming = table["direction"].eq("incoming").fillna(value=False).astype(bool)
    outgoing = table["direction"].eq("outgoing").fillna(value=False).astype(bool)
    known = table["direction"].astype("string").fillna("unknown")
    found: dict[str, pd.Series[Any]] = {"incoming": incoming, "direction": known}
    for prefix, name in (("", "{}"), ("nat_", "new_{}")):
        for what in ("address", "port"):
            local, remote = table[f"{prefix}local_{what}"], table[f"{prefix}remote_{what}"]
            found[name.format(f"service_{what}")] = local.where(incoming, remote)
            found[name.format(f"client_{what}")] = remote.where(incoming, local)
    ends = pd.DataFrame(found)
    ends["dnat"] = _differ(ends, "service")
    ends["snat"] = _differ(ends, "client")
    for name in ("service_port", "new_service_port"):
        ends[name] = ends[name].where(incoming | outgoing)
    ends["peer"] = table["nat_remote_address"].fillna(table["remote_address"])
    return ends


def _differ(ends: pd.DataFrame, end: str) -> pd.Series[bool]:
    """Tell at which connections an end is another one beyond the translation."""
    differ: pd.Series[bool] = pd.Series(np.zeros(len(ends)), index=ends.index, dtype=bool)
    for what in ("address", "port"):
        differs = ends[f"{end}_{what}"].ne(ends[f"new_{end}_{what}"])
        differ |= differs.fillna(value=False).astype(bool)  # not known is not told
    return differ


# -- nodes -----------------------------------------------------------------------------------------------


def _grouped(
    kind: str, key: pd.DataFrame, only: pd.Series[bool], more: Mapping[str, pd.Series[Any]] | None = None
) -> _Nodes:
    """Make a node of each distinct key; *more* are what all its rows have, None if they differ."""
    chosen = key[only]
    grouped = chosen.groupby(list(chosen), dropna=False, sort=False, observed=True)
    codes = np.full(len(key), -1, np.intp)
    codes[only.to_numpy()] = grouped.ngroup().to_numpy()
    attributes = chosen.loc[~chosen.duplicated()].reset_index(drop=True)
    for name, values in (more or {}).items():
        attributes[name] = _common(values[only].to_numpy(object), codes[only.to_numpy()], len(attributes))
    records = _plain(attributes)
    names = [str(name) for name in key]
    keys: list[tuple[Hashable, ...]] = [(kind, *(record[name] for name in names)) for record in records]
    return _Nodes(keys, [{"kind": kind, **record} for record in records], codes)


def _common(values: npt.NDArray[Any], codes: Codes, count: int) -> npt.NDArray[Any]:
    """Return the value that all rows of a node have which have one; None if they differ."""
    frame = pd.DataFrame({"code": codes, "value": values}).dropna().drop_duplicates()
    frame = frame[~frame["code"].duplicated(keep=False)]
    found = np.full(count, None, object)
    found[frame["code"].to_numpy()] = frame["value"].to_numpy()
    return found


def _plain(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows of plain Python values; missing ones are None."""
    columns = {
        str(name): values.astype(object).where(values.notna(), None).tolist()
        for name, values in frame.items()
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _processes(table: pd.DataFrame, by: str) -> _Nodes:
    pid = table["pid"] if by == "pid" else table["pid"].where(table["process"].isna())
    key = table[["host", "container", "process"]].assign(pid=pid)
    nodes = _grouped("process", key, _every(table), {"cmdline": table["cmdline"]})
    pids = table["pid"].groupby(nodes.codes).nunique()
    for place, count in pids.items():
        nodes.attributes[int(str(place))]["pids"] = int(count) or None
    return nodes


def _addresses(table: pd.DataFrame, ends: pd.DataFrame) -> _Nodes:
    """Make nodes of the peers beyond the translation.

    An address is the same one, whoever talks to it, except those that every network namespace has.
    """
    local = ends["peer"].str.match(_LOCAL).astype(bool)
    key = pd.DataFrame(
        {"host": table["host"].where(local), "netns": table["netns"].where(local), "address": ends["peer"]}
    )
    return _grouped("address", key, _every(table), {"name": table["remote_name"]})


def _every(table: pd.DataFrame) -> pd.Series[bool]:
    every: pd.Series[bool] = pd.Series(np.ones(len(table)), index=table.index, dtype=bool)
    return every


def _translations(table: pd.DataFrame, ends: pd.DataFrame) -> _Nodes:
    dnat, snat = ends["dnat"], ends["snat"]
    both = np.select([dnat & snat, dnat, snat], ["both", "dnat", "snat"], "none")
    stands = ends["client_address"].where(ends["incoming"], ends["new_client_address"])
    key = pd.DataFrame(
        {
            "host": table["host"],
            "direction": ends["direction"],
            "protocol": table["protocol"],
            "nat": both,
            "service": ends["service_address"],
            "service_port": ends["service_port"],
            "new_service": ends["new_service_address"].where(dnat),
            "new_service_port": ends["new_service_port"].where(dnat),
            "client": stands.where(snat),
        }
    )
    return _grouped("translation", key, dnat | snat)


def _gateways(table: pd.DataFrame) -> _Nodes:
    names = {"host": "host", "via_gateway": "address", "via_mac": "mac"}
    key = table[list(names)].rename(columns=names)
    return _grouped("gateway", key, key["address"].notna(), {"interface": table["via_interface"]})


def _counted(
    nodes: _Nodes, failed: npt.NDArray[np.bool_]
) -> Iterable[tuple[tuple[Hashable, ...], dict[str, Any]]]:
    has, size = nodes.codes >= 0, len(nodes.keys)
    total = np.bincount(nodes.codes[has], minlength=size).tolist()
    failures = np.bincount(nodes.codes[has & failed], minlength=size).tolist()
    for key, attributes, count, bad in zip(nodes.keys, nodes.attributes, total, failures, strict=True):
        yield key, attributes | {"connections": count, "failures": bad}


# -- edges -----------------------------------------------------------------------------------------------


def _edges(
    table: pd.DataFrame, ends: pd.DataFrame, kinds: list[_Nodes]
) -> Iterable[tuple[tuple[Hashable, ...], tuple[Hashable, ...], str, dict[str, Any]]]:
    keys = [key for nodes in kinds for key in nodes.keys]
    starts = np.cumsum([0, *(len(nodes.keys) for nodes in kinds)])
    process, address, translation, gateway = (
        nodes.after(start) for nodes, start in zip(kinds, starts[:-1].tolist(), strict=True)
    )
    first = np.where(translation < 0, address, translation)
    beyond = ends["new_service_port"].where(ends["dnat"], ends["service_port"])
    parts = [
        _part(table, ends, "connects", (process, first), ends["service_port"]),
        _part(table, ends, "translated", (translation, address), beyond),
        _part(table, ends, "via", (first, gateway), ends["service_port"]),
    ]
    for edge in _summed(pd.concat(parts, ignore_index=True)):
        source, target = keys[edge.pop("source")], keys[edge.pop("target")]
        key = service_key(edge)
        yield source, target, f"{edge['direction']} {key}" if edge["kind"] == "via" else key, edge


def service_key(edge: Mapping[str, Any]) -> str:
    """Return what an edge leads to, such as ``tcp/443``; without the port where that is not known."""
    return "/".join(str(edge[name]) for name in ("protocol", "port") if edge[name] is not None)


def _part(
    table: pd.DataFrame, ends: pd.DataFrame, kind: str, between: tuple[Codes, Codes], port: pd.Series[Any]
) -> pd.DataFrame:
    """Return one edge for each connection that has both nodes; incoming ones are turned round."""
    near, far = between
    has = (near >= 0) & (far >= 0)
    incoming = ends["incoming"].to_numpy() & (kind != "via")
    return table.loc[has, ["protocol", "error", *_SUMS, "rtt_ms"]].assign(
        kind=kind,
        direction=ends.loc[has, "direction"],
        source=np.where(incoming, far, near)[has],
        target=np.where(incoming, near, far)[has],
        port=port[has],
    )


def _summed(each: pd.DataFrame) -> Iterable[dict[str, Any]]:
    """Add up the connections of each edge."""
    names = ["source", "target", "kind", "protocol", "port", "direction"]
    each = each.astype({"protocol": "string"})
    code = np.asarray(each.groupby(names, dropna=False, sort=False).ngroup(), np.intp)
    edges = each.loc[~pd.Series(code).duplicated().to_numpy(), names].reset_index(drop=True)
    size = len(edges)
    edges["connections"] = np.bincount(code, minlength=size)
    edges["failures"] = np.bincount(code[each["error"].notna().to_numpy()], minlength=size)
    edges["errors"] = each["error"].astype("string").groupby(code).nunique().reindex(range(size)).array
    edges["error"] = _most_frequent(each["error"].astype("string"), code).reindex(range(size)).array
    for name in _SUMS:
        edges[name] = each[name].groupby(code).sum(min_count=1).reindex(range(size)).array
    edges["rtt_ms"] = each["rtt_ms"].groupby(code).median().reindex(range(size)).array
    return _plain(edges)


def _most_frequent(errors: pd.Series[str], code: Codes) -> pd.Series[Any]:
    counts = pd.DataFrame({"code": code, "error": errors}).dropna().value_counts(sort=False)
    ranked = counts.rename("count").reset_index().sort_values(["count", "error"], ascending=[False, True])
    return ranked.drop_duplicates("code").set_index("code")["error"]


def _coverage(connections: pd.DataFrame, table: pd.DataFrame, whole: int) -> list[dict[str, Any]]:
    """Return what the frame lacks, and what the graph does not have of it."""
    missing = []
    if whole > len(table):
        missing.append(Missing("connections", Gap.INCOMPLETE, whole - len(table), _PEERLESS))
    uncounted = int(table[["bytes_sent", "bytes_received"]].isna().any(axis=1).sum())
    if uncounted:
        missing.append(Missing("bytes", Gap.APPROXIMATE, uncounted, _LOWER))
    return [*connections.attrs.get("coverage", []), *map(asdict, missing)]
