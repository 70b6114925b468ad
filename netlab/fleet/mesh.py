"""`netlab.fleet.mesh_graph()`: the traces between many hosts as one network."""

from __future__ import annotations

from collections.abc import Mapping

import networkx as nx
import pandas as pd

from netlab import checks
from netlab.errors import BadInput
from netlab.path.graph import path_graph
from netlab.path.stops import SOURCE


@checks.options
def mesh_graph(hops: pd.DataFrame, *, aliases: Mapping[str, str] | None = None) -> nx.DiGraph[str]:
    """Draw traces between hosts as one directed graph, in which a host is one node, probing or probed.

    That an address is a host's is known where the host has sent probes from it. A router answers each of its
    neighbours from another address: its addresses are nodes of their own, unless *aliases* says otherwise.

    Parameters
    ----------
    hops
        What `Fleet.traceroute_mesh` returned.
    aliases
        Names of further addresses: those of one name are one node.

    Returns
    -------
    DiGraph
        As of `netlab.path_graph`; the nodes of hosts and of aliases are called by their names. Of a host that
        also forwards, the figures of a link that its own traces took are of those alone.

    Raises
    ------
    BadInput
        If *hops* lacks columns of a trace, or an address is of two hosts.

    Examples
    --------
    >>> import netlab
    >>> from netlab.fleet import mesh_graph
    >>> hops = netlab.traceroute("127.0.0.1").assign(host="here")
    >>> sorted(mesh_graph(hops, aliases={"127.0.0.1": "here"}))
    ['here']
    """
    needed = ["address", "host", "source_address"]
    checks.columns("mesh_graph()", hops, needed, fix="Pass what Fleet.traceroute_mesh returned")
    named = hops.assign(address=hops["address"].replace({**_hosts(hops), **(aliases or {})}))
    named.attrs = hops.attrs
    graph = path_graph(named)
    hosts = hops["host"].dropna().unique()
    for host in hosts:
        _join_source(graph, SOURCE if len(hosts) == 1 else f"{SOURCE} {host}", host)
    return graph


def _hosts(hops: pd.DataFrame) -> dict[str, str]:
    """Return whose the addresses are that probes were sent from."""
    own = hops[["source_address", "host"]].dropna().drop_duplicates()
    twice = own[own["source_address"].duplicated(keep=False)]
    if len(twice):
        address = twice["source_address"].iloc[0]
        whose = " and ".join(twice.loc[twice["source_address"] == address, "host"])
        raise BadInput(
            f"{address} is an address of {whose}", fix="Leave out hosts that are behind the same translation"
        )
    return dict(zip(own["source_address"], own["host"], strict=True))


def _join_source(graph: nx.DiGraph[str], source: str, host: str) -> None:
    """Make what the host was as a source part of what it was as a target."""
    if source not in graph:
        return
    probed = {**graph.nodes[source], **(graph.nodes[host] if host in graph else {})}
    nx.relabel_nodes(graph, {source: host}, copy=False)
    graph.nodes[host].update(probed, ttl=0, source=True)
