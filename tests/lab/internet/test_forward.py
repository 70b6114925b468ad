"""Every packet has one end, every answer is a sound packet, and the same seed gives the same fate."""

from __future__ import annotations

from collections import Counter

import networkx as nx
import pytest
from hypothesis import given, strategies as st
from scapy.layers import inet, inet6
from shapes import parsed

from netlab.lab.internet import reading
from netlab.lab.internet.forward import Internet
from netlab.lab.internet.journey import Outcome
from netlab.lab.internet.routing import Atlas
from netlab.lab.internet.truth import Flow, Truth

families = st.sampled_from([4, 6])
routers = st.fixed_dictionaries(
    {},
    optional={
        "silent": st.booleans(),
        "balance": st.sampled_from(["flow", "packet", "destination"]),
        "quote_bytes": st.integers(8, 100),
        "mpls": st.lists(st.integers(0, 2**20 - 1), max_size=3),
        "hidden": st.booleans(),
        "set_ttl": st.integers(1, 255),
        "set_dscp": st.integers(0, 63),
        "set_ecn": st.integers(0, 3),
        "set_ip_id": st.booleans(),
        "nat_port_shift": st.integers(0, 65534),
        "nat_quotes": st.sampled_from(["restored", "addresses", "kept"]),
        "prohibits": st.lists(st.sampled_from(["udp", "tcp", "icmp"])),
        "filters": st.lists(st.sampled_from(["udp", "tcp", "icmp"])),
        "tcp": st.sampled_from(["rst-ack", "rst", "syn-ack", "sack", "prohibited", "silent"]),
        "udp": st.sampled_from(["port-unreachable", "reply", "prohibited", "silent"]),
        "echo": st.sampled_from(["reply", "prohibited", "silent"]),
    },
)
link_attributes = st.fixed_dictionaries(
    {},
    optional={
        "delay_ms": st.floats(0, 50),
        "jitter_ms": st.floats(0, 5),
        "loss": st.sampled_from([0, 0.5, 1]),
        "mtu_bytes": st.integers(68, 1500),
        "metric": st.integers(1, 3),
        "up": st.booleans(),
    },
)


@st.composite
def graphs(draw: st.DrawFn) -> nx.Graph:
    """Draw a connected graph of up to eight nodes and their attributes; some hide what is before them."""
    size = draw(st.integers(2, 8))
    graph = nx.random_labeled_tree(size, seed=draw(st.integers(0, 1000)))
    more = st.tuples(st.integers(0, size - 1), st.integers(0, size - 1)).filter(
        lambda pair: pair[0] != pair[1]
    )
    graph.add_edges_from(draw(st.lists(more, max_size=6)))
    graph = nx.relabel_nodes(graph, {0: "client", **{n: f"n{n}" for n in range(1, size)}})
    for node in graph:
        graph.nodes[node].update(draw(routers))
        if node != "client" and draw(st.booleans()):
            number = node[1:]
            graph.nodes[node].update(nat4=f"192.0.2.{number}", nat6=f"2001:db8:ffff::{number}")
    for edge in graph.edges:
        graph.edges[edge].update(draw(link_attributes))
        if "client" in edge:
            graph.edges[edge].pop("mtu_bytes", None)
    return graph


def probe(truth: Truth, target: str, family: int, layer: object, ttl: int) -> bytes:
    source, destination = truth.address("client", family), truth.address(target, family)
    header = (
        inet.IP(src=source, dst=destination, ttl=ttl)
        if family == 4
        else inet6.IPv6(src=source, dst=destination, hlim=ttl)
    )
    return bytes(header / layer)


def resealed(packet: bytes) -> bytes:
    """Return *packet* with its checksums as scapy computes them; those inside a quote are let alone."""
    layers = parsed(packet)
    upper = layers.payload
    if layers.version == 4:
        del layers.chksum
    if "cksum" in upper.fields:
        del upper.cksum
    elif "chksum" in upper.fields:
        del upper.chksum
    return bytes(layers)


transports = st.sampled_from(["udp", "tcp", "icmp"])


def transport(kind: str, family: int, payload: bytes) -> object:
    if kind == "udp":
        return inet.UDP(sport=40000, dport=33434) / payload
    if kind == "tcp":
        return inet.TCP(sport=40000, dport=80, flags="S", seq=7) / payload
    return (inet.ICMP(id=3, seq=4) if family == 4 else inet6.ICMPv6EchoRequest(id=3, seq=4)) / payload


@given(
    graphs(),
    families,
    transports,
    st.lists(st.tuples(st.integers(1, 20), st.integers(0, 10**9))),
    st.binary(max_size=900),
)
def test_every_packet_has_one_end_and_every_answer_is_sound(
    graph: nx.Graph, family: int, kind: str, sendings: list[tuple[int, int]], payload: bytes
) -> None:
    atlas = Atlas(reading.epochs(graph))
    truth, internet = Truth(atlas, 0), Internet(atlas)
    target = min(set(graph) - {"client"})
    for number, (ttl, at_ns) in enumerate(sorted(sendings, key=lambda pair: pair[1])):
        packet = probe(truth, target, family, transport(kind, family, payload), ttl)
        journey = internet.carry(packet, at_ns)

        assert (journey.number, journey.packet) == (number, packet)
        assert (journey.outcome is Outcome.ANSWERED) == (journey.answer is not None)
        assert (journey.delay_ns is not None) == (journey.answer is not None)
        assert journey.place
        if journey.answer is not None:
            assert journey.answer == resealed(journey.answer)
            assert parsed(journey.answer).dst == truth.address("client", family)
            assert journey.there[-1] == journey.answered_by
            assert journey.back[-1] == "client"
            assert journey.delay_ns >= 0


