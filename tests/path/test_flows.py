"""Many flows through one channel, over real kernels and over simulated internets."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import networkx as nx
import pytest
from flows import KINDS

from netlab import lab
from netlab.errors import ProbeError
from netlab.kernel.netns import entered
from netlab.lab.internet.truth import Flow
from netlab.path import target
from netlab.path.outlet import Outlet
from netlab.path.probes import Protocol
from netlab.path.state import Answer
from netlab.path.station import Station

Network = Any  # the fixtures' classes live in conftest.py

pytestmark = pytest.mark.privileged
both = pytest.mark.parametrize("family", [4, 6])

FLOWS = 40
TTL = 2
PORT = 33_434


@contextmanager
def outlet_to(
    address: str, netns: str, protocol: Protocol, **options: Any
) -> Iterator[tuple[Station, Outlet]]:
    chosen, source = target.routed(target.resolve(address), netns)
    usual: dict[str, Any] = {"port": PORT, "source_port": None}
    with Station(protocol, [chosen.family], netns=netns, **usual | options) as station:
        yield station, Outlet(station, chosen, source)


def answers_by_flow(station: Station, outlet: Outlet, flows: int = FLOWS) -> dict[int, Answer]:
    """Send one probe of each flow, all with the same mark, and return the answers."""
    for flow in range(flows):
        outlet.send(flow, TTL, 7)
    found: dict[int, Answer] = {}
    while len(found) < flows and (heard := station.receive(10**9)):
        for _, answer in heard:
            assert answer.mark == 7
            assert answer.flow not in found
            found[answer.flow] = answer
    return found


@both
@pytest.mark.parametrize("protocol", [Protocol.UDP, Protocol.TCP])
def test_flows_find_all_branches_and_each_stays_on_its_own(
    diamond: Network, family: int, protocol: Protocol
) -> None:
    address = "10.99.2.2" if family == 4 else "fd99:2::2"
    with outlet_to(address, diamond.netns("client"), protocol) as (station, outlet):
        first = answers_by_flow(station, outlet)
        again = answers_by_flow(station, outlet)

    assert len(first) == FLOWS
    assert len({answer.address for answer in first.values()}) == 4
    assert {f: a.address for f, a in first.items()} == {f: a.address for f, a in again.items()}


@pytest.fixture(scope="module")
def net() -> Any:
    """Return a simulated internet: client - r1 - {a b c d} - r2 - web, where r1 balances per flow."""
    graph: nx.Graph[str] = nx.Graph()
    for branch in "abcd":
        nx.add_path(graph, ["client", "r1", branch, "r2", "web"])
    with lab.simulated(graph) as internet:
        yield internet


@both
@pytest.mark.parametrize("protocol", KINDS)
def test_each_flow_goes_where_the_truth_says(net: Any, family: int, protocol: Protocol) -> None:
    with outlet_to(net.address("web", family), net.client.netns, protocol) as (station, outlet):
        found = answers_by_flow(station, outlet)
        flows = {number: outlet.flow(number) for number in range(FLOWS)}

    assert {number: [answer.address] for number, answer in found.items()} == {
        number: net.truth.hops(truly(flow, protocol, family))[TTL - 1] for number, flow in flows.items()
    }
    assert len({answer.address for answer in found.values()}) == 4


def truly(flow: Any, protocol: Protocol, family: int) -> Flow:
    """Return the flow as the simulated internet names it; its `port` is the checksum of ICMP."""
    source_port, port = int.from_bytes(flow.key[:2], "big"), int.from_bytes(flow.key[2:], "big")
    label = flow.label if family == 6 else 0
    return Flow("web", protocol.value, source_port=source_port, port=port, family=family, label=label)


def test_flow_numbers_count_up_from_the_given_port(net: Any) -> None:
    with outlet_to(net.address("web"), net.client.netns, Protocol.UDP, source_port=41_000) as (
        station,
        outlet,
    ):
        answers_by_flow(station, outlet, 3)

        assert outlet.ports == {n: (41_000 + n, PORT) for n in range(3)}


def test_the_port_of_a_flow_is_nobody_elses(net: Any) -> None:
    with outlet_to(net.address("web"), net.client.netns, Protocol.TCP) as (station, outlet):
        answers_by_flow(station, outlet, 3)
        for port, _ in outlet.ports.values():
            with entered(net.client.netns), socket.socket() as other, pytest.raises(OSError, match="in use"):
                other.bind(("0.0.0.0", port or 0))


def test_a_flow_without_a_port_left_is_refused(net: Any) -> None:
    with outlet_to(net.address("web"), net.client.netns, Protocol.UDP, source_port=65_535) as (_, outlet):
        outlet.send(0, TTL, 1)
        with pytest.raises(ProbeError, match="no port left for flow 1"):
            outlet.send(1, TTL, 1)
