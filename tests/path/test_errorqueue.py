"""What error queues tell, about real packets and about packets that somebody makes up."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import Any

import pytest
from scapy.layers import inet, inet6
from scapy.packet import Raw

from netlab.kernel.netns import entered
from netlab.path import target
from netlab.path.plain import PlainStation
from netlab.path.probes import Protocol
from netlab.path.state import Answer
from netlab.path.unprivileged import PlainOutlet
from netlab.wire import ip

Chain = Any  # the fixture's class lives in conftest.py

pytestmark = pytest.mark.privileged
both = pytest.mark.parametrize("family", [4, 6])

CLIENT = {4: "10.99.1.1", 6: "fd99:1::1"}
ROUTER = {4: "10.99.1.2", 6: "fd99:1::2"}
FAR_TTL = 64  # reaches the server, which drops the probe


@pytest.fixture(autouse=True)
def _quiet(chain: Chain) -> Any:
    chain.run("client", "sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647")
    with chain.rules(
        "server", "type filter hook input priority 0\nmeta l4proto { tcp, udp, icmp, icmpv6 } drop"
    ):
        yield


class Channel(contextlib.AbstractContextManager["Channel"]):
    """A station of ordinary sockets with one outlet, to the server."""

    def __init__(self, chain: Chain, family: int, protocol: Protocol) -> None:
        chosen, source = target.routed(target.resolve(chain.target(family)), chain.client)
        self.station = PlainStation(protocol, port=33_434, source_port=None, netns=chain.client, tos=0)
        self.outlet = PlainOutlet(self.station, chosen, source)
        self.send = self.outlet.send

    def __exit__(self, *_: object) -> None:
        self.station.close()

    def probe(self, mark: int) -> bytes:
        """Return the transport packet of a probe."""
        return ip.decode(self.outlet.line(0).flow.packet(1, mark))[1]

    def heard(self) -> list[Answer]:
        answers: list[Answer] = []
        while found := self.station.receive(5 * 10**7):
            answers += [answer for outlet, answer in found if outlet is self.outlet]
        return answers


def time_exceeded(chain: Chain, family: int, protocol: int, transport: bytes) -> None:
    """Have the first router say that a packet of the client's, which starts so, has expired."""
    ends = {"src": CLIENT[family], "dst": chain.target(family)}
    if family == 4:
        quoted = inet.IP(**ends, proto=protocol) / Raw(transport)
        message = inet.ICMP(type=11) / Raw(bytes(quoted))
        number = socket.IPPROTO_ICMP
    else:
        quoted = inet6.IPv6(**ends, nh=protocol) / Raw(transport)
        whole = inet6.IPv6(src=ROUTER[6], dst=CLIENT[6]) / inet6.ICMPv6TimeExceeded() / Raw(bytes(quoted))
        message = Raw(bytes(whole)[40:])
        number = socket.IPPROTO_ICMPV6
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    with entered(chain.netns("r1")), socket.socket(kind, socket.SOCK_RAW, number) as sock:
        sock.sendto(bytes(message), (CLIENT[family], 0))


KINDS: dict[str, tuple[Protocol, dict[int, int]]] = {
    "udp": (Protocol.UDP, {4: 17, 6: 17}),
    "icmp": (Protocol.ICMP, {4: 1, 6: 58}),
}
kinds = pytest.mark.parametrize("kind", KINDS)


@both
@kinds
def test_an_error_is_about_the_probe_that_it_quotes(chain: Chain, family: int, kind: str) -> None:
    protocol, numbers = KINDS[kind]
    with Channel(chain, family, protocol) as channel:
        for mark in (5, 6, 7):
            channel.send(0, FAR_TTL, mark)
        time_exceeded(chain, family, numbers[family], channel.probe(6))
        (answer,) = channel.heard()

    assert (answer.flow, answer.mark, answer.reply) == (0, 6, "time-exceeded")
    assert answer.address == ROUTER[family]
    assert answer.ttl == 64
    assert answer.stamp_ns is not None


MADE_UP: dict[str, Callable[[bytes], bytes]] = {
    "other data": lambda packet: packet[:8] + bytes(reversed(packet[8:])),
    "other trailer": lambda packet: packet[:-4] + b"\1\2\3\4",
}


@both
@kinds
@pytest.mark.parametrize("change", MADE_UP)
def test_a_quote_with_other_data_is_nobodys(chain: Chain, family: int, kind: str, change: str) -> None:
    protocol, numbers = KINDS[kind]
    with Channel(chain, family, protocol) as channel:
        channel.send(0, FAR_TTL, 5)
        time_exceeded(chain, family, numbers[family], MADE_UP[change](channel.probe(5)))

        assert channel.heard() == []
        assert channel.station.unreadable == 1


@both
@kinds
def test_a_quote_of_a_probe_that_was_not_sent_is_nobodys(chain: Chain, family: int, kind: str) -> None:
    protocol, numbers = KINDS[kind]
    with Channel(chain, family, protocol) as channel:
        channel.send(0, FAR_TTL, 5)
        time_exceeded(chain, family, numbers[family], channel.probe(6))

        assert channel.heard() == []
        assert channel.station.unreadable == 1


@both
@pytest.mark.parametrize(("kind", "mark"), [("udp", None), ("icmp", 5)])
@pytest.mark.parametrize("padding", [0, 120])
def test_eight_quoted_bytes_tell_an_echo_request_and_no_datagram(
    chain: Chain, family: int, kind: str, mark: int | None, padding: int
) -> None:
    protocol, numbers = KINDS[kind]
    with Channel(chain, family, protocol) as channel:
        channel.send(0, FAR_TTL, 5)
        time_exceeded(chain, family, numbers[family], channel.probe(5)[:8] + bytes(padding))
        (answer,) = channel.heard()

    assert (answer.mark, answer.address) == (mark, ROUTER[family])


@both
@kinds
def test_errors_that_nobody_has_read_yet_do_not_keep_probes_from_leaving(
    chain: Chain, family: int, kind: str
) -> None:
    with Channel(chain, family, KINDS[kind][0]) as channel:
        for mark in range(1, 41):
            channel.send(0, 1 + mark % 3, mark)
        answers = channel.heard()

    assert sorted(answer.mark or 0 for answer in answers) == list(range(1, 41))
    assert {answer.address for answer in answers} == set(chain.hops(family)[:3])


@both
def test_an_error_about_an_earlier_syn_is_not_about_the_one_under_way(chain: Chain, family: int) -> None:
    with Channel(chain, family, Protocol.TCP) as channel:
        own, port = channel.outlet.ports[0]
        channel.send(0, FAR_TTL, 5)
        ports = (own or 0).to_bytes(2, "big") + (port or 0).to_bytes(2, "big")
        for sequence in (b"\0\0\0\0", b"\x80\0\0\0"):
            time_exceeded(chain, family, 6, ports + sequence)

        assert channel.heard() == []

        channel.send(0, 2, 6)
        (answer,) = channel.heard()

    assert (answer.mark, answer.address) == (6, chain.hops(family)[1])
