"""ICMP errors that answer a SYN or a datagram: a row has the errno that the process was told."""

from __future__ import annotations

import errno
import select
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest
from loopback import cookie, disconnect
from places import Place
from scapy.layers.inet import ICMP, IP, UDP

import netlab
from netlab.lab import plan
from netlab.lab.network import PracticeNetwork
from netlab.tracer.session import Capture

pytestmark = pytest.mark.privileged
IP_RECVERR, IPV6_RECVERR = 11, 25
REJECTS = {1001: "host-unreachable", 1002: "no-route", 1003: "port-unreachable", 1004: "admin-prohibited"}
# What an administrator prohibits is EHOSTUNREACH over IPv4 (icmp_err_convert) and EACCES over IPv6.
TOLD = {
    4: {"EHOSTUNREACH", "ENETUNREACH", "ECONNREFUSED"},
    6: {"EHOSTUNREACH", "ENETUNREACH", "ECONNREFUSED", "EACCES"},
}
SILENT = 1005
PATIENCE_MS = 30_000


@pytest.fixture(scope="module")
def net() -> Iterator[PracticeNetwork]:
    """The gateway answers a SYN within the very call that sends it, once for each."""
    rules = "".join(f"tcp dport {port} reject with icmpx type {kind}\n" for port, kind in REJECTS.items())
    chain = f"type filter hook input priority 0\n{rules}tcp dport {SILENT} drop\n"
    limits = ["net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0"]
    with netlab.lab.practice() as network:
        network.gateway.run(["sysctl", "-qw", *limits], check=True)
        table = f"table inet rejecting {{\nchain input {{\n{chain}}}\n}}"
        network.gateway.run(["nft", "-f", "-"], input=table, text=True, check=True)
        yield network


@pytest.fixture(scope="module")
def flows() -> Iterator[Capture]:
    with netlab.capture(protocol="udp", backfill=False) as running:
        yield running


@pytest.fixture(scope="module")
def capture() -> Iterator[Capture]:
    with netlab.capture(protocol="tcp", backfill=False) as running:
        yield running


def gateway(at: Place, port: int) -> tuple[str, int]:
    return plan.INSIDE.address(plan.GATEWAY, at.family), port


def error_of(client: socket.socket) -> int:
    return client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def begun(at: Place, client: socket.socket, port: int) -> None:
    """Begin to connect and wait until the ICMP error is there: over IPv6 only who asks for it is woken."""
    if at.family == 6:
        client.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
    client.setblocking(False)
    client.connect_ex(gateway(at, port))
    ready = select.poll()
    ready.register(client, select.POLLOUT)
    assert ready.poll(PATIENCE_MS)


def waiting(at: Place, client: socket.socket, port: int) -> int:
    """A connect() that blocks: the answer to its second SYN ends it."""
    return client.connect_ex(gateway(at, port))


def asking(at: Place, client: socket.socket, port: int) -> int:
    """What programs with an event loop do, such as curl."""
    begun(at, client, port)
    return error_of(client)


def leaving(at: Place, client: socket.socket, port: int) -> int:
    """A program that gives up and does not ask why: it would have been told what another one is."""
    begun(at, client, port)
    with at.socket() as other:
        return asking(at, other, port)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("way", [waiting, asking, leaving])
def test_the_errno_is_what_the_process_was_told(
    net: PracticeNetwork,
    capture: Capture,
    way: Callable[[Place, socket.socket, int], int],
    family: plan.Family,
) -> None:
    at = Place(net, family)

    def attempt(port: int) -> tuple[int, str]:
        with at.socket() as client:
            return cookie(client), errno.errorcode[way(at, client, port)]

    with ThreadPoolExecutor(len(REJECTS)) as threads:
        told = dict(threads.map(attempt, REJECTS))
    seen = capture.failures().set_index("cookie")
    assert seen.loc[list(told), "error"].to_dict() == told
    assert set(told.values()) == TOLD[family]


@pytest.mark.parametrize("family", [4, 6])
def test_an_earlier_connect_of_the_socket_does_not_say_why_a_later_one_ended(
    net: PracticeNetwork, capture: Capture, family: plan.Family
) -> None:
    at = Place(net, family)
    with at.socket() as client:
        asking(at, client, 1003)
        disconnect(client)
        client.connect_ex(gateway(at, SILENT))
        socket_cookie = cookie(client)
    seen = capture.failures()
    ended = seen[seen["cookie"] == socket_cookie].sort_values("opened_at")
    assert ended["error"].tolist() == ["ECONNREFUSED", "ECANCELED"]


def asked_for(capture: Capture) -> int:
    """Return of how many attempts the coverage says that an ICMP error may have ended them."""
    coverage = netlab.coverage(capture.connections()).query("what == 'error' and kind == 'approximate'")
    return int(coverage["count"].sum())


def test_an_error_over_ipv6_that_was_asked_for_before_it_woke_the_process_is_in_the_coverage(
    net: PracticeNetwork,
) -> None:
    at, counted = Place(net, 6), []
    with netlab.capture(protocol="tcp", backfill=False, netns=net.client.inode) as capture:
        for port in (SILENT, 1003, SILENT):
            with at.socket() as client:
                client.setblocking(False)
                client.connect_ex(gateway(at, port))
                if port == 1003:
                    assert error_of(client) == errno.ECONNREFUSED
                elif counted:
                    time.sleep(1.5)  # the SYN is sent again
            counted.append(asked_for(capture))

    assert capture.failures()["error"].tolist() == ["ECANCELED"] * 3
    assert counted == [1, 2, 2]


def quoting(client: socket.socket, kind: int, code: int) -> bytes:
    """Return an ICMP error about a datagram of a connected socket; the MTU that it tells is loopback's."""
    (source, sport), (target, dport) = client.getsockname(), client.getpeername()
    datagram = IP(src=source, dst=target) / UDP(sport=sport, dport=dport)
    return bytes(ICMP(type=kind, code=code, nexthopmtu=65535 if code == 4 else 0) / datagram)


@pytest.mark.parametrize(("kind", "code"), [*((3, code) for code in range(16)), (11, 0), (12, 0)])
def test_each_error_that_icmp_has_is_a_name_and_words(
    net: PracticeNetwork, flows: Capture, kind: int, code: int
) -> None:
    at = Place(net, 4)
    with at.socket(socket.SOCK_DGRAM) as server, at.socket(socket.SOCK_DGRAM) as client:
        server.bind((at.home, 0))
        client.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)  # of errors that may pass, too
        client.connect(server.getsockname())
        client.send(b"?")
        with net.client.entered(), socket.socket(at.kind, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
            raw.sendto(quoting(client, kind, code), (at.home, 0))
        told, number = errno.errorcode[error_of(client)], cookie(client)

    row = flows.failures().set_index("cookie").loc[number]
    assert (row["error"], row["protocol"]) == (told, "udp")
    assert row["reason"] is not pd.NA
