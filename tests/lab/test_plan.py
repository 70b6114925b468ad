"""The plan of the practice network holds together."""

from __future__ import annotations

from ipaddress import ip_network
from itertools import combinations

import networkx as nx
import pytest

from netlab.errors import BadInput
from netlab.lab import plan


def every_address(family: plan.Family) -> list[str]:
    return [link.address(end, family) for link in plan.LINKS for end in (link.near, link.far)]


@pytest.mark.parametrize("family", plan.FAMILIES)
def test_no_address_is_given_twice(family: plan.Family) -> None:
    addresses = every_address(family)

    assert len(set(addresses)) == len(addresses)


@pytest.mark.parametrize("family", plan.FAMILIES)
def test_no_two_links_overlap(family: plan.Family) -> None:
    networks = [link.network(family) for link in plan.LINKS]

    assert not any(one.overlaps(other) for one, other in combinations(networks, 2))  # type: ignore[arg-type]


def test_the_outside_is_of_the_benchmark_and_documentation_ranges() -> None:
    benchmark, documentation = ip_network("198.18.0.0/15"), ip_network("2001:db8::/32")

    assert all(link.network4.subnet_of(benchmark) for link in plan.OUTSIDE)  # type: ignore[arg-type]
    assert all(link.network6.subnet_of(documentation) for link in plan.OUTSIDE)  # type: ignore[arg-type]


def test_the_inside_is_private() -> None:
    assert plan.INSIDE.network4.subnet_of(ip_network("10.0.0.0/8"))  # type: ignore[arg-type]
    assert plan.INSIDE.network6.subnet_of(ip_network("fc00::/7"))  # type: ignore[arg-type]


def test_the_graph_is_one_chain_that_ends_in_two_servers() -> None:
    graph = plan.graph()

    assert nx.is_tree(graph)
    assert sorted(host for host, links in graph.degree if links == 1) == ["client", "db", "web"]
    assert [role for _, role in graph.nodes(data="role")].count("router") == 3


def test_a_path_lists_the_near_side_of_every_router_and_the_server() -> None:
    assert plan.path("web", 4) == ["10.0.0.1", "198.18.1.2", "198.18.2.2", "198.18.3.2", "198.18.4.2"]
    assert plan.path("db", 6)[-2:] == ["2001:db8:3::2", "2001:db8:5::2"]


def test_a_path_to_an_unknown_server_names_the_nearest() -> None:
    with pytest.raises(BadInput, match="Did you mean 'web'"):
        plan.path("wep", 4)


@pytest.mark.parametrize("host", [*plan.ROUTERS, *plan.SERVERS])
@pytest.mark.parametrize("family", plan.FAMILIES)
def test_nobody_outside_has_a_route_to_the_inside(host: str, family: plan.Family) -> None:
    prefixes = [prefix for prefix, _ in plan.routes(host, family)]

    assert str(plan.INSIDE.network(family)) not in prefixes


@pytest.mark.parametrize("host", plan.HOSTS)
@pytest.mark.parametrize("family", plan.FAMILIES)
def test_every_next_hop_is_a_neighbour(host: str, family: plan.Family) -> None:
    neighbours = {link.address(link.peer(host), family) for link in plan.links_of(host)}

    assert {next_hop for _, next_hop in plan.routes(host, family)} <= neighbours
