from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from routers import Router, router, run

import netlab
from netlab.kernel import netns
from netlab.schemas import CONNECTIONS

VIA = ["via_gateway", "via_mac", "via_interface", "via_address", "via_subnet", "via_type"]


@pytest.fixture
def middle() -> Iterator[Router]:
    with router() as built:
        yield built


def connections(middle: Router, remotes: list[str], **columns: object) -> pd.DataFrame:
    count = len(remotes)
    base = {
        "protocol": ["tcp"] * count,
        "netns": [netns.inode(middle.netns)] * count,
        "remote_address": remotes,
        "remote_port": [80] * count,
        "local_port": list(range(30000, 30000 + count)),
    }
    return CONNECTIONS.frame({**base, **columns})


def ways(frame: pd.DataFrame) -> list[list[object]]:
    return frame[VIA].astype(object).where(frame[VIA].notna(), None).to_numpy().tolist()


@pytest.mark.privileged
def test_connections_of_a_namespace_get_its_routes(middle: Router) -> None:
    with middle.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("10.60.1.1", 9))
        found = netlab.with_gateway(netlab.connections(protocol="udp"))

    rows = found[(found["remote_address"] == "10.60.1.1") & (found["netns"] == netns.inode(middle.netns))]
    assert ways(rows) == [["10.50.2.2", "02:00:00:00:02:02", "west", "10.50.2.1", "10.50.2.0/24", "unicast"]]


@pytest.mark.privileged
def test_each_row_is_looked_up_from_its_own_source_and_mark(middle: Router) -> None:
    frame = connections(middle, ["10.60.1.1"] * 3, local_address=["10.50.255.1", "10.50.2.1", "10.50.2.1"])
    frame["mark"] = pd.array([0, 0, 7], "Int64")

    found = netlab.with_gateway(frame)

    assert found["via_gateway"].tolist() == [
        middle.way("10.60.1.1", "from", source, "mark", str(mark))["gateway"]
        for source, mark in (("10.50.255.1", 0), ("10.50.2.1", 0), ("10.50.2.1", 7))
    ]


@pytest.mark.privileged
def test_the_user_counts_where_a_rule_looks_at_it(middle: Router) -> None:
    frame = connections(middle, ["198.51.100.1"] * 2, uid=[0, 4242])

    assert netlab.with_gateway(frame)["via_gateway"].tolist() == ["10.50.1.2", "10.50.2.9"]


@pytest.mark.privileged
def test_ports_count_where_the_hash_of_next_hops_has_them(middle: Router) -> None:
    run("ip", "netns", "exec", middle.netns, "sysctl", "-qw", "net.ipv4.fib_multipath_hash_policy=1")
    frame = connections(middle, ["10.61.1.1"] * 40, local_address=["10.50.3.1"] * 40)

    found = netlab.with_gateway(frame)

    says = [
        middle.way("10.61.1.1", "from", "10.50.3.1", "ipproto", "tcp", "sport", str(port), "dport", "80")[
            "gateway"
        ]
        for port in frame["local_port"]
    ]
    assert found["via_gateway"].tolist() == says
    assert len(set(says)) == 2


@pytest.mark.privileged
def test_packets_leave_by_the_interface_that_was_told(middle: Router) -> None:
    """Of a route with two next hops: what really leaves is counted by the interfaces themselves."""
    for gateway, side in (("10.50.1.2", "east"), ("10.50.2.2", "west")):
        lladdr = "02:00:00:00:09:09"
        middle.ip("neighbour", "replace", gateway, "lladdr", lladdr, "dev", side, "nud", "permanent")
    chosen, left = [], []
    for last in range(1, 13):
        with middle.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect((f"10.61.1.{last}", 9))
            before = sent(middle)
            client.send(b"x" * 1000)
            after = sent(middle)
            source = client.getsockname()[0]
        left.append(max(after, key=lambda side: after[side] - before[side]))
        chosen.append(connections(middle, [f"10.61.1.{last}"], local_address=[source]))

    found = netlab.with_gateway(netlab.concat(chosen))

    assert found["via_interface"].tolist() == left
    assert set(left) == {"east", "west"}


