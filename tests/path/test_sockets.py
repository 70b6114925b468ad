"""Parts of the seam that a whole trace does not show: permissions, filters, clocks, resolving."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading

import pytest
from hypothesis import given, strategies as st
from scapy.layers import inet

from netlab.errors import BadInput, ProbeError
from netlab.path import filters, names, target
from netlab.path.listening import Ear
from netlab.path.probes import Flow, Protocol
from netlab.path.state import Answer, Clock, Probe, timing

LOOPBACK = b"\x7f\x00\x00\x01"


@pytest.mark.privileged
def test_without_cap_net_raw_the_error_names_it_and_the_command() -> None:
    code = "import netlab.path.trace as t; t.traceroute('127.0.0.1')"
    run = subprocess.run(
        ["setpriv", "--bounding-set", "-net_raw", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
    )

    assert "CapabilityError: traceroute cannot open raw sockets" in run.stderr
    assert "setcap cap_net_raw+ep /" in run.stderr


@pytest.mark.privileged
@pytest.mark.parametrize(("ports", "kept"), [((50_000, 33_434), 1), ((50_001, 33_434), 0), ((50_000, 1), 0)])
def test_the_filter_passes_errors_about_its_flow_only(ports: tuple[int, int], kept: int) -> None:
    flow = Flow(
        protocol=Protocol.UDP, source=LOOPBACK, target=LOOPBACK, source_port=50_000, port=33_434, salt=0
    )
    options = [inet.IPOption(b"\x01\x01\x01\x01")]  # a quoted header longer than usual
    datagram = inet.UDP(sport=ports[0], dport=ports[1])
    quoted = inet.IP(src="127.0.0.1", dst="127.0.0.1", options=options) / datagram
    message = bytes(inet.ICMP(type=11) / bytes(quoted))

    with (
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as listener,
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sender,
    ):
        ear = Ear(listener, filters.errors(flow))
        sender.sendto(message, ("127.0.0.1", 0))
        heard = [packet for packet in ear.heard() if packet.data == message]

    assert len(heard) == kept


@pytest.mark.privileged
def test_an_ear_says_when_a_packet_came_and_counts_what_did_not_fit() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        ear = Ear(listener)
        for _ in range(200):
            sender.sendto(bytes(1000), listener.getsockname())
        kept = list(ear.heard())
        sender.sendto(b"last", listener.getsockname())
        (last,) = ear.heard()

    assert ear.dropped == 200 - len(kept) > 0
    assert (last.data, last.ttl) == (b"last", 64)
    assert last.stamp_ns is not None


def answered(*, wall_ns: int, stamp_ns: int | None, took_ns: int) -> tuple[int, Clock]:
    probe = Probe(mark=1, ttl=1, attempt=0, wall_ns=wall_ns, sent_ns=5000)
    answer = Answer(marks=(1,), address="a", reply="r", ttl=64, stamp_ns=stamp_ns, received_ns=5000 + took_ns)
    return timing(probe, answer)


@given(st.integers(1, 10**9), st.integers(0, 10**9))
def test_a_kernel_timestamp_within_the_interval_is_the_round_trip_time(true_ns: int, late_ns: int) -> None:
    took = answered(wall_ns=10**18, stamp_ns=10**18 + true_ns, took_ns=true_ns + late_ns)

    assert took == (true_ns, Clock.KERNEL)


@pytest.mark.parametrize("stamp_ns", [None, 10**18 - 3_600 * 10**9, 10**18 + 3_600 * 10**9])
def test_a_wall_clock_that_was_set_in_between_is_not_used(stamp_ns: int | None) -> None:
    assert answered(wall_ns=10**18, stamp_ns=stamp_ns, took_ns=700) == (700, Clock.USER)


def test_names_that_do_not_come_in_time_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(names, "_name", lambda address: "quick" if address == "a" else str(release.wait()))

    found, unfinished = names.names_of(["a", "b", "c", "a"], wait_s=0.05)
    release.set()

    assert (found, unfinished) == ({"a": "quick"}, 2)


def test_loopback_has_the_name_of_the_hosts_file() -> None:
    found, unfinished = names.names_of(["127.0.0.1"], wait_s=10)

    assert unfinished == 0
    assert found == {"127.0.0.1": socket.gethostbyaddr("127.0.0.1")[0]}


@pytest.mark.parametrize(
    ("name", "family", "address"),
    [
        ("127.0.0.1", 4, "127.0.0.1"),
        ("::1", 6, "::1"),
        ("2001:DB8:0::1", 6, "2001:db8::1"),
        ("::ffff:192.0.2.1", 4, "192.0.2.1"),
        ("fe80::1%lo", 6, "fe80::1"),
    ],
)
def test_an_address_resolves_to_its_canonical_form(name: str, family: int, address: str) -> None:
    (found,) = target.resolve(name)

    assert (found.name, found.family, found.address) == (name, family, address)
    assert found.scope == (socket.if_nametoindex("lo") if "%" in name else 0)


def test_a_name_of_one_family_only_is_looked_up_in_it() -> None:
    assert {found.family for found in target.resolve("localhost", 4)} == {4}


def test_an_unknown_host_is_said_with_the_name() -> None:
    with pytest.raises(ProbeError, match=r"cannot resolve target 'no-such-host\.invalid'"):
        target.resolve("no-such-host.invalid")


def test_the_other_family_is_refused_by_its_number() -> None:
    with pytest.raises(BadInput, match="is an IPv4 address, but family is 6"):
        target.resolve("192.0.2.1", 6)
