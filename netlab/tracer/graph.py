"""Connections as a graph: who talks to whom, through which translations and gateways."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, TypeAlias

import networkx as nx
import numpy as np
import pandas as pd

from netlab import checks
from netlab.errors import BadInput
from netlab.frames import Gap, Missing, known_gaps
from netlab.schemas import CONNECTIONS, DELTAS, FLEET_DELTAS
from netlab.tracer.graphedges import edges
from netlab.tracer.graphnodes import Key, addresses, counted, gateways, processes, translations

Graph: TypeAlias = "nx.MultiDiGraph[Key]"

_KINDS = (CONNECTIONS.name, DELTAS.name, FLEET_DELTAS.name)  # one row per connection, each
_NEEDED = ["protocol", "direction", "local_address", "local_port", "remote_address", "remote_port"]
_TEXTS = ["process", "container", "cmdline", "remote_name", "error"]
_WAYS = ["via_gateway", "via_mac", "via_interface"]
_NAT = ["nat_local_address", "nat_local_port", "nat_remote_address", "nat_remote_port"]
_NUMBERS = ["netns", "pid", "bytes_sent", "bytes_received", "retransmits", "rtt_ms"]
_UNSPECIFIED = ["0.0.0.0", "::"]  # noqa: S104 - nothing is bound
_BY = ("process", "pid")
_PEERLESS = "sockets without a peer are no connections"
_LOWER = "not counted for these connections: the sums of their edges are lower bounds"


@checks.options
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
    kinds = [processes(table, by), addresses(table, ends), translations(table, ends), gateways(table)]
    graph: Graph = nx.MultiDiGraph(coverage=_coverage(connections, table, whole))
    failed = table["error"].notna().to_numpy()
    for nodes in kinds:
        graph.add_nodes_from(counted(nodes, failed))
    for near, far, key, edge in edges(table, ends, kinds):
        graph.add_edge(near, far, key=key, **edge)
    return graph


def _table(connections: object) -> pd.DataFrame:
    """Return the columns that count, with the schema's dtypes; those that the frame lacks are missing."""
    fix = "Pass what Capture.connections() or netlab.connections() returned"
    if not isinstance(connections, pd.DataFrame):
        raise BadInput(
            f"connection_graph() takes connections, not {type(connections).__name__} objects", fix=fix
        )
    checks.kind("connection_graph()", connections, _KINDS, fix=fix)
    lacking = [name for name in _NEEDED if name not in connections.columns]
    if lacking:
        raise BadInput(f"this frame has no column {lacking[0]!r}", fix=fix)
    wanted = [*_NEEDED, *_TEXTS, *_WAYS, *_NAT, *_NUMBERS]
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


def _coverage(connections: pd.DataFrame, table: pd.DataFrame, whole: int) -> list[dict[str, Any]]:
    """Return what the frame lacks, and what the graph does not have of it."""
    missing = []
    if whole > len(table):
        missing.append(Missing("connections", Gap.INCOMPLETE, whole - len(table), _PEERLESS))
    uncounted = int(table[["bytes_sent", "bytes_received"]].isna().any(axis=1).sum())
    if uncounted:
        missing.append(Missing("bytes", Gap.APPROXIMATE, uncounted, _LOWER))
    return [*known_gaps(connections), *map(asdict, missing)]
