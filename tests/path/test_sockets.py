"""Parts of the seam that a whole trace does not show: permissions, filters, clocks, resolving."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading

import pytest
from hypothesis import given, strategies as st
from scapy.layers import inet, inet6

from netlab.errors import BadInput, ProbeError
from netlab.path import filters, names, target
from netlab.path.listening import Ear
from netlab.path.state import Answer, Clock, Probe, timing


@pytest.mark.privileged
def test_raw_sockets_without_cap_net_raw_are_refused_with_the_command_that_grants_it() -> None:
    code = "import netlab.path.trace as t; t.traceroute('127.0.0.1', method='raw')"
    run = subprocess.run(
        ["setpriv", "--bounding-set", "-net_raw", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
    )

    assert "CapabilityError: traceroute cannot open raw sockets" in run.stderr
    assert "setcap cap_net_raw+ep /" in run.stderr


def heard_of(program: bytes, protocol: int, *messages: bytes) -> list[bytes]:
    """Return which of the transport packets, sent over loopback, the filter lets into a raw socket."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol) as listener,
        socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol) as sender,
    ):
        ear = Ear(listener, program)
        for message in messages:
            sender.sendto(message, ("127.0.0.1", 0))
        return [packet.data for packet in ear.heard() if packet.data in messages]


@pytest.mark.privileged
def test_the_filter_of_errors_goes_by_the_quoted_protocol_and_destination_port() -> None:
    options = [inet.IPOption(b"\x01\x01\x01\x01")]  # a quoted header longer than usual
    header = inet.IP(src="127.0.0.1", dst="127.0.0.1", options=options)
    passing = [inet.UDP(sport=1, dport=33_434), inet.UDP(sport=2, dport=33_434)]
    others = [
        inet.UDP(sport=1, dport=33_433),
        inet.UDP(sport=1, dport=33_435),
        inet.TCP(sport=1, dport=33_434),
    ]
    messages = [bytes(inet.ICMP(type=11) / bytes(header / quoted)) for quoted in passing + others]
    program = filters.errors(4, socket.IPPROTO_UDP, 33_434)

    assert heard_of(program, socket.IPPROTO_ICMP, *messages) == messages[:2]


@pytest.mark.privileged
@pytest.mark.parametrize("version", [4, 6])
def test_the_filter_of_errors_goes_by_the_quoted_target(version: int) -> None:
    family, own, there = (
        (socket.AF_INET, "127.0.0.1", "192.0.2.{}")
        if version == 4
        else (socket.AF_INET6, "::1", "2001:db8::{}")
    )
    kind = socket.IPPROTO_ICMP if version == 4 else socket.IPPROTO_ICMPV6
    header = inet.IP if version == 4 else inet6.IPv6
    asked = tuple(socket.inet_pton(family, there.format(number)) for number in (1, 2, 3))
    program = filters.errors(version, socket.IPPROTO_UDP, 33_434, asked)
    with (
        socket.socket(family, socket.SOCK_RAW, kind) as listener,
        socket.socket(family, socket.SOCK_RAW, kind) as sender,
    ):
        ear = Ear(listener, program)
        for number in range(6):
            datagram = header(src=own, dst=there.format(number)) / inet.UDP(sport=1, dport=33_434)
            exceeded = bytes(inet.ICMP(type=11)) if version == 4 else bytes([3]) + bytes(7)
            sender.sendto(exceeded[:8] + bytes(datagram), (own, 0))
        heard = [packet.data[8:] for packet in ear.heard() if packet.data[0] in {3, 11}]

    assert [header(quoted).dst for quoted in heard] == [there.format(number) for number in (1, 2, 3)]


@pytest.mark.privileged
def test_the_filter_of_echoes_passes_replies_to_its_identifier_and_errors_about_requests() -> None:
    header = inet.IP(src="127.0.0.1", dst="127.0.0.1")
    quoted = [inet.ICMP(id=8, seq=1), inet.ICMP(type=0, id=7, seq=1), inet.UDP(sport=0x800, dport=1)]
    messages = [bytes(inet.ICMP(type=11) / bytes(header / packet)) for packet in quoted]
    messages += [bytes(inet.ICMP(type=0, id=7, seq=9)), bytes(inet.ICMP(type=0, id=8, seq=9))]

    assert heard_of(filters.echoes(4, 7), socket.IPPROTO_ICMP, *messages) == [messages[0], messages[3]]


@pytest.mark.privileged
def test_the_filter_of_errors_lets_quotes_with_extension_headers_pass() -> None:
    header, datagram = inet6.IPv6(src="::1", dst="::1"), inet.UDP(sport=1, dport=33_434)
    passing = [bytes(header / datagram), bytes(header / inet6.IPv6ExtHdrHopByHop() / datagram)]
    other = bytes(header / inet.UDP(sport=1, dport=33_435))
    with (
        socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as listener,
        socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as sender,
    ):
        ear = Ear(listener, filters.errors(6, socket.IPPROTO_UDP, 33_434))
        for quoted in (*passing, other):
            sender.sendto(bytes([3]) + bytes(7) + quoted, ("::1", 0))

        assert [heard.data[8:] for heard in ear.heard()] == passing


@pytest.mark.privileged
def test_the_filter_of_answers_knows_many_ports_on_this_side_and_one_on_the_other() -> None:
    own = range(20_000, 20_000 + 2 * filters.MOST_PORTS, 2)
    ports = [(53, own[0]), (53, own[-1]), (53, own[0] + 1), (52, own[0]), (54, own[0])]
    messages = [bytes(inet.UDP(sport=sport, dport=dport)) for sport, dport in ports]
    program = filters.answers(4, 53, own)

    assert heard_of(program, socket.IPPROTO_UDP, *messages) == messages[:2]


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
        dropped = ear.dropped  # those that nothing came after, too
        sender.sendto(b"last", listener.getsockname())
        (last,) = ear.heard()

    assert dropped == ear.dropped == 200 - len(kept) > 0
    assert (last.data, last.ttl) == (b"last", 64)
    assert last.stamp_ns is not None


def answered(
    *, wall_ns: int, stamp_ns: int | None, took_ns: int, left_ns: int | None = None
) -> tuple[int, Clock]:
    probe = Probe(mark=1, ttl=1, attempt=0, wall_ns=wall_ns, sent_ns=5000)
    answer = Answer(
        flow=0,
        mark=1,
        address="a",
        reply="r",
        ttl=64,
        left_ns=left_ns,
        stamp_ns=stamp_ns,
        received_ns=5000 + took_ns,
    )
    return timing(probe, answer)


@given(st.integers(1, 10**9), st.integers(0, 10**9))
def test_a_kernel_timestamp_within_the_interval_is_the_round_trip_time(true_ns: int, late_ns: int) -> None:
    took = answered(wall_ns=10**18, stamp_ns=10**18 + true_ns, took_ns=true_ns + late_ns)

    assert took == (true_ns, Clock.KERNEL_RECEIVE)


@given(st.integers(1, 10**9), st.integers(0, 10**9), st.integers(0, 10**9))
def test_two_kernel_timestamps_leave_out_what_this_process_took(true_ns: int, early: int, late: int) -> None:
    left_ns = 10**18 + early
    took = answered(
        wall_ns=10**18, left_ns=left_ns, stamp_ns=left_ns + true_ns, took_ns=early + true_ns + late
    )

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