@pytest.mark.privileged
@pytest.mark.parametrize("bound", [True, False])
def test_ipv6_packets_leave_by_the_interface_that_was_told(middle: Router, *, bound: bool) -> None:
    """IPv6 hashes the protocol, too, and chooses before a socket that is not bound has its source."""
    for gateway, side in (("fd50:1::2", "east"), ("fd50:2::2", "west")):
        lladdr = "02:00:00:00:09:09"
        middle.ip("neighbour", "replace", gateway, "lladdr", lladdr, "dev", side, "nud", "permanent")
    remotes = [f"fd61::{last:x}" for last in range(1, 25)]
    left, sources = [], []
    for remote in remotes:
        with middle.entered(), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
            if bound:
                client.bind(("fd50:255::1", 0))
            client.connect((remote, 9))
            before = sent(middle)
            client.send(b"x" * 1000)
            after = sent(middle)
            sources.append(client.getsockname()[0])
        left.append(max(after, key=lambda side: after[side] - before[side]))

    same = {name: [word] * len(remotes) for name, word in (("protocol", "udp"), ("direction", "outgoing"))}
    frame = connections(middle, remotes, local_address=sources, **same)

    assert netlab.with_gateway(frame)["via_interface"].tolist() == left
    assert set(left) == {"east", "west"}


@pytest.mark.privileged
@pytest.mark.parametrize(
    ("remote", "policy", "counted"), [("10.61.1.1", 0, []), ("10.61.1.1", 1, [3]), ("fd61::1", 0, [3])]
)
def test_a_choice_among_next_hops_that_no_look_up_repeats_is_said(
    middle: Router, remote: str, policy: int, counted: list[int]
) -> None:
    """A socket that is not bound gets its way before its port, in IPv6 before its address."""
    run("ip", "netns", "exec", middle.netns, "sysctl", "-qw", f"net.ipv4.fib_multipath_hash_policy={policy}")
    frame = connections(middle, [remote] * 3, uid=[0] * 3, mark=[0] * 3)

    gaps = netlab.coverage(netlab.with_gateway(frame))

    assert gaps["count"][gaps["detail"].str.contains("several next hops")].tolist() == counted


TRANSLATING = """
table inet services {
  set left {
    type ifname
    flags dynamic
  }
  chain postrouting {
    type filter hook postrouting priority 0
    tcp dport { 443, 8443 } add @left { oifname }
  }
  chain output {
    type nat hook output priority -100
    ip daddr 10.96.0.10 tcp dport 443 dnat ip to 10.50.2.2:8443
    ip6 daddr fd96::10 tcp dport 443 dnat ip6 to [fd50:2::2]:8443
  }
}
"""


@pytest.mark.privileged
@pytest.mark.parametrize(
    ("service", "server", "other"),
    [("10.96.0.10", "10.50.2.2", "10.50.1.2"), ("fd96::10", "fd50:2::2", "fd50:1::2")],
)
def test_the_way_of_what_is_translated_here_is_that_of_its_new_destination(
    middle: Router, service: str, server: str, other: str
) -> None:
    """Nobody has to answer: netfilter notes by which interface the first packet leaves."""
    middle.ip("route", "replace", f"{service}/{128 if ':' in service else 32}", "via", other, "dev", "east")
    run("ip", "netns", "exec", middle.netns, "nft", "-f", "-", text=TRANSLATING)
    with middle.entered(), socket.socket(socket.AF_INET6 if ":" in service else socket.AF_INET) as client:
        client.setblocking(False)
        client.connect_ex((service, 443))
        listed = json.loads(run("nft", "-j", "list", "set", "inet", "services", "left"))
        local, port, *_ = client.getsockname()
        places = {
            "local_address": [local],
            "local_port": [port],
            "remote_port": [443],
            "nat_remote_address": [server],
        }
        found = netlab.with_gateway(connections(middle, [service], **places))

    assert found["via_interface"].tolist() == listed["nftables"][1]["set"]["elem"] == ["west"]
    assert not netlab.coverage(found)["detail"].str.contains("conntrack").any()


def sent(middle: Router) -> dict[str, int]:
    links = middle.told("-s", "link", "show", "type", "veth")
    return {link["ifname"]: link["stats64"]["tx"]["bytes"] for link in links}


