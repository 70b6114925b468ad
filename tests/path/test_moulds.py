"""The packets of a mould, beside those that are encoded one by one and that scapy seals."""

from __future__ import annotations

import pytest
from flows import KINDS, flow
from hypothesis import given, strategies as st

from netlab.path.moulds import Mould
from netlab.path.probes import MARKS, Protocol
from netlab.wire import ip


@pytest.mark.parametrize("protocol", KINDS)
@pytest.mark.parametrize("family", [4, 6])
@given(ttl=st.integers(1, 255), mark=st.integers(1, MARKS), tos=st.integers(0, 255))
def test_a_mould_makes_the_packets_that_its_flow_encodes(
    protocol: Protocol, family: int, ttl: int, mark: int, tos: int
) -> None:
    probed = flow(protocol, family, tos=tos)

    assert Mould(probed).packet(ttl, mark) == probed.packet(ttl, mark)


@pytest.mark.parametrize("protocol", KINDS)
@pytest.mark.parametrize("family", [4, 6])
def test_every_mark_has_its_packet(protocol: Protocol, family: int) -> None:
    probed = flow(protocol, family)
    mould = Mould(probed)

    assert all(mould.packet(9, mark) == probed.packet(9, mark) for mark in range(1, MARKS + 1, 13))


@pytest.mark.parametrize("protocol", KINDS)
@pytest.mark.parametrize("family", [4, 6])
@given(ttl=st.integers(0, 255), mark=st.integers(1, MARKS), size=st.integers(0, 200))
def test_a_packet_is_found_in_quotes_that_show_its_mark(
    protocol: Protocol, family: int, ttl: int, mark: int, size: int
) -> None:
    probed = flow(protocol, family)
    quote = probed.packet(ttl, mark).ljust(200, b"\0")[:size]

    assert Mould(probed).found(quote) == ((ttl, mark) if size >= ip.SIZE[family] + 8 else None)


@pytest.mark.parametrize("protocol", KINDS)
@pytest.mark.parametrize("family", [4, 6])
@given(mark=st.integers(1, MARKS), change=st.integers(1, 255), data=st.data())
def test_no_packet_is_found_where_anything_but_the_hop_limit_was_rewritten(
    protocol: Protocol, family: int, mark: int, change: int, data: st.DataObject
) -> None:
    probed = flow(protocol, family)
    quote = bytearray(probed.packet(1, mark))
    place = data.draw(st.integers(0, len(quote) - 1).filter(lambda at: (family, at) != (6, 7)))
    quote[place] ^= change

    assert Mould(probed).found(bytes(quote)) is None
