"""Packets stay sound when routers change them, as scapy sees it."""

from __future__ import annotations

import ipaddress
from typing import Any

import networkx as nx
import pytest
from hypothesis import given, strategies as st
from scapy.layers import inet, inet6
from shapes import parsed, quote

from netlab.lab.internet import reading
from netlab.lab.internet.forward import Internet
from netlab.lab.internet.parcel import received
from netlab.lab.internet.routing import Atlas
from netlab.lab.internet.truth import Flow, Truth

OUTSIDE = {4: ipaddress.ip_address("203.0.113.9").packed, 6: ipaddress.ip_address("2001:db8:9::9").packed}


def datagram(family: int, payload: bytes) -> bytes:
    if family == 4:
        return bytes(inet.IP(src="192.0.2.1", dst="192.0.2.2") / inet.UDP(sport=5, dport=6) / payload)
    return bytes(inet6.IPv6(src="2001:db8::1", dst="2001:db8::2") / inet.UDP(sport=5, dport=6) / payload)


def checksum_by_scapy(packet: bytes) -> int:
    layers: Any = parsed(packet)
    del layers[inet.UDP].chksum
    return int(parsed(bytes(layers))[inet.UDP].chksum)


@given(st.sampled_from([4, 6]), st.binary(max_size=40), st.integers(0, 0xFFFF))
def test_a_translated_datagram_has_the_checksum_that_scapy_computes(
    family: int, payload: bytes, port: int
) -> None:
    parcel = received(datagram(family, payload))
    parcel.readdress(source=OUTSIDE[family])
    parcel.set_word(0, port)
    packet = parcel.encode()

    assert (parsed(packet).sport, parsed(packet)[inet.UDP].chksum) == (port, checksum_by_scapy(packet))


def test_a_checksum_that_becomes_zero_is_written_as_all_ones() -> None:
    plain = received(datagram(4, bytes(2)))
    plain.set_word(0, 1)
    # The port grows by what the checksum has left: it would come out as zero.
    plain.set_word(0, (1 + plain.word(6)) % 0xFFFF)

    assert plain.word(6) == 0xFFFF == checksum_by_scapy(plain.encode())


def test_a_datagram_without_a_checksum_gets_none() -> None:
    packet = bytearray(datagram(4, b"payload"))
    packet[26:28] = bytes(2)
    parcel = received(bytes(packet))
    parcel.readdress(source=OUTSIDE[4])

    assert parcel.word(6) == 0


def test_fragments_but_the_last_are_a_multiple_of_eight_bytes_long() -> None:
    graph = nx.path_graph(["client", "r1", "r2", "web"])
    graph.edges["r1", "r2"]["mtu_bytes"] = 1005
    atlas = Atlas(reading.epochs(graph))
    address = Truth(atlas, 0).address
    packet = inet.IP(src=address("client"), dst=address("web"), ttl=2) / inet.UDP() / bytes(1200)
    answer = Internet(atlas).carry(bytes(packet), 0).answer

    assert answer is not None
    assert inet.IP(quote(answer)).len == 20 + 984


def test_nothing_passes_through_the_client() -> None:
    graph = nx.Graph([("client", "r1"), ("client", "r2"), ("r1", "a"), ("a", "b"), ("b", "r2")])
    internet = Internet(Atlas(reading.epochs(graph)))
    truth = Truth(Atlas(reading.epochs(graph)), 0)
    # A packet that r1 made out to be the client's: its answer goes the long way, not back over the client.
    packet = inet.IP(src=truth.address("r1"), dst=truth.address("r2")) / inet.UDP()
    journey = internet.carry(bytes(packet), 0)

    assert (journey.there, journey.back) == (("r2",), ("b", "a", "r1"))
    assert (journey.outcome, journey.place) == ("astray", "r1")


@pytest.mark.parametrize("family", [4, 6])
def test_the_default_route_leads_over_the_clients_first_link(family: int) -> None:
    graph = nx.Graph([("client", "r1"), ("client", "r2"), ("r1", "a"), ("a", "b"), ("b", "r2")])
    truth = Truth(Atlas(reading.epochs(graph)), 0)
    nowhere = "203.0.113.1" if family == 4 else "fd00::1"

    assert truth.paths(Flow(nowhere)) == [("r1",)]
