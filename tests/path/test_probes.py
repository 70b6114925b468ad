"""What probes carry: scapy reads and seals them."""

from __future__ import annotations

from typing import Any

import pytest
from flows import KINDS, flow
from hypothesis import given, strategies as st
from scapy.layers import inet, inet6

from netlab.path.probes import MARKS, Flow, Protocol

marks = st.integers(1, MARKS)
kinds = pytest.mark.parametrize("protocol", KINDS)
families = pytest.mark.parametrize("family", [4, 6])


@kinds
@families
@given(mark=marks, ttl=st.integers(1, 255))
def test_what_load_balancers_hash_is_the_same_for_every_probe(
    protocol: Protocol, family: int, mark: int, ttl: int
) -> None:
    first, other = (hashed(flow(protocol, family).packet(*given)) for given in ((1, 1), (ttl, mark)))

    assert first == other


def hashed(packet: bytes) -> tuple[Any, ...]:
    """Return the header fields that any balancer may look at, and the bytes that Linux takes for ports."""
    layers = inet.IP(packet) if packet[0] >> 4 == 4 else inet6.IPv6(packet)
    label = layers.fl if isinstance(layers, inet6.IPv6) else None
    traffic_class = layers.tc if isinstance(layers, inet6.IPv6) else layers.tos
    identifier = getattr(layers.payload, "id", None)  # of an echo request
    start = bytes(layers.payload)[:4]
    return layers.src, layers.dst, label, traffic_class, type(layers.payload), start, identifier, len(packet)


@kinds
@families
def test_another_flow_has_another_key_and_another_flow_label(protocol: Protocol, family: int) -> None:
    first, other = flow(protocol, family), flow(protocol, family, number=1)

    assert first.key != other.key
    assert hashed(first.packet(3, 9))[5] == first.key
    assert hashed(other.packet(3, 9)) != hashed(first.packet(3, 9))


@kinds
@families
@given(mark=marks)
def test_probes_are_packets_that_scapy_seals_the_same_way(protocol: Protocol, family: int, mark: int) -> None:
    packet = flow(protocol, family).packet(5, mark)

    assert bytes(unsealed(packet)) == packet


def unsealed(packet: bytes) -> Any:
    """Return *packet* as scapy's, which computes all checksums anew."""
    layers = inet.IP(packet) if packet[0] >> 4 == 4 else inet6.IPv6(packet)
    for layer in layers.layers():
        for name in ("chksum", "cksum"):
            if name in layers[layer].fields:
                delattr(layers[layer], name)
    return layers


def test_an_echo_request_is_one_for_scapy() -> None:
    probed: Flow = flow(Protocol.ICMP)
    request = inet.IP(probed.packet(7, 4711))[inet.ICMP]

    assert (request.type, request.id, request.seq) == (8, 0xBEEF, 4711)


@pytest.mark.parametrize("protocol", [Protocol.UDP, Protocol.ICMP])
def test_the_flow_label_is_set_and_follows_the_key(protocol: Protocol) -> None:
    label = flow(protocol, 6).label

    assert 0 < label < 2**20
    assert flow(protocol, 6).label == label != flow(protocol, 6, number=1).label