@given(graphs(), st.integers(0, 2**32), st.binary(max_size=60))
def test_hostile_packets_have_one_end_too(graph: nx.Graph, seed: int, packet: bytes) -> None:
    journey = Internet(Atlas(reading.epochs(graph)), seed).carry(packet, 0)

    assert journey.outcome in set(Outcome)


@given(graphs(), st.integers(0, 2**32), families)
def test_the_same_seed_gives_the_same_fates(graph: nx.Graph, seed: int, family: int) -> None:
    atlas = Atlas(reading.epochs(graph))
    target = max(set(graph) - {"client"})
    packets = [
        probe(Truth(atlas, seed), target, family, transport("udp", family, b"x" * ttl), ttl)
        for ttl in range(1, 9)
    ]
    one, other = Internet(atlas, seed), Internet(atlas, seed)

    assert [one.carry(p, n) for n, p in enumerate(packets)] == [
        other.carry(p, n) for n, p in enumerate(packets)
    ]


@given(graphs())
def test_ways_are_the_cheapest_as_networkx_finds_them(graph: nx.Graph) -> None:
    for node in graph:
        graph.nodes[node].clear()
    for edge in graph.edges:
        attributes = graph.edges[edge]
        metric = attributes.get("metric", 1)
        attributes.clear()
        attributes["metric"] = metric
    for node in graph:
        graph.nodes[node]["balance"] = "packet"
    target = max(set(graph) - {"client"})
    cheapest = nx.all_shortest_paths(graph, "client", target, weight="metric")

    assert Truth(Atlas(reading.epochs(graph)), 0).paths(Flow(target)) == sorted(
        tuple(path[1:]) for path in cheapest
    )


def fates(seed: int, **link: float) -> Counter[str]:
    graph = nx.path_graph(["client", "r1", "web"])
    graph.edges["r1", "web"].update(link)
    atlas = Atlas(reading.epochs(graph))
    internet, truth = Internet(atlas, seed), Truth(atlas, seed)
    packet = probe(truth, "web", 4, transport("udp", 4, b""), 64)
    return Counter(internet.carry(packet, 0).outcome for _ in range(4000))


@pytest.mark.parametrize("loss", [0, 0.1, 0.5, 1])
def test_losses_are_as_many_as_the_link_says_each_way(loss: float) -> None:
    lost = fates(3, loss=loss)[Outcome.LOST] / 4000
    wanted = 1 - (1 - loss) ** 2

    assert abs(lost - wanted) <= 4 * (wanted * (1 - wanted) / 4000) ** 0.5  # four standard deviations


def test_another_seed_loses_other_packets() -> None:
    graph = nx.path_graph(["client", "web"])
    graph.edges["client", "web"]["loss"] = 0.5
    atlas = Atlas(reading.epochs(graph))
    packet = probe(Truth(atlas, 0), "web", 4, transport("udp", 4, b""), 64)

    def pattern(seed: int) -> list[str]:
        internet = Internet(atlas, seed)
        return [internet.carry(packet, 0).outcome for _ in range(64)]

    assert pattern(1) == pattern(1) != pattern(2)


def test_jitter_is_spread_evenly_on_top_of_the_delay() -> None:
    graph = nx.path_graph(["client", "web"], create_using=nx.DiGraph)
    graph.edges["client", "web"].update(delay_ms=10, jitter_ms=4)
    graph.add_edge("web", "client")
    atlas = Atlas(reading.epochs(graph))
    internet = Internet(atlas)
    packet = probe(Truth(atlas, 0), "web", 4, transport("udp", 4, b""), 64)
    delays = sorted(internet.carry(packet, 0).delay_ns / 10**6 for _ in range(2000))

    assert 10 <= delays[0] < 10.1
    assert 11.8 < delays[1000] < 12.2
    assert 13.9 < delays[-1] <= 14


def test_a_damaged_packet_is_not_answered_by_its_target() -> None:
    graph = nx.path_graph(["client", "r1", "web"])
    atlas = Atlas(reading.epochs(graph))
    packet = bytearray(probe(Truth(atlas, 0), "web", 4, transport("udp", 4, b"payload"), 64))
    packet[-1] ^= 1

    assert Internet(atlas).carry(bytes(packet), 0).outcome is Outcome.DAMAGED


def test_no_error_is_sent_about_an_error_or_a_later_fragment() -> None:
    graph = nx.path_graph(["client", "r1", "web"])
    atlas = Atlas(reading.epochs(graph))
    truth = Truth(atlas, 0)
    error = probe(truth, "web", 4, inet.ICMP(type=11) / bytes(28), 1)
    later = bytes(
        inet.IP(src=truth.address("client"), dst=truth.address("web"), ttl=1, frag=5, proto=17) / bytes(30)
    )

    assert Internet(atlas).carry(error, 0).outcome is Outcome.UNANSWERABLE
    assert Internet(atlas).carry(later, 0).outcome is Outcome.UNANSWERABLE


def test_the_next_flow_of_an_ipv6_label_may_take_another_way() -> None:
    graph = nx.Graph()
    for branch in "abcd":
        nx.add_path(graph, ["client", "r1", branch, "web"])
    truth = Truth(Atlas(reading.epochs(graph)), 0)
    taken = {truth.paths(Flow("web", family=6, label=label))[0] for label in range(64)}

    assert len(taken) == 4