@pytest.mark.privileged
@pytest.mark.parametrize(
    ("change", "column", "expected"),
    [
        ("route replace 10.60.0.0/16 via 10.50.1.4 metric 10", "via_gateway", "10.50.1.4"),
        ("route add 10.60.1.0/24 via 10.50.1.5", "via_gateway", "10.50.1.5"),
        ("route add blackhole 10.60.1.0/24", "via_type", "blackhole"),
        ("neighbour replace 10.50.2.2 lladdr 02:00:00:00:99:99 dev west", "via_mac", "02:00:00:00:99:99"),
        ("neighbour del 10.50.2.2 dev west", "via_mac", None),
        ("link set west down", "via_interface", "east"),
        ("rule add to 10.60.0.0/16 lookup 100000 priority 50", "via_gateway", "10.50.1.4"),
        ("address add 10.60.1.2/24 dev br0", "via_interface", "br0"),
        ("nexthop replace id 9 via 10.50.1.7 dev east", "via_gateway", "10.50.1.7"),
    ],
)
def test_a_kept_answer_changes_with_what_it_rests_on(
    middle: Router, change: str, column: str, expected: str | None
) -> None:
    remote = "10.72.0.1" if change.startswith("nexthop") else "10.60.1.1"
    frame = connections(middle, [remote])
    with netlab.route_cache(max_age_s=3600) as known:
        before = netlab.with_gateway(frame, known=known)
        again = netlab.with_gateway(frame, known=known)
        middle.ip(*change.split())
        after = netlab.with_gateway(frame, known=known)

    assert ways(before) == ways(again)
    assert [before[column].iloc[0], None if pd.isna(after[column].iloc[0]) else after[column].iloc[0]] == [
        {"via_type": "unicast", "via_mac": "02:00:00:00:02:02", "via_interface": "west"}.get(
            column, "10.50.2.9" if remote == "10.72.0.1" else "10.50.2.2"
        ),
        expected,
    ]


@pytest.mark.privileged
def test_what_changes_without_an_event_is_found_when_the_answer_is_too_old(middle: Router) -> None:
    frame = connections(middle, ["10.61.1.1"] * 40, local_address=["10.50.3.1"] * 40)
    with netlab.route_cache(max_age_s=1e-9) as known:
        before = netlab.with_gateway(frame, known=known)
        run("ip", "netns", "exec", middle.netns, "sysctl", "-qw", "net.ipv4.fib_multipath_hash_policy=1")
        after = netlab.with_gateway(frame, known=known)

    assert len(before["via_gateway"].unique()) == 1
    assert len(after["via_gateway"].unique()) == 2


@pytest.mark.privileged
def test_more_changes_than_the_socket_holds_leave_no_stale_answer(middle: Router) -> None:
    frame = connections(middle, ["10.60.1.1"])
    with netlab.route_cache(max_age_s=3600) as known:
        netlab.with_gateway(frame, known=known)
        flood = [
            f"route replace 10.99.{place % 250}.0/24 via 10.50.1.{2 + place % 50}" for place in range(4000)
        ]
        last = "route replace 10.60.0.0/16 via 10.50.1.4 metric 10"
        run("ip", "-n", middle.netns, "-batch", "-", text="\n".join([*flood, last]))
        found = netlab.with_gateway(frame, known=known)

    assert found["via_gateway"].tolist() == ["10.50.1.4"]


@pytest.mark.privileged
def test_a_namespace_is_let_go_when_no_connection_is_in_it(middle: Router) -> None:
    own = netlab.connections().iloc[:0]
    with netlab.route_cache() as known:
        netlab.with_gateway(connections(middle, ["10.60.1.1"]), known=known)
        netlab.with_gateway(own, known=known)

        assert known._known == {}


@pytest.mark.privileged
def test_rows_without_an_answer_keep_what_they_had_and_are_counted(middle: Router) -> None:
    frame = netlab.concat(
        [
            connections(middle, ["10.60.1.1", "fe80::5"]),
            connections(middle, ["10.60.1.1"], netns=[1], via_gateway=["192.0.2.1"]),
            connections(middle, ["10.60.1.1"], local_address=["192.0.2.99"]),
        ]
    )

    found = netlab.with_gateway(frame)

    assert [None if pd.isna(one) else one for one in found["via_gateway"]] == [
        "10.50.2.2",
        None,
        "192.0.2.1",
        None,
    ]
    gaps = netlab.coverage(found)
    unavailable = gaps[gaps["kind"] == "unavailable"].set_index("detail")["count"]
    assert unavailable.to_dict() == {
        "their network namespaces have no process and no name here": 1,
        "the peer's address is link-local, and which link is not known": 1,
        "the source is no address of this network namespace": 1,
    }


