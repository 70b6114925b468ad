"""Where interfaces lead to, held against iproute2; and which namespaces have rules that translate."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator

import chains
import pytest

from netlab.kernel import natrules, netns, nsids, routing, spaces
from netlab.kernel.lookups import Question
from netlab.kernel.onward import End, Onward, Peer
from netlab.kernel.rtnetlink import Link


@pytest.fixture(scope="module", autouse=True)
def chain() -> Iterator[None]:
    if os.geteuid():
        yield
        return
    with chains.chain():
        yield


def known(role: str) -> Onward:
    files = {chains.inode(one): netns.path(chains.name(one)) for one in chains.ROLES}

    def ask() -> Onward:
        with routing.Routing() as here:
            return Onward.here(netns.inode(), here.links, files)

    return spaces.ask(chains.name(role), ask).by_inode[chains.inode(role)]


@pytest.mark.privileged
@pytest.mark.parametrize("role", chains.ROLES)
def test_every_pair_leads_where_iproute2_says(role: str) -> None:
    here = known(role)
    said = json.loads(chains.ip(role, "-j", "link", "show", "type", "veth"))
    inodes = {chains.name(one): chains.inode(one) for one in chains.ROLES}

    assert len(said) > 0
    for link in said:
        peer = here.peer(here.links[link["ifindex"]])
        assert isinstance(peer, Peer)
        (name,) = (name for name, inode in inodes.items() if inode == peer.netns)
        there = json.loads(chains.run("ip", "-n", name, "-j", "link", "show", "type", "veth"))
        (end,) = (one for one in there if one["ifindex"] == peer.index)
        assert [end["link_index"], link["link_index"]] == [link["ifindex"], end["ifindex"]]


@pytest.mark.privileged
def test_a_bridge_sends_by_the_port_that_its_table_has() -> None:
    with chains.entered("client"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"so that the bridge learns its MAC", ("10.79.1.1", 9))
    here = known("host")
    bridge = next(link for link in here.links.values() if link.kind == "bridge")
    mac = json.loads(chains.ip("client", "-j", "link", "show", "eth0"))[0]["address"]

    assert getattr(here.port(bridge, mac), "name", None) == "port1"
    assert here.port(bridge, bridge.mac) == bridge
    assert isinstance(here.port(bridge, "02:00:00:00:99:99"), End)
    assert isinstance(here.port(bridge, None), End)


@pytest.mark.privileged
def test_a_namespace_without_a_file_is_none_to_follow_to() -> None:
    with chains.entered("client"):
        assert nsids.known({}) == {}
        assert nsids.known({1: netns.path(chains.name("server"))}) == {}  # which it has nothing to do with
        assert list(nsids.known({7: netns.path(chains.name("host"))}).values()) == [7]


LINKS = {
    link.index: link
    for link in (
        Link(1, "eth0", "", 0),
        Link(2, "port", "veth", 5, peer=9, peer_netns=0),
        Link(3, "member", "veth", 6, peer=9),
        Link(4, "inside", "veth", 7, peer=9, peer_netns=3),
        Link(5, "br0", "bridge", 0),
        Link(6, "bond0", "bond", 5),
        Link(7, "red", "vrf", 0),
        Link(8, "odd", "veth", 9),
        Link(9, "ovs", "openvswitch", 0),
    )
}
HERE = Onward(100, LINKS, {}, {0: 200})


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (1, End("leaves the host by eth0", outside=True)),
        (2, Peer(200, 9)),
        (3, Peer(100, 9)),
        (8, End("the other end of odd is not known")),
        (7, End("leaves by red: what a vrf device does is not followed")),
    ],
)
def test_an_interface_leads_to_its_other_end_or_says_why_not(index: int, expected: object) -> None:
    assert HERE.peer(LINKS[index]) == expected


def test_a_mac_at_another_port_in_each_vlan_is_not_guessed() -> None:
    here = Onward(100, LINKS, {(5, "02::1"): {2}, (5, "02::2"): {2, 3}}, {})

    assert here.port(LINKS[5], "02::1") == LINKS[2]
    assert here.port(LINKS[5], "02::2") == End(
        "br0 has 02::2 at 2 ports: the VLAN decides, which is not followed"
    )


def test_a_pair_into_an_unknown_namespace_says_so() -> None:
    told = HERE.peer(LINKS[4])

    assert isinstance(told, End)
    assert "a network namespace without a process or name here" in told.detail


@pytest.mark.parametrize(("index", "came_to"), [(1, 1), (2, 5), (3, 5), (4, 4), (6, 5)])
def test_what_comes_to_a_port_has_come_to_the_bridge(index: int, came_to: int) -> None:
    assert HERE.comes_to(LINKS[index]) == LINKS[came_to]


def test_a_port_of_something_unknown_is_not_followed() -> None:
    told = HERE.comes_to(LINKS[8])

    assert told == End("odd is a port of ovs: what a openvswitch device does is not followed")


@pytest.mark.privileged
@pytest.mark.parametrize(("role", "expected"), [("host", True), ("gateway", True), ("server", False)])
def test_namespaces_with_chains_of_nat_are_told_from_others(role: str, *, expected: bool) -> None:
    with chains.entered(role):
        assert natrules.present() is expected


@pytest.mark.privileged
def test_a_filter_is_no_rule_of_nat() -> None:
    rules = "table inet explained_filter {\n chain seen {\n type filter hook input priority 0\n }\n}\n"
    chains.run("ip", "netns", "exec", chains.name("server"), "nft", "-f", "-", text=rules)
    try:
        with chains.entered("server"):
            assert natrules.present() is False
    finally:
        chains.run("ip", "netns", "exec", chains.name("server"), "nft", "delete table inet explained_filter")


@pytest.mark.privileged
@pytest.mark.parametrize(
    ("destination", "source", "device"),
    [
        ("10.79.3.2", "10.79.1.2", "br0"),
        ("10.79.1.1", "10.79.1.2", "br0"),
        ("10.79.1.2", "10.79.3.2", "uplink"),
        ("203.0.113.1", "198.51.100.7", "br0"),
        ("10.79.3.2", "127.0.0.1", "br0"),
        ("fd79:3::2", "fd79:1::2", "br0"),
        ("fd79:1::1", "fd79:1::2", "br0"),
    ],
)
def test_the_way_of_what_arrives_is_that_of_ip_route_get(destination: str, source: str, device: str) -> None:
    family = socket.AF_INET6 if ":" in destination else socket.AF_INET
    packed = (socket.inet_pton(family, one) for one in (destination, source))
    with chains.entered("host"), routing.Routing() as here:
        index = next(link.index for link in here.links.values() if link.name == device)
        (way,) = here.ways([Question(6 if ":" in destination else 4, *packed, arrived=index)])
    command = ("ip", "-n", chains.name("host"), "-j", "route", "get", destination)
    try:
        said = json.loads(chains.run(*command, "from", source, "iif", device))[0]
    except subprocess.CalledProcessError:
        assert way.error == "EINVAL"
        return

    assert [way.gateway, way.type] == [said.get("gateway"), said.get("type", "unicast")]
    assert way.interface == said["dev"]
