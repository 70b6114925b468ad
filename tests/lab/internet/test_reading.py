"""Shapes that cannot be right are refused by name, before anything is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest

from netlab import lab
from netlab.errors import BadInput
from netlab.lab.internet import reading


def graph(node: dict[str, Any] | None = None, link: dict[str, Any] | None = None) -> nx.Graph:
    made = nx.path_graph(["client", "r1", "web"])
    made.nodes["r1"].update(node or {})
    made.edges["r1", "web"].update(link or {})
    return made


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"silnt": True}, r"node 'r1' has an unknown attribute 'silnt'\. Did you mean 'silent'"),
        ({"silent": "yes"}, "silent of node 'r1'"),
        ({"silent": ["time-exceded"]}, "Did you mean 'time-exceeded'"),
        ({"hidden": 1}, "hidden of node 'r1': 1 is neither true nor false"),
        ({"balance": "flows"}, "Did you mean 'flow'"),
        ({"address4": "198.51.100.300"}, "address4 of node 'r1': '198.51.100.300' is no IPv4 address"),
        ({"address4": "2001:db8::1"}, "no IPv4 address"),
        ({"address6": "ff02::1"}, "no IPv6 address of a host"),
        *(({"address4": wrong}, "no IPv4 address") for wrong in ("0.0.0.0", "255.255.255.255", True, 7)),
        ({"nat4": "127.0.0.1"}, "no IPv4 address of a host"),
        ({"prefixes": ["203.0.113.1/24"]}, "prefixes of node 'r1'.*has host bits set"),
        ({"prefixes": "203.0.113.0/24"}, "is no list"),
        ({"quote_bytes": 7}, "quote_bytes of node 'r1' 7 is not a whole number from 8"),
        ({"reply_ttl": 0}, "reply_ttl of node 'r1'"),
        ({"set_dscp": 64}, "set_dscp of node 'r1'"),
        ({"icmp_per_s": 1}, "node 'r1' has only one of icmp_per_s and icmp_burst"),
        ({"mpls": [2**20]}, "label of mpls of node 'r1'"),
        ({"mpls": [{"tc": 1, "label": 1}]}, "unknown attribute 'tc'"),
        ({"mpls": [{"ttl": 1}]}, "has no label"),
        ({"mpls": [1] * 17}, "a stack of 17 labels"),
        ({"tcp": "synack"}, "Did you mean 'syn-ack'"),
        ({"tcp_ports": {"0": "rst"}}, "port 0 in tcp_ports of node 'r1'"),
        ({"tcp_ports": {"http": "rst"}}, "port 'http'"),
        ({"udp_ports": ["53"]}, "is no table of ports"),
        ({"prohibits": ["igmp"]}, "prohibits of node 'r1' 'igmp'.*Did you mean 'icmp'"),
        ({"dnat": {"203.0.113.1": "fd00::1"}}, "dnat of node 'r1'"),
        ({"dnat": "203.0.113.1"}, "is no table of addresses"),
    ],
)
def test_a_wrong_node_is_refused(attributes: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        reading.epochs(graph(node=attributes))


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"delay": 1}, r"link 'r1' to 'web' has an unknown attribute 'delay'\. Did you mean 'delay_ms'"),
        ({"delay_ms": -1}, "delay_ms of link 'r1' to 'web': -1 is not a number from 0"),
        ({"delay_ms": "5"}, "delay_ms of link 'r1' to 'web'"),
        ({"delay_ms": float("nan")}, "delay_ms of link 'r1' to 'web'"),
        ({"loss": 2}, "loss of link 'r1' to 'web': 2 is not a number from 0 to 1"),
        ({"mtu_bytes": 67}, "mtu_bytes of link 'r1' to 'web'"),
        ({"metric": 0}, "metric of link 'r1' to 'web'"),
        ({"metric": 1.5}, "metric of link 'r1' to 'web'"),
        ({"up": "no"}, "up of link 'r1' to 'web'"),
        ({"far_address4": "192.0.2.1"}, "nodes 'web' and 'r1' have the same address 192.0.2.1"),
    ],
)
def test_a_wrong_link_is_refused(attributes: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        reading.epochs(graph(link=attributes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([{"node": "r1", "silent": True}], "at_s of a change"),
        ([{"at_s": -1, "node": "r1"}], "at_s of a change: -1"),
        ([{"at_s": 1, "node": "r9"}], "change 0 is about node 'r9'"),
        ([{"at_s": 1, "between": ["client", "web"]}], "a link client to web, which is not there"),
        ([{"at_s": 1}], "change 0 does not say where it is"),
        ([{"at_s": 1, "node": "r1", "silnt": True}], "unknown attribute 'silnt'"),
        (["soon"], "at_s of a change"),
    ],
)
def test_a_wrong_change_is_refused(changes: list[Any], said: str) -> None:
    made = graph()
    made.graph["changes"] = changes

    with pytest.raises(BadInput, match=said):
        reading.epochs(made)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"a": ["b"]}, "a dict is no shape"),
        (nx.MultiGraph([("client", "r1")]), "a MultiGraph is no shape"),
        (nx.Graph(), "no node called 'client' with a link"),
        (nx.path_graph(["r1", "web"]), "no node called 'client' with a link"),
        (nx.Graph([("client", 1)]), "node 1 has no name that is a string"),
    ],
)
def test_what_is_no_shape_is_refused(made: Any, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        reading.epochs(made)


def test_numbers_may_be_those_of_numpy() -> None:
    (epoch,) = reading.epochs(graph(link={"delay_ms": np.int64(5), "loss": np.float32(0.5)}))

    (link,) = epoch.shape.links["web"]
    assert (link.delay_ns, link.loss) == (5_000_000, 0.5)


def test_two_nodes_with_one_address_are_refused_by_name() -> None:
    made = graph(node={"address4": "192.0.2.1"})
    made.nodes["web"]["address4"] = "192.0.2.1"

    with pytest.raises(BadInput, match=r"nodes 'r1' and 'web' have the same address 192\.0\.2\.1"):
        reading.epochs(made)


@pytest.mark.parametrize("outside", [{"nat4": "192.0.2.1"}, {"dnat": {"192.0.2.1": "192.0.2.2"}}])
def test_an_outside_address_that_another_node_has_is_refused(outside: dict[str, Any]) -> None:
    made = graph(node=outside)
    made.nodes["web"]["address4"] = "192.0.2.1"

    with pytest.raises(BadInput, match=r"nodes 'web' and 'r1' have the same address 192\.0\.2\.1"):
        reading.epochs(made)


def test_a_client_without_room_for_ipv6_is_refused() -> None:
    made = graph()
    made.edges["client", "r1"]["mtu_bytes"] = 1279

    with pytest.raises(BadInput, match="mtu_bytes of link 'client' to 'r1': IPv6 needs 1280"):
        reading.epochs(made)


def test_addresses_that_are_not_given_are_taken_in_order_around_those_that_are() -> None:
    made = graph(node={"address4": "198.18.0.1", "address6": "2001:db8::2"})
    nodes = reading.epochs(made)[0].shape.nodes

    assert [nodes[name].address4[-1] for name in made] == [2, 1, 3]
    assert [nodes[name].address6[-1] for name in made] == [1, 2, 3]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[links]\n", "cannot be read"),
        ("[[links]]\ndelay_ms = 3\n", "link 0 of .* does not say where it is"),
        ('[[links]]\nbetween = ["a"]\n', "does not say where it is"),
        ('[[links]]\nbetween = ["a", 1]\n', "does not say where it is"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "shape.toml"
    file.write_text(text, encoding="utf-8")

    with pytest.raises(BadInput, match=said):
        lab.load_shape(file)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="No such file"):
        lab.load_shape(tmp_path / "none.toml")


def test_a_later_link_changes_some_of_an_earlier_one_in_one_direction(tmp_path: Path) -> None:
    file = tmp_path / "shape.toml"
    file.write_text(
        '[[links]]\nbetween = ["client", "r1", "web"]\ndelay_ms = 5\nloss = 0.1\n'
        '[[links]]\nfrom = "web"\nto = "r1"\ndelay_ms = 7\n',
        encoding="utf-8",
    )
    edges = lab.load_shape(file).edges

    assert edges["r1", "web"] == {"delay_ms": 5, "loss": 0.1}
    assert edges["web", "r1"] == {"delay_ms": 7, "loss": 0.1}
