"""What probes find through the agent is what they find here."""

from __future__ import annotations

import threading
from pathlib import Path

import httpx
import networkx as nx
import pytest

import netlab
from netlab import lab
from netlab.agent.client import Host
from netlab.path import path_mtu
from tests.support.programs import wait_until

pytestmark = pytest.mark.privileged


def diamond() -> nx.Graph[str]:
    graph: nx.Graph[str] = nx.Graph([("client", "r1"), ("r1", "a"), ("r1", "b"), ("a", "r2"), ("b", "r2")])
    graph.add_edge("r2", "web", mtu_bytes=1400)
    return graph


def test_all_ways_are_found_with_their_confidence(host: Host) -> None:
    with lab.simulated(diamond()) as net:
        way = {"target": net.address("web", 4), "netns": net.client.netns, "confidence": 0.9999}
        here, there = netlab.multipath(**way), host.multipath(**way)
        graphs = [netlab.path_graph(hops) for hops in (here, there)]

        assert set(there["address"].dropna()) == {
            net.address(node, 4) for node in ("r1", "a", "b", "r2", "web")
        }
    found, known = (hops.attrs["multipath"] for hops in (there, here))
    assert found["reached_confidence"] == known["reached_confidence"] == 0.9999
    assert {(link["from"], link["to"]) for link in found["links"]} == {
        (link["from"], link["to"]) for link in known["links"]
    }
    assert set(graphs[0].edges) == set(graphs[1].edges)


def test_path_mtu_is_that_of_the_way(host: Host) -> None:
    with lab.simulated(diamond()) as net:
        way = {"target": net.address("web", 4), "netns": net.client.netns}
        columns = ["mtu_bytes", "ttl", "told"]

        there = host.path_mtu(**way)
        assert there[columns].equals(path_mtu(**way)[columns])
    assert there["mtu_bytes"].tolist() == [1500, 1400]


@pytest.mark.parametrize("what", ["multipath", "path_mtu"])
def test_a_hang_up_ends_the_probing_and_frees_its_place(agent: Path, host: Host, what: str) -> None:
    graph = diamond()
    graph.add_node("web", udp="silent", echo="silent")
    with lab.simulated(graph) as net:
        target, netns = net.address("web", 4), str(net.client.netns)
        for _ in range(3):  # one more than there are places
            with (
                httpx.Client(transport=httpx.HTTPTransport(uds=str(agent)), timeout=1) as web,
                pytest.raises(httpx.ReadTimeout),
            ):
                web.get(f"http://agent/{what}/{target}", params={"netns": netns, "timeout_ms": 60_000})
        wait_until(lambda: len(host.path_mtu(net.address("r2", 4), netns=netns)))


def test_stop_is_refused_in_words(host: Host) -> None:
    with pytest.raises(netlab.BadInput, match="Ctrl-C ends its probing"):
        host.multipath("127.0.0.1", stop=threading.Event())
