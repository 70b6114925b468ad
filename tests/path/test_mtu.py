"""Path MTUs over the simulated internet, whose shapes say which link is how narrow and who says so."""

from __future__ import annotations

import threading
from typing import Any

import networkx as nx
import pandas as pd
import pytest
from shapes import Case, having

from netlab import lab
from netlab.errors import BadInput, ProbeError
from netlab.frames import coverage
from netlab.path.pathmtu import path_mtu

pytestmark = pytest.mark.privileged
both = pytest.mark.parametrize("family", [4, 6])
TOLD = {4: "fragmentation-needed", 6: "packet-too-big"}


def limits(found: pd.DataFrame) -> list[tuple[object, ...]]:
    """Return the limits behind the own interface's, missing values as None."""
    columns = found[["ttl", "address", "mtu_bytes", "told"]].iloc[1:].astype(object)
    return list(columns.where(columns.notna(), None).itertuples(index=False, name=None))


@both
@pytest.mark.parametrize("protocol", ["icmp", "udp"])
@pytest.mark.parametrize("case", having("limits"), ids=str)
def test_limits_are_those_of_the_shape(case: Case, protocol: str, family: int) -> None:
    with lab.simulated(case.graph) as net:
        target = net.address(case.wanted["target"], family)
        found = path_mtu(target, protocol=protocol, netns=net.client.netns)
        names = [hop for hop, *_ in case.wanted["hops"]]

        assert limits(found) == [
            (
                names.index(hop) + 1 if hop else None,
                net.address(hop, family) if hop else None,
                mtu_bytes,
                TOLD[family] if told == "told" else told,
            )
            for hop, mtu_bytes, told in case.wanted["limits"]
        ]
        assert found.iloc[0][["ttl", "mtu_bytes", "told"]].tolist() == [0, 1500, "interface"]
        reached = case.wanted.get("reached", True)
        assert coverage(found)["what"].tolist() == ([] if reached else ["path MTU"])


def line(*nodes: str, **link: object) -> nx.Graph[str]:
    graph: nx.Graph[str] = nx.path_graph(["client", *nodes, "web"])
    nx.set_edge_attributes(graph, {edge: dict(link) for edge in graph.edges})
    return graph


def test_a_packet_that_is_too_big_for_less_than_ipv6_takes_is_not_believed() -> None:
    graph = line("r1", "r2", mtu_bytes=1400)
    graph.edges["client", "r1"]["mtu_bytes"] = 1500
    graph.nodes["r1"]["told_mtu"] = 1000
    with lab.simulated(graph) as net:
        found = path_mtu(net.address("web", 6), netns=net.client.netns)

        assert limits(found) == [(1, net.address("r1", 6), 1400, TOLD[6])]


@both
def test_a_way_as_wide_as_the_interface_has_no_other_limit(family: int) -> None:
    with lab.simulated(line("r1", "r2", mtu_bytes=1400)) as net:
        found = path_mtu(net.address("web", family), netns=net.client.netns)

    assert found["mtu_bytes"].tolist() == [1400]


@pytest.mark.parametrize("seed", range(3))
def test_loss_is_not_taken_for_a_hole(seed: int) -> None:
    graph = line("r1", "r2", "r3")
    graph.edges["r1", "r2"]["loss"] = 0.25

    with lab.simulated(graph, seed=seed) as net:
        found = path_mtu(net.address("web"), netns=net.client.netns)

    assert limits(found) == []


def test_the_way_that_is_tried_is_that_of_the_flow() -> None:
    graph = line("r1", "wide", "r2")
    graph.add_edge("r1", "narrow")
    graph.add_edge("narrow", "r2", mtu_bytes=1300)

    with lab.simulated(graph) as net:
        ways = {
            net.truth.paths(lab.Flow("web", source_port=port))[0][1]: port for port in range(33000, 33020)
        }
        found = {
            way: path_mtu(net.address("web"), protocol="udp", source_port=port, netns=net.client.netns)
            for way, port in ways.items()
        }
        narrow = net.address("narrow")

    assert limits(found["wide"]) == []
    assert limits(found["narrow"]) == [(2, narrow, 1300, "fragmentation-needed")]


def test_a_hole_is_on_the_way_that_was_tried() -> None:
    graph = line("r1", "wide", "r2")
    graph.add_edge("r1", "narrow")
    graph.add_edge("narrow", "r2", mtu_bytes=1300)
    graph.nodes["narrow"]["silent"] = ["fragmentation-needed"]

    with lab.simulated(graph) as net:
        found = [
            path_mtu(net.address("web"), protocol="udp", timeout_s=0.1, netns=net.client.netns)
            for _ in range(6)
        ]
        narrow = net.address("narrow")

    assert all(limits(each) in ([], [(2, narrow, 1300, "silent")]) for each in found)


def test_a_target_that_limits_its_answers_is_not_taken_for_a_hole() -> None:
    graph = line("r1", "r2")
    graph.nodes["web"].update(icmp_per_s=0.01, icmp_burst=2)
    graph.edges["r2", "web"]["mtu_bytes"] = 1300

    with lab.simulated(graph) as net:
        found = path_mtu(net.address("web"), protocol="udp", timeout_s=0.1, netns=net.client.netns)

    assert "silent" not in found["told"].tolist()
    assert coverage(found)["what"].tolist() == ["path MTU"]


def test_where_nothing_answers_only_the_interface_is_known() -> None:
    graph = line("r1")
    for node in ("r1", "web"):
        graph.nodes[node].update(silent=True, echo="silent")

    with lab.simulated(graph) as net:
        found = path_mtu(net.address("web"), max_ttl=3, timeout_s=0.1, netns=net.client.netns)

    assert found["told"].tolist() == ["interface"]
    assert coverage(found)["kind"].tolist() == ["unavailable"]


def test_what_the_kernel_has_learnt_does_not_hide_the_limit_from_the_next_call() -> None:
    case = next(case for case in having("limits") if case.name == "mtu")
    with lab.simulated(case.graph) as net:
        first, second = (path_mtu(net.address("web"), netns=net.client.netns) for _ in range(2))

    assert limits(first) == limits(second)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "tcp"}, "protocol 'tcp' is not known"),
        ({"port": 80}, "icmp has no ports"),
        ({"protocol": "udp", "port": 0}, "port 0"),
        ({"protocol": "udp", "source_port": 70000}, "source_port 70000"),
        ({"source_port": 33000}, "icmp has no ports"),
        ({"max_ttl": 0}, "max_ttl 0"),
        ({"timeout_s": 0}, "timeout_s 0"),
        ({"netns": "no-such"}, "there is no network namespace"),
        ({"queries": 3}, "no option 'queries'"),
    ],
)
def test_what_cannot_be_right_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        path_mtu("127.0.0.1", **options)


def test_an_unknown_target_is_an_error() -> None:
    with pytest.raises(ProbeError, match="cannot resolve"):
        path_mtu("no-such-host.invalid")


def test_stopped_it_returns_what_is_known_and_says_so() -> None:
    graph = line("r1", "r2")
    graph.add_node("web", echo="silent")
    with lab.simulated(graph) as net:
        stop = threading.Event()
        threading.Timer(0.5, stop.set).start()
        found = path_mtu(net.address("web", 4), timeout_s=60, stop=stop, netns=net.client.netns)

    assert found["told"].tolist() == ["interface"]
    assert "probing was stopped: there may be smaller limits" in coverage(found)["detail"].tolist()
