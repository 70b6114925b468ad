"""Kinds of translation and single look-ups, on a router with a rule for each, by real traffic."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterator

import pytest
from between import between, inside, run
from programs import wait_until

import netlab
from netlab.kernel import netns
from netlab.kernel.translation import Direction, Side, Translation

# Ports say what happens: 1 masquerade, 2 snat to an address of nobody, 3 dnat, 4 dnat and masquerade, 5 and 6
# hairpin: back to the client's own link, 7 redirect: to the router itself. UDP is tracked before
# anybody answers, so nobody needs to.
RULES = """
table inet netlab_nat {
    chain targets {
        type nat hook prerouting priority dstnat
        ip daddr 10.78.1.1 udp dport 4003 dnat ip to 10.78.2.2:5003
        ip6 daddr fd78:1::1 udp dport 4003 dnat ip6 to [fd78:2::2]:5003
        ip daddr 10.78.1.1 udp dport 4004 dnat ip to 10.78.2.2:5004
        ip6 daddr fd78:1::1 udp dport 4004 dnat ip6 to [fd78:2::2]:5004
        ip daddr 10.78.2.1 udp dport 4005 dnat ip to 10.78.1.2:5005
        ip6 daddr fd78:2::1 udp dport 4005 dnat ip6 to [fd78:1::2]:5005
        ip daddr 10.78.2.1 udp dport 4006 dnat ip to 10.78.1.77:5006
        udp dport 4007 redirect to :5007
    }
    chain sources {
        type nat hook postrouting priority srcnat
        udp dport { 4001, 5004, 5005, 5006 } masquerade
        icmp type echo-request masquerade
        ip daddr 10.78.2.2 udp dport 4002 snat ip to 192.0.2.9
        ip6 daddr fd78:2::2 udp dport 4002 snat ip6 to 2001:db8::9
    }
}
"""
FLOWS = [
    ("10.78.2.2", 4001, "masquerade"),
    ("10.78.2.2", 4002, "snat"),
    ("10.78.1.1", 4003, "dnat"),
    ("10.78.1.1", 4004, "both"),
    ("10.78.2.1", 4005, "hairpin"),  # to the client itself
    ("10.78.2.1", 4006, "hairpin"),  # to a neighbour of the client
    ("10.78.2.2", 4007, "dnat"),  # to the router's own address on the client's link
    ("fd78:2::2", 4001, "masquerade"),
    ("fd78:2::2", 4002, "snat"),
    ("fd78:1::1", 4003, "dnat"),
    ("fd78:1::1", 4004, "both"),
    ("fd78:2::1", 4005, "hairpin"),
    ("fd78:2::2", 4007, "dnat"),
]
PLAIN = ("10.78.2.2", 4999)


LONG = ("net.netfilter.nf_conntrack_udp_timeout=3600", "net.netfilter.nf_conntrack_icmp_timeout=3600")


@pytest.fixture(scope="module")
def router() -> Iterator[str]:
    with between(78) as net, contextlib.ExitStack() as held:
        inside(net.router, "nft", "-f", "-", text=RULES)
        inside(net.router, "sysctl", "-qw", *LONG)
        run("ip", "-n", net.router, "neigh", "add", "10.78.1.77", "lladdr", "02:00:00:00:00:77", "dev", "c")
        with netns.entered(net.client):
            for dst, dport in [*(flow[:2] for flow in FLOWS), PLAIN]:
                family = socket.AF_INET6 if ":" in dst else socket.AF_INET
                client = held.enter_context(socket.socket(family, socket.SOCK_DGRAM))
                client.sendto(b"x", (dst, dport))
            ping = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
            held.enter_context(ping).settimeout(10)
            ping.sendto(bytes([8, 0, 0, 0, 0, 0, 0, 1]), ("10.78.2.2", 0))
            ping.recv(100)
        # Packets wait for the neighbour's link-layer address.
        wait_until(lambda: len(tuples(net.router)) > len(FLOWS))
        yield net.router


@pytest.mark.privileged
@pytest.mark.parametrize(("dst", "dport", "kind"), FLOWS)
def test_the_kind_is_what_the_rule_did(router: str, dst: str, dport: int, kind: str) -> None:
    frame = netlab.nat(netns=router, protocol="udp")

    assert frame[(frame.dst == dst) & (frame.dport == dport)].kind.tolist() == [kind]


@pytest.mark.privileged
def test_only_translated_flows_are_listed_and_all_of_them(router: str) -> None:
    frame = netlab.nat(netns=router)

    assert len(frame) == len(FLOWS) + 1  # and the ping
    assert frame.kind.notna().all()
    assert PLAIN[1] not in set(frame.dport.dropna())


@pytest.mark.privileged
def test_the_nat_column_says_only_what_the_tuples_say(router: str) -> None:
    frame = netlab.nat(netns=router, protocol="udp")

    plain = frame.kind.astype("string").replace({"masquerade": "snat", "hairpin": "both"})
    assert frame.nat.astype("string").tolist() == plain.tolist()


@pytest.mark.privileged
def test_no_translation_is_an_empty_frame_with_the_same_columns(router: str) -> None:
    frame = netlab.nat(netns=router, port=1)

    assert frame.empty
    assert list(frame.columns) == netlab.schemas.NAT.names


def tuples(router: str) -> list[tuple[tuple[str, int, str, int], tuple[str, int, str, int]]]:
    """Return the original and the reply tuple of each UDP entry, as conntrack(8) prints them."""
    said = inside(router, "conntrack", "-L", "-p", "udp")
    found = re.findall(r"src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+)", said)
    ends = [(src, int(sport), dst, int(dport)) for src, dst, sport, dport in found]
    return list(zip(ends[::2], ends[1::2], strict=True))


def turned(packet: tuple[str, int, str, int]) -> tuple[str, int, str, int]:
    return packet[2], packet[3], packet[0], packet[1]


def ends(found: Translation | None) -> tuple[str, int | None, str, int | None]:
    assert found is not None
    return found.src, found.sport, found.dst, found.dport


@pytest.mark.privileged
def test_each_flow_is_found_from_either_side_in_either_direction(router: str) -> None:
    flows = tuples(router)
    assert len(flows) == len(FLOWS) + 1

    for original, reply in flows:
        there = netlab.translate("udp", *original, netns=router)
        assert ends(there) == turned(reply)
        assert there is not None
        assert (there.direction, there.asked) == (Direction.ORIGINAL, Side.BEFORE)
        back = netlab.translate("udp", *reply, netns=router)
        assert ends(back) == turned(original)
        before = netlab.translate("udp", *turned(reply), netns=router)
        assert ends(before) == original
        assert ends(netlab.translate("udp", *turned(original), netns=router)) == reply


@pytest.mark.privileged
def test_a_packet_after_translation_says_so(router: str) -> None:
    original, reply = next(pair for pair in tuples(router) if pair[0][3] == 4002)
    found = netlab.translate(17, *turned(reply), netns=router)

    assert found is not None
    assert (found.direction, found.asked, found.netns) == (
        Direction.ORIGINAL,
        Side.AFTER,
        netns.inode(router),
    )
    assert found.src == original[0]


@pytest.mark.privileged
def test_an_echo_is_found_by_its_identifier(router: str) -> None:
    (row,) = netlab.nat(netns=router, protocol="icmp").itertuples()

    there = netlab.translate("icmp", row.src, row.sport, row.dst, netns=router)
    assert there is not None
    assert (there.src, there.sport, there.dst) == (row.reply_dst, row.reply_sport, row.dst)
    back = netlab.translate("icmp", row.reply_src, row.reply_sport, row.reply_dst, netns=router)
    assert back is not None
    assert (back.src, back.sport, back.dst) == (row.dst, row.sport, row.src)
    assert back.direction is Direction.REPLY


@pytest.mark.privileged
def test_a_flow_that_is_not_tracked_has_no_translation(router: str) -> None:
    assert netlab.translate("tcp", "10.78.1.2", 1, "10.78.2.2", 2, netns=router) is None
    assert netlab.translate("udp", "fd78:1::2", 1, "fd78:2::2", 2, netns=router) is None


@pytest.mark.privileged
def test_a_flow_is_looked_up_in_its_zone(router: str) -> None:
    flow = ("10.9.0.1", 1, "10.9.0.2", 2)
    add = "conntrack -I -p udp -s 10.9.0.1 -d 10.9.0.2 --sport 1 --dport 2 -t 60 -w 6 --src-nat 192.0.2.6"
    inside(router, *add.split())
    try:
        assert netlab.translate("udp", *flow, netns=router) is None
        assert ends(netlab.translate("udp", *flow, netns=router, zone=6)) == ("192.0.2.6", 1, "10.9.0.2", 2)
    finally:
        inside(router, "conntrack", "-D", "-s", "10.9.0.1")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("tpc", "10.0.0.1", 1, "10.0.0.2", 2), "Did you mean 'tcp'"),
        (("gre", "10.0.0.1", 1, "10.0.0.2", 2), "has no ports"),
        (("tcp", "10.0.0.1", 1, "::1", 2), "two families"),
        (("tcp", "10.0.0", 1, "10.0.0.2", 2), "src '10.0.0' is not an IP address"),
        (("tcp", "10.0.0.1", 1, "10.0.0.2"), "dport None"),
        (("tcp", "10.0.0.1", 70_000, "10.0.0.2", 2), "sport 70000"),
        (("icmp", "10.0.0.1", 1, "10.0.0.2", 2), "Leave it out"),
    ],
)
def test_bad_input_is_refused(arguments: tuple[object, ...], said: str) -> None:
    with pytest.raises(netlab.BadInput, match=re.escape(said)):
        netlab.translate(*arguments)  # type: ignore[arg-type]
