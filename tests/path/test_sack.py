"""Traces within a connection, to Linux' own TCP and to simulated hosts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import networkx as nx
import pandas as pd
import pytest
from flows import SALT, ends
from hypothesis import given, strategies as st
from scapy.layers import inet

from netlab import lab
from netlab.errors import BadInput
from netlab.frames import coverage
from netlab.path import trace_many
from netlab.path.matching import Match, Register
from netlab.path.sack import MARKS, SackFlow
from netlab.path.trace import traceroute
from netlab.wire import icmp, ip, tcp

Chain = Network = Any  # the fixtures' classes live in conftest.py

pytestmark = pytest.mark.privileged
both = pytest.mark.parametrize("family", [4, 6])


def path(hops: pd.DataFrame) -> list[set[str]]:
    return [set(addresses.dropna()) for _, addresses in hops.groupby("ttl")["address"]]


def last(hops: pd.DataFrame) -> pd.DataFrame:
    return hops[hops["ttl"] == hops["ttl"].max()]


def connection(**changes: Any) -> SackFlow:
    """Return a flow whose next byte is 1000 before the sequence numbers wrap."""
    source, target = ends(4)
    fields: dict[str, Any] = {"number": 0, "source": source, "target": target, "salt": SALT}
    fields |= {"source_port": 50_000, "port": 443, "timestamps": b"", "acknowledgment": 7}
    return SackFlow(**{**fields, "sequence": 2**32 - 1000, **changes})


@given(st.integers(1, MARKS))
def test_eight_quoted_bytes_tell_the_probe(mark: int) -> None:
    ours = Register()
    ours.add(connection())
    ours.sent(0, mark)
    quote = icmp.quote(icmp.error(4, icmp.Error.TIME_EXCEEDED, connection().packet(3, mark)[:28]))

    assert ours.error(icmp.Error.TIME_EXCEEDED, quote) == Match("time-exceeded", 0, mark)


def acknowledging(*blocks: tuple[int, int], flags: str = "A") -> bytes:
    """Return a segment of the target with these bytes, counted from what it expects next."""
    edges = tuple((2**32 - 1000 + edge) % 2**32 for block in blocks for edge in block)
    options = [("NOP", None), ("NOP", None), ("SAck", edges)] if blocks else []
    return bytes(inet.TCP(sport=443, dport=50_000, flags=flags, ack=2**32 - 1000, options=options))


@pytest.mark.parametrize(
    ("segment", "arrived"),
    [
        (acknowledging((5, 6)), [5]),
        (acknowledging((5, 6), (998, 1002), (2, 3)), [5, 998, 999, 1000, 1001, 2]),
        (acknowledging((4, 4)), []),
        (acknowledging((6, 5)), []),
        (acknowledging((0, 3)), []),
        (acknowledging((5, MARKS + 2)), []),
        (acknowledging(), []),
    ],
)
def test_every_byte_in_a_block_is_a_probe_that_arrived(segment: bytes, arrived: list[int]) -> None:
    ours = Register()
    ours.add(connection())
    for mark in range(1, 1100):
        ours.sent(0, mark)

    assert ours.answers(segment) == [Match("sack", 0, mark) for mark in arrived]
    assert ours.answers(segment) == []  # once is enough


def test_a_reset_of_the_connection_says_not_for_which_probe() -> None:
    ours = Register()
    ours.add(connection())

    assert ours.answers(acknowledging(flags="R")) == [Match("rst", 0, None)]


@both
def test_linux_tells_by_sack_which_probe_arrived(chain: Chain, family: int) -> None:
    target = chain.target(family)

    with chain.listening("server", target, 8082):
        hops = traceroute(target, protocol="tcp-sack", port=8082, netns=chain.client, queries=5, runs=20)

    assert path(hops) == [{address} for address in chain.hops(family)]
    assert set(last(hops)["reply"]) == {"sack"}
    assert len(last(hops)) == 100
    assert last(hops)["address"].notna().all()
    assert set(hops["protocol"]) == {"tcp-sack"}


@both
def test_nothing_is_left_of_the_connection_and_nothing_was_delivered(chain: Chain, family: int) -> None:
    target = chain.target(family)

    with chain.listening("server", target, 8083):
        traceroute(target, protocol="tcp-sack", port=8083, netns=chain.client)
        left = chain.output("server", "ss", "-Htan", "sport = :8083")
        ours = chain.output("client", "ss", "-Htan", "dport = :8083")

    # nobody accepted it: the listener counts it and has no byte of it
    assert [line.split()[:2] for line in left.splitlines()] == [["LISTEN", "1"]]
    assert ours == ""


@pytest.fixture(scope="module")
def net() -> Iterator[lab.SimulatedInternet]:
    """client - r1 - {a b} - r2 - web, balanced per flow."""
    graph: nx.Graph[str] = nx.Graph()
    for branch in "ab":
        nx.add_path(graph, ["client", "r1", branch, "r2", "web"])
    nx.set_edge_attributes(graph, 2, "delay_ms")
    behaviour = ["sack", "syn-ack", "rst-ack", "silent", "prohibited"]
    graph.nodes["web"]["tcp_ports"] = dict(enumerate(behaviour, 80))
    with lab.simulated(graph) as internet:
        yield internet


@both
def test_all_probes_are_of_the_flow_of_the_connection(net: lab.SimulatedInternet, family: int) -> None:
    before = len(net.truth.journeys())
    hops = traceroute(net.address("web", family), protocol="tcp-sack", netns=net.client.netns)
    sent = [ip.decode(journey.packet) for journey in net.truth.journeys()[before:]]
    data = [(tcp.decode(transport), header) for header, transport in sent if header.protocol == ip.TCP]
    probes = [(segment, header) for (segment, payload), header in data if payload]

    assert hops["reached"].sum() == 3
    assert len({(segment.source_port, segment.destination_port) for (segment, _), _ in data}) == 1
    assert len({getattr(header, "flow_label", 0) for _, header in probes}) == 1
    assert hops.groupby("ttl")["address"].nunique().tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("port", "reply", "reason"),
    [
        (81, "syn-ack", "does not permit selective acknowledgments"),
        (82, "rst", "did not accept a connection: Connection refused"),
        (83, None, "did not accept a connection within 0.2 s"),
        (84, "admin-prohibited", "did not accept a connection"),
    ],
)
def test_a_target_without_sack_is_probed_by_syns_and_that_is_said(
    net: lab.SimulatedInternet, port: int, reply: str | None, reason: str
) -> None:
    hops = traceroute(
        net.address("web"), protocol="tcp-sack", port=port, netns=net.client.netns, timeout_s=0.2, max_ttl=6
    )
    gaps = coverage(hops).set_index("what")

    assert set(hops["protocol"]) == {"tcp"}
    assert gaps.loc["SACK probes", "kind"] == "unavailable"
    assert reason in gaps.loc["SACK probes", "detail"]
    # What is half open when the next SYN comes the target resets, as Linux does: only the first is sure.
    first = last(hops)["reply"].iloc[0]
    assert (None if pd.isna(first) else first) == reply


def test_more_probes_than_a_connection_carries_are_refused(net: lab.SimulatedInternet) -> None:
    with pytest.raises(BadInput, match="product is at most 100"):
        traceroute(net.address("web"), protocol="tcp-sack", netns=net.client.netns, runs=51, queries=2)


def test_many_targets_are_refused(net: lab.SimulatedInternet) -> None:
    with pytest.raises(BadInput, match="one target at a time"):
        trace_many(["203.0.113.1"], protocol="tcp-sack", netns=net.client.netns)


@both
def test_the_kernel_resets_what_a_syn_ack_offers(net: lab.SimulatedInternet, family: int) -> None:
    before = len(net.truth.journeys())
    hops = traceroute(net.address("web", family), protocol="tcp", port=81, netns=net.client.netns, queries=4)
    journeys = net.truth.journeys()[before:]
    flags = [tcp.decode(ip.decode(journey.packet)[1])[0].flags for journey in journeys]
    answers = [ip.decode(j.answer)[1] for j in journeys if j.answered_by == "web" and j.answer]
    accepted = [segment for segment, _ in map(tcp.decode, answers) if segment.flags & tcp.Flags.SYN]

    assert set(last(hops)["reply"]) == {"syn-ack"}
    assert len(last(hops)) == 4
    assert set(flags) == {tcp.Flags.SYN, tcp.Flags.RST}
    assert flags.count(tcp.Flags.RST) == len(accepted) >= 4
