from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import random
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest
from routers import DATA, Router, router, run

import netlab
from netlab.kernel import lookups, netlink, netns, rtnetlink

TABLES = {"main": 254, "local": 255, "default": 253}
ERRORS = {os.strerror(number): name for number, name in errno.errorcode.items()}


@pytest.fixture(scope="module")
def middle() -> Iterator[Router]:
    with router() as built:
        yield built


@pytest.fixture
def lone() -> Iterator[str]:
    """Yield a namespace without any rule but the usual ones."""
    name = f"netlab-gw{os.getpid()}"
    run("ip", "netns", "add", name)
    run("ip", "-n", name, "link", "set", "lo", "up")
    yield name
    run("ip", "netns", "del", name)


def drawn(count: int) -> list[tuple[str, str | None, int]]:
    """Return random destinations with a source (or none) and a mark."""
    some = random.Random(4)
    found = []
    for place in range(count):
        network = ipaddress.ip_network(DATA["destinations"][place % len(DATA["destinations"])])
        address = network[some.randrange(network.num_addresses)]
        source = some.choice([None, *DATA[f"sources{address.version}"]])
        found.append((str(address), source, some.choice(DATA["marks"])))
    return found


def as_ip_says(way: dict[str, Any], source: str | None) -> dict[str, Any]:
    """Return what `ip route get` printed in netlab's words."""
    if "error" in way:
        return {"error": ERRORS[way["error"]]}
    kind = way.get("type", "unicast")
    if kind in {"blackhole", "unreachable", "prohibit"}:
        return {"type": kind}
    says = {
        "type": kind,
        "gateway": way.get("gateway", way.get("via", {}).get("host")),
        "interface": way["dev"],
        "address": source or way["prefsrc"],
    }
    if kind in {"unicast", "local"}:  # groups may need no table, which `ip` prints like the main one
        table = way.get("table", "main")
        says["table"] = int(TABLES.get(table, table))
    return says


@pytest.mark.privileged
def test_200_random_destinations_go_the_way_that_ip_route_get_says(middle: Router) -> None:
    differences, ways = [], set()
    for destination, source, mark in drawn(200):
        arguments = [destination, *(("from", source) if source else ()), "mark", str(mark)]
        says = as_ip_says(middle.way(*arguments), source)
        row = netlab.gateway(destination, source=source, mark=mark, netns=middle.netns).iloc[0]
        found = {name: None if pd.isna(row[name]) else row[name] for name in says}
        ways.add(tuple(says.items())[:3])
        if found != says:
            differences.append((arguments, found, says))

    assert differences == []
    assert len(ways) > 20


@pytest.mark.privileged
def test_many_destinations_at_once_get_what_each_gets_alone(middle: Router) -> None:
    destinations = [destination for destination, _, _ in drawn(200)]

    together = netlab.gateway(destinations, netns=middle.netns)
    alone = netlab.concat([netlab.gateway(one, netns=middle.netns) for one in destinations])

    pd.testing.assert_frame_equal(together, alone, check_categorical=False)


@pytest.mark.privileged
@pytest.mark.parametrize(
    ("destination", "expected"),
    [
        ("10.60.1.1", {"gateway": "10.50.2.2", "mac": "02:00:00:00:02:02", "subnet": "10.50.2.0/24"}),
        ("10.60.1.1", {"route": "10.60.0.0/16", "metric": 10, "nexthops": 1, "interface_kind": "veth"}),
        ("10.50.2.2", {"gateway": None, "mac": "02:00:00:00:02:02", "neighbour": "stale"}),
        ("10.50.1.3", {"gateway": None, "mac": None, "neighbour": "failed"}),
        ("10.66.1.1", {"gateway": "fe80::e", "mac": "02:00:00:00:01:0e", "subnet": "10.50.1.0/24"}),
        ("10.61.1.1", {"route": "10.61.0.0/16", "nexthops": 2}),
        ("10.72.200.1", {"route": "10.72.128.0/17", "nexthops": 2}),
        ("10.65.1.1", {"interface": "tun0", "mac": None, "interface_kind": "tun", "subnet": "10.50.9.2/32"}),
        ("10.68.1.1", {"address": "10.50.255.1", "interface": "west", "gateway": None}),
        ("10.67.1.1", {"mtu": 1400}),
        ("10.62.1.1", {"type": "blackhole", "error": "EINVAL", "interface": None}),
        ("10.63.1.1", {"type": "unreachable", "error": "EHOSTUNREACH"}),
        ("10.64.1.1", {"type": "prohibit", "error": "EACCES"}),
        ("fd62::1", {"type": "blackhole", "error": "EINVAL", "interface": None, "address": None}),
        ("fd63::1", {"type": "unreachable", "error": "EHOSTUNREACH"}),
        ("fd64::1", {"type": "prohibit", "error": "EACCES"}),
        ("fd66::1", {"gateway": "fe80::e", "mac": "02:00:00:00:01:0e", "subnet": "fd50:1::/64"}),
        ("10.50.2.1", {"type": "local", "interface": "lo", "mac": None, "gateway": None}),
        ("127.0.0.1", {"type": "local", "interface": "lo", "subnet": "127.0.0.0/8"}),
        ("224.0.0.5", {"type": "multicast", "mac": None, "interface": "east"}),
        ("10.50.2.255", {"type": "broadcast", "mac": None, "interface": "west"}),
    ],
)
def test_the_way_is_told_with_neighbour_subnet_and_kind(
    middle: Router, destination: str, expected: dict[str, Any]
) -> None:
    row = netlab.gateway(destination, netns=middle.netns).iloc[0]

    assert {name: None if pd.isna(row[name]) else row[name] for name in expected} == expected


