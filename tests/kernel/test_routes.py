from __future__ import annotations

import contextlib
import ipaddress
import os
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest
from routers import Router, router, run

import netlab

TABLES = {"main": 254, "local": 255, "default": 253}


@pytest.fixture(scope="module")
def middle() -> Iterator[Router]:
    with router() as built:
        yield built


def as_ip_says(route: dict[str, Any], family: int) -> set[tuple[Any, ...]]:
    """Return the next hops of a route that `ip -j route show table all` printed."""
    table, nothing = route.get("table", "main"), "0.0.0.0/0" if family == 4 else "::/0"
    prefix = nothing if route["dst"] == "default" else route["dst"]
    hops = route.get("nexthops", [route])
    return {
        (
            family,
            int(TABLES.get(table, table)),
            route.get("type", "unicast"),
            whole(prefix),
            whole(route["from"]) if "from" in route else None,
            hop.get("gateway", hop.get("via", {}).get("host")),
            hop.get("dev"),
            route.get("prefsrc"),
            route.get("metric", 0),
            route.get("protocol", "boot"),
            hop.get("weight"),
            len(hops),
            "|".join(hop["flags"]) or None,
        )
        for hop in hops
    }


def whole(prefix: str) -> str:
    """Return a network with the length that `ip` leaves out of one address."""
    return str(ipaddress.ip_network(prefix))


COLUMNS = [
    "family",
    "table",
    "type",
    "destination",
    "source",
    "gateway",
    "interface",
    "address",
    "metric",
    "protocol",
    "weight",
    "nexthops",
    "flags",
]


@pytest.mark.privileged
@pytest.mark.parametrize("family", [4, 6])
def test_every_next_hop_of_every_table_is_the_one_that_ip_shows(middle: Router, family: int) -> None:
    says: set[tuple[Any, ...]] = set()
    for route in middle.told(f"-{family}", "route", "show", "table", "all"):
        says |= as_ip_says(route, family)

    found = netlab.routes(netns=middle.netns, family=family)

    rows = found[COLUMNS].astype(object)
    assert set(map(tuple, rows.where(found[COLUMNS].notna(), None).to_numpy().tolist())) == says
    assert len(found) == len(says) > 15


@pytest.mark.privileged
def test_next_hop_objects_mtu_and_preference_are_told(middle: Router) -> None:
    found = netlab.routes(netns=middle.netns).set_index("destination")

    assert found.loc["10.72.0.0/17", "nexthop_id"] == 9
    assert found.loc["10.67.0.0/16", "mtu"] == 1400
    assert found.loc["fd66::/32", ["mtu", "preference"]].tolist() == [1300, "high"]


@pytest.mark.privileged
def test_routes_that_only_name_their_next_hop_objects_are_spelt_out(middle: Router) -> None:
    """As routing daemons set it for large tables."""
    for command in (
        "nexthop add id 18 via fd50:1::8 dev east",
        "nexthop add id 19 via fd50:2::9 dev west",
        "nexthop add id 20 group 18,1/19,5",
        "-6 route add fd72::/32 nhid 20",
    ):
        middle.ip(*command.split())
    spelt = netlab.routes(netns=middle.netns)
    compatible = "net.ipv4.nexthop_compat_mode={}"
    run("ip", "netns", "exec", middle.netns, "sysctl", "-qw", compatible.format(0))
    try:
        named = netlab.routes(netns=middle.netns)
        ways = netlab.gateway(["10.72.128.1", "10.72.0.1", "fd72::1"], netns=middle.netns)
    finally:
        run("ip", "netns", "exec", middle.netns, "sysctl", "-qw", compatible.format(1))

    pd.testing.assert_frame_equal(named, spelt)
    assert named["weight"][named["nexthop_id"] == 20].tolist() == [1, 5]
    assert ways["nexthops"].tolist() == [2, 1, 2]
    assert netlab.coverage(ways)["count"].tolist()[:1] == [2]


@pytest.mark.privileged
def test_all_namespaces_are_told_apart(middle: Router) -> None:
    found = netlab.routes(netns="all", family=4)

    own = netlab.routes(netns=middle.netns, family=4)
    assert len(own["netns"].unique()) == 1
    assert len(found["netns"].unique()) > 1
    pd.testing.assert_frame_equal(
        found[found["netns"] == own["netns"].iloc[0]].reset_index(drop=True), own, check_categorical=False
    )


@pytest.mark.privileged
def test_numbers_of_links_and_next_hop_objects_are_those_of_their_own_namespace() -> None:
    """Two namespaces use the same numbers for different ones, and a third has no route at all."""
    names = [f"netlab-no{os.getpid()}{letter}" for letter in "abc"]
    with contextlib.ExitStack() as made:
        for place, name in enumerate(names):
            run("ip", "netns", "add", name)
            made.callback(run, "ip", "netns", "del", name)
            run("ip", "netns", "exec", name, "sysctl", "-qw", "net.ipv4.nexthop_compat_mode=0")
            if place < 2:
                commands = (
                    f"link add link{place} index 40 type bridge",
                    f"addr add 10.7{place}.0.1/24 dev link{place}",
                    f"link set link{place} up",
                    f"nexthop add id 5 via 10.7{place}.0.9 dev link{place}",
                    "route add 198.51.100.0/24 nhid 5",
                )
                run("ip", "-n", name, "-batch", "-", text="\n".join(commands))
        several, alone = netlab.routes(netns=names), netlab.routes(netns=names[0])

    told = several[several["destination"] == "198.51.100.0/24"]
    assert told[["gateway", "interface"]].to_numpy().tolist() == [
        ["10.70.0.9", "link0"],
        ["10.71.0.9", "link1"],
    ]
    assert told["nexthop_id"].tolist() == [5, 5]
    assert told["netns"].nunique() == 2
    pd.testing.assert_frame_equal(several.iloc[: len(alone)], alone, check_categorical=False)


@pytest.mark.privileged
def test_an_empty_namespace_has_no_routes(middle: Router) -> None:
    name = f"{middle.netns}-empty"
    run("ip", "netns", "add", name)
    try:
        found = netlab.routes(netns=name)
    finally:
        run("ip", "netns", "del", name)

    assert found.empty
    assert found.dtypes.astype(str).to_dict() == netlab.schemas.ROUTES.empty().dtypes.astype(str).to_dict()


def test_a_family_that_is_none_is_refused() -> None:
    with pytest.raises(netlab.BadInput, match="family"):
        netlab.routes(family=5)
