"""All pairs of eight hosts, traced and merged: the network that the plan says."""

from __future__ import annotations

import itertools

import fleets
import networkx as nx
import pandas as pd
import pytest

import netlab
from netlab.errors import BadInput
from netlab.fleet import Fleet, mesh_graph

PAIRS = list(itertools.permutations(fleets.HOSTS, 2))


@pytest.fixture(scope="module")
def mesh(fleet: Fleet) -> pd.DataFrame:
    return fleet.traceroute_mesh({host: fleets.address(host) for host in fleets.HOSTS})


def path_of(near: str, far: str) -> list[str]:
    """Return the nodes of a trace in a graph that knows only which addresses are the hosts'."""
    return [near, *fleets.path(near, far)[:-1], far]


@pytest.mark.privileged
def test_every_host_traces_every_other_one_by_the_way_of_the_plan(mesh: pd.DataFrame) -> None:
    heard = mesh.dropna(subset=["address"]).sort_values("ttl")
    found = heard.groupby(["host", "target"])["address"].agg(lambda hops: list(dict.fromkeys(hops)))

    assert found.to_dict() == {(a, fleets.address(b)): fleets.path(a, b) for a, b in PAIRS}


@pytest.mark.privileged
def test_the_addresses_of_a_router_are_nodes_of_their_own(mesh: pd.DataFrame) -> None:
    graph = mesh_graph(mesh)

    assert set(graph.edges) == {link for a, b in PAIRS for link in itertools.pairwise(path_of(a, b))}
    assert {node for node, told in graph.nodes(data=True) if told["source"]} == set(fleets.HOSTS)
    assert all(graph.nodes[host]["reached"] and graph.nodes[host]["answers"] for host in fleets.HOSTS)


@pytest.mark.privileged
def test_with_the_aliases_of_the_plan_the_graph_is_its_topology(mesh: pd.DataFrame) -> None:
    links = [*fleets.LINKS, *(link[::-1] for link in fleets.LINKS)]
    aliases = {fleets.link_address(near, far): near for near, far in links}

    graph = mesh_graph(mesh, aliases=aliases)

    assert nx.utils.graphs_equal(nx.Graph(graph.edges), fleets.topology())
    assert set(graph.edges) == set(links)


@pytest.mark.privileged
def test_one_host_makes_no_mesh(fleet: Fleet) -> None:
    with pytest.raises(BadInput, match="two hosts"):
        fleet.traceroute_mesh({"h1": fleets.address("h1")})


def test_an_address_that_two_hosts_probed_from_is_refused() -> None:
    hops = netlab.traceroute("127.0.0.1")
    both = netlab.concat([hops.assign(host="a"), hops.assign(host="b")])

    with pytest.raises(BadInput, match=r"127\.0\.0\.1 is an address of a and b"):
        mesh_graph(both)