@pytest.mark.privileged
def test_a_bound_interface_and_the_user_decide(middle: Router) -> None:
    bound = netlab.gateway("fe80::77", interface="west", netns=middle.netns).iloc[0]
    user = netlab.gateway("198.51.100.1", uid=4242, netns=middle.netns).iloc[0]

    assert (bound.interface, bound.address) == ("west", "fe80::2")
    assert (user.gateway, user.table) == ("10.50.2.9", 102)


@pytest.mark.privileged
def test_a_source_that_is_not_the_hosts_is_no_blackhole(middle: Router) -> None:
    row = netlab.gateway("198.51.100.1", source="192.0.2.200", netns=middle.netns).iloc[0]

    assert pd.isna(row.type)
    assert row.reason == lookups.FOREIGN


@pytest.mark.privileged
def test_the_choice_among_several_next_hops_is_said_to_be_one_of_them(middle: Router) -> None:
    ways = netlab.gateway(["10.61.1.1", "10.60.1.1"], mark=0, uid=0, netns=middle.netns)

    gaps = netlab.coverage(ways)
    assert gaps[["what", "kind", "count"]].to_numpy().tolist() == [
        ["gateway, mac, interface", "approximate", 1]
    ]


@pytest.mark.privileged
@pytest.mark.parametrize(
    ("rule", "given", "word"),
    [
        ("fwmark 7", {"uid": 0}, "mark= was not given"),
        ("uidrange 33-33", {"mark": 0}, "uid= was not given"),
        ("ipproto tcp dport 80", {"mark": 0, "uid": 0}, "protocol or ports"),
        ("tos 0x10", {"mark": 0, "uid": 0}, "type of service"),
    ],
)
def test_a_rule_that_looks_at_what_was_not_given_is_named(
    lone: str, rule: str, given: dict[str, int], word: str
) -> None:
    def guessed() -> list[list[Any]]:
        gaps = netlab.coverage(netlab.gateway(["127.0.0.1", "127.0.0.2"], **given, netns=lone))
        return gaps[["what", "kind", "count", "detail"]].to_numpy().tolist()

    assert guessed() == []
    run("ip", "-n", lone, "rule", "add", "pref", "100", *rule.split(), "lookup", "100")
    ((what, kind, count, detail),) = guessed()
    assert (what, kind, count) == ("gateway, mac, interface", "approximate", 2)
    assert word in detail


@pytest.mark.privileged
def test_neighbours_are_those_of_ip_neigh(middle: Router) -> None:
    says = {
        (entry["dst"], entry["dev"]): (entry.get("lladdr"), entry["state"][0].lower())
        for entry in middle.told("neigh", "show", "nud", "all")
    }

    with netns.entered(middle.netns), netlink.opened(rtnetlink.ROUTE) as kernel:
        found, names = rtnetlink.neighbours(kernel), rtnetlink.links(kernel)

    ours = {(address, names[index].name): told for (index, address), told in found.items()}
    assert ours == says
    assert len(says) > 8


@pytest.mark.privileged
def test_it_works_where_an_event_loop_runs() -> None:
    async def cell() -> str:
        return str(netlab.gateway("127.0.0.1").iloc[0].interface)

    assert asyncio.run(cell()) == "lo"


@pytest.mark.privileged
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"destination": "example.org"}, "not an IP address"),
        ({"destination": pd.NA}, "destination <NA> is not an IP address"),
        ({"destination": float("nan")}, "destination nan is not an IP address"),
        ({"destination": b"443"}, "destination b'443' is not an IP address"),
        ({"destination": "10.0.0.1", "interface": pd.NA}, "there is no interface <NA>"),
        ({"destination": "0.0.0.0"}, "stands for no address"),
        ({"destination": "fe80::1%east"}, "interface='east'"),
        ({"destination": "10.0.0.1", "source": "::1"}, "family"),
        ({"destination": "10.0.0.1", "mark": -1}, "mark"),
        ({"destination": "10.0.0.1", "interface": "eats"}, "Did you mean 'east'"),
        ({"destination": "10.0.0.1", "marc": 1}, "Did you mean 'mark'"),
    ],
)
def test_a_bad_argument_is_refused_with_advice(
    middle: Router, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(netlab.BadInput, match=message):
        netlab.gateway(**arguments, netns=middle.netns)
