"""When packets leave, by the kernel's own clock."""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Iterator

import pytest

from netlab.path.departures import Sender
from netlab.path.kinds import UdpFlow

pytestmark = pytest.mark.privileged


@pytest.fixture(params=[4, 6])
def sending(request: pytest.FixtureRequest) -> Iterator[tuple[Sender, bytes, str]]:
    """Return a sender, a probe to loopback and its address."""
    address = "127.0.0.1" if request.param == 4 else "::1"
    packed = ipaddress.ip_address(address).packed
    kind = socket.AF_INET if request.param == 4 else socket.AF_INET6
    flow = UdpFlow(number=0, source=packed, target=packed, salt=0, source_port=9, port=9)
    with socket.socket(kind, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        yield Sender(sock), flow.packet(1, 1), address


def test_each_packet_has_the_time_between_asking_and_being_done(sending: tuple[Sender, bytes, str]) -> None:
    sender, packet, address = sending
    times = {}
    for number in range(20):
        before = sender.send(packet, (address, 0), number)
        times[number] = before, time.time_ns()
    stamps = dict(sender.stamps())

    assert stamps.keys() == times.keys()
    assert all(times[number][0] <= stamp <= times[number][1] for number, stamp in stamps.items())
    assert sender.stamps() == []


def test_a_packet_that_was_refused_shifts_no_other_packets_time(sending: tuple[Sender, bytes, str]) -> None:
    sender, packet, address = sending
    for number in range(10):
        if number % 3 == 0:
            with pytest.raises(OSError, match=r"."):
                sender.send(packet + bytes(70_000), (address, 0), "refused")
        before = sender.send(packet, (address, 0), number)
        ((what, stamp),) = sender.stamps()

        assert what == number
        assert before <= stamp <= time.time_ns()