@pytest.mark.privileged
def test_a_link_local_source_tells_the_link(middle: Router) -> None:
    frame = connections(middle, ["fe80::5"] * 2, local_address=["fe80::1", "fe80::2"])

    assert netlab.with_gateway(frame)["via_interface"].tolist() == ["east", "west"]


@pytest.mark.privileged
def test_what_the_way_rests_on_and_is_not_known_is_said(middle: Router) -> None:
    frame = connections(
        middle,
        ["10.60.1.1", "198.51.100.1"],
        closed_at=[pd.NaT, pd.Timestamp("2026-01-01", tz="UTC")],
        nat_remote_address=["10.0.0.1", "198.51.100.1"],
    )

    gaps = netlab.coverage(netlab.with_gateway(frame)).set_index("detail")["count"]

    assert {detail.split(":")[0].split(" that")[0]: count for detail, count in gaps.items()} == {
        "policy rules look at the packets' mark, which is not known of these": 2,
        "policy rules look at the user, which is not known of these": 2,
        "of connections": 1,
        "translated ones, of which conntrack does not tell, or not any more, whether their own network "
        "namespace does it": 1,
    }


@pytest.mark.privileged
@pytest.mark.parametrize(
    "rule", ["tos 0x10", "dsfield 0x08", "oif east", "tun_id 5"], ids=lambda rule: rule.split()[0]
)
def test_a_rule_on_what_connections_do_not_tell_is_said(middle: Router, rule: str) -> None:
    middle.ip("rule", "add", *rule.split(), "lookup", "102", "priority", "90")

    gaps = netlab.coverage(netlab.with_gateway(connections(middle, ["10.60.1.1"], uid=[0], mark=[0])))

    assert [detail.split(",")[0] for detail in gaps["detail"]] == [
        "policy rules look at what connections do not tell"
    ]
    assert gaps["count"].tolist() == [1]


@pytest.mark.privileged
def test_rows_keep_their_order_index_and_dtypes(middle: Router) -> None:
    remotes = [f"10.60.{place % 7}.1" for place in range(50)]
    frame = connections(middle, remotes, uid=[0] * 50).sample(frac=1, random_state=1)
    frame.index = pd.Index([7] * 50)  # as after pandas.concat

    found = netlab.with_gateway(frame)

    assert found.index.equals(frame.index)
    assert found["remote_address"].equals(frame["remote_address"])
    assert found.dtypes.astype(str).equals(frame.dtypes.astype(str))
    assert np.array_equal(found["via_interface"], ["west"] * 50)


@pytest.mark.privileged
def test_a_cache_that_is_closed_and_a_foreign_frame_are_refused(middle: Router) -> None:
    with netlab.route_cache() as known:
        pass

    with pytest.raises(netlab.CaptureError, match="closed"):
        netlab.with_gateway(connections(middle, ["10.60.1.1"]), known=known)
    with pytest.raises(netlab.BadInput, match="no column"):
        netlab.with_gateway(netlab.routes())


@pytest.mark.privileged
def test_no_connection_needs_no_namespace() -> None:
    found = netlab.with_gateway(CONNECTIONS.empty())

    assert found.empty
    assert netlab.coverage(found).empty


@pytest.mark.privileged
def test_without_privileges_the_own_namespace_is_filled_and_the_others_are_counted(middle: Router) -> None:
    code = f"""
import os, netlab
from netlab.kernel import netns
frame = netlab.schemas.CONNECTIONS.frame(
    {{"netns": [netns.inode(), {netns.inode(middle.netns)}], "remote_address": ["127.0.0.1", "10.60.1.1"]}}
)
netlab.with_gateway(frame.iloc[:1])
os.setgroups([]); os.setresgid(*[65534] * 3); os.setresuid(*[65534] * 3)
found = netlab.with_gateway(frame)
print(found.via_interface.fillna("").tolist(), *netlab.coverage(found)[["count", "detail"]].iloc[0])
"""
    told = run(sys.executable, "-c", code)

    assert told.startswith("['lo', ''] 1 ")
    assert "CAP_SYS_ADMIN" in told
