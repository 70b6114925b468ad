"""The packets of a mould, beside those that are encoded one by one and that scapy seals."""

from __future__ import annotations

import pytest
from flows import KINDS, flow
from hypothesis import given, strategies as st

from netlab.path.moulds import Mould
from netlab.path.probes import MARKS, Protocol


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
