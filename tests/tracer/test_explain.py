"""explain() on a chain of namespaces with real rules: every station, and what is said of those not found."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import socket
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import chains
import pandas as pd
import pytest
import routers
from pictures import trace

import netlab
from netlab.kernel import netns
from netlab.schemas import CONNECTIONS, EXPLANATION
from netlab.tracer import explain
from netlab.tracer.walk import Flow, Walk

SERVICE, SERVER = ("10.96.0.10", 80), ("10.79.3.2", 8080)
KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
ENDS = ("src", "sport", "dst", "dport")


@pytest.fixture(scope="module", autouse=True)
def chain() -> Iterator[None]:
    if os.geteuid():
        yield
        return
    with chains.chain():
        yield


def made(role: str, protocol: str, address: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with chains.entered(role):
        found = socket.socket(family, KINDS[protocol])
    found.settimeout(10)
    return found


@contextlib.contextmanager
def talking(
    connect: tuple[str, int], listen: tuple[str, int], *, protocol: str = "tcp", server: str = "server"
) -> Iterator[tuple[int, tuple[str, int]]]:
    """Connect a client to a server; return the client's port, and what the server sees as its peer."""
    with contextlib.ExitStack() as held:
        listener = held.enter_context(made(server, protocol, listen[0]))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(listen)
        client = held.enter_context(made("client", protocol, connect[0]))
        if protocol == "tcp":
            listener.listen()
            client.connect(connect)
            accepted, seen = listener.accept()
            held.enter_context(accepted)
        else:
            client.connect(connect)
            client.send(b"a question")
            _, seen = listener.recvfrom(100)
        yield client.getsockname()[1], seen[:2]


def row_of(role: str, port: int, remote_port: int | None = None) -> pd.Series:
    """Return the connection of *port* in a namespace; on loopback the one that leads to *remote_port*."""
    now = netlab.connections(netns=chains.name(role), port=port)
    if remote_port is not None:
        now = now[now["remote_port"] == remote_port]
    assert len(now) == 1
    return now.iloc[0]


def mac(text: str) -> str:
    role, _, device = text.partition(".")
    return str(json.loads(chains.ip(role, "-j", "link", "show", device))[0]["address"])


def wanted(rows: list[dict[str, Any]], port: int) -> list[dict[str, Any]]:
    """Return the rows of a case as those of the frame, without missing values."""
    found = []
    for step, case in enumerate(copy.deepcopy(rows)):
        for name, prefix in (("packet", ""), ("new", "new_")):
            values = [port if value == "port" else value for value in case.pop(name, [])]
            case.update(zip([prefix + end for end in ENDS], values, strict=False))
        case |= {"step": step, "namespace": chains.name(case["netns"]), "netns": chains.inode(case["netns"])}
        if "to_netns" in case:
            case["to_netns"] = chains.inode(case["to_netns"])
        if "mac" in case:
            case["mac"] = mac(case["mac"])
        if case.pop("owner", None) == "self":
            case |= {"pid": os.getpid(), "process": Path("/proc/self/comm").read_text("utf-8").rstrip("\n")}
        found.append(case)
    return found


def told(frame: pd.DataFrame) -> list[dict[str, Any]]:
    rows = frame.astype(object).to_dict("records")
    return [{name: value for name, value in row.items() if not pd.isna(value)} for row in rows]


@pytest.mark.privileged
@pytest.mark.parametrize("case", chains.DATA["case"], ids=lambda case: case["what"])
def test_every_station_is_told(case: dict[str, Any]) -> None:
    connect, listen = tuple(case["connect"]), tuple(case["listen"])
    side = case.get("from", "client")
    server = case.get("server", "server")
    with talking(connect, listen, protocol=case["protocol"], server=server) as (port, seen):
        row = row_of(side, port, connect[1] if side == "client" else None)
        found = netlab.explain(row)

        expected = wanted(case["row"], port)
    assert list(seen) == [port if value == "port" else value for value in case["sees"]]
    for row in expected:
        row["protocol"] = case["protocol"]
    assert told(found.frame) == expected
    assert netlab.coverage(found.frame).empty
    assert list(found.frame.columns) == EXPLANATION.names


def attempt(**columns: object) -> pd.DataFrame:
    base = {
        "protocol": "tcp",
        "local_address": "10.79.1.2",
        "local_port": 40000,
        "remote_address": "10.79.3.2",
        "remote_port": 8080,
        "netns": chains.inode("client"),
        "state": "established",
    }
    return CONNECTIONS.frame({name: [value] for name, value in {**base, **columns}.items()})


def gaps(found: explain.Explanation) -> dict[str, str]:
    coverage = netlab.coverage(found.frame)
    return dict(zip(coverage["detail"], coverage["what"] + ": " + coverage["kind"].astype(str), strict=True))


def refused() -> pd.DataFrame:
    """Return an attempt that the server refused behind two translations, with what the events told of it."""
    with (
        netlab.conntrack_events(netns=chains.name("host")) as events,
        netlab.capture(port=81, protocol="tcp") as cap,
        made("client", "tcp", SERVICE[0]) as client,
        pytest.raises(ConnectionRefusedError),
    ):
        client.connect((SERVICE[0], 81))
    (row,) = range(len(cap.failures()))
    return netlab.with_nat(cap.failures().iloc[[row]], events.events())


@pytest.mark.privileged
def test_a_refused_attempt_is_followed_by_what_the_capture_saw_to_the_port_where_nothing_listens() -> None:
    row = refused()

    found = netlab.explain(row)

    frame = found.frame
    first, last = frame.iloc[0], frame.iloc[-1]
    assert [first["state"], first["error"], last["station"]] == ["closed", "ECONNREFUSED", "peer"]
    assert first["reason"] == row["reason"].iloc[0]
    assert last["netns"] == chains.inode("server")
    assert last["detail"] == "nothing listens on this port here, and no socket has this connection"
    (dnat,) = told(frame[(frame["netns"] == chains.inode("host")) & (frame["station"] == "translation")])
    assert [dnat["new_dst"], dnat["new_dport"], dnat["nat"]] == ["10.79.3.2", 8081, "dnat"]
    assert dnat["source"] == "connection"
    assert "nat_* columns say what it became, not where" in dnat["detail"]
    assert "translations: approximate" in gaps(found).values()


@pytest.mark.privileged
def test_without_an_entry_and_without_nat_columns_a_translation_is_not_guessed() -> None:
    row = refused().assign(**dict.fromkeys(["nat_remote_address", "nat_local_address"], pd.NA))

    frame = netlab.explain(row).frame

    unknown = frame[frame["detail"].str.startswith("no conntrack entry").fillna(False)]
    assert set(unknown["netns"]) == {chains.inode(role) for role in ("client", "host", "gateway")}
    assert unknown["new_dst"].isna().all()
    assert frame["error"].iloc[-1] == "ENETUNREACH"  # nobody has the service's address


@pytest.mark.privileged
def test_an_ended_connection_is_said_to_be_followed_as_of_now() -> None:
    found = netlab.explain(attempt(state="closed", closed_at=pd.Timestamp("2026-01-01", tz="UTC")))

    assert gaps(found)["it has ended: routes and sockets are those of now"] == "stations: approximate"
    assert found.frame["detail"].iloc[0] == "it has ended: routes and sockets are those of now"


@pytest.mark.privileged
@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"netns": None}, "the row does not say in which network namespace it is"),
        (
            {"netns": 1},
            "this network namespace has no process and no name here: it is gone, or of another host",
        ),
        ({"remote_address": None, "remote_port": None}, "this socket has no peer: there is no way to follow"),
        ({"remote_address": "::"}, "this socket has no peer: there is no way to follow"),
        ({"local_address": "192.0.2.99"}, None),
    ],
)
def test_what_cannot_be_followed_says_why(columns: dict[str, object], said: str | None) -> None:
    found = netlab.explain(attempt(**columns))

    if said is None:  # the kernel's own refusal
        assert found.frame["reason"].iloc[-1] == "the source is no address of this network namespace"
        return
    assert said in gaps(found)
    assert said in repr(found)
    assert set(found.frame["station"]) <= {"socket", "unknown"}


@pytest.mark.privileged
def test_a_namespace_that_another_one_has_taken_the_name_of_is_gone() -> None:
    first, second = chains.name("first"), chains.name("second")
    chains.run("ip", "netns", "add", first)
    row = attempt(netns=chains.inode("first"), local_address="127.0.0.1", remote_address="127.0.0.1")
    flow = explain._flow(explain._values(row))
    assert isinstance(flow, Flow)
    walk = Walk(flow)
    try:
        chains.run("ip", "netns", "del", first)
        chains.run("ip", "netns", "add", second)  # the kernel gives the number away again
        chains.run("ip", "netns", "add", first)
        walk.go()
    finally:
        for name in (first, second):
            chains.run("ip", "netns", "del", name)

    (station,) = walk.stations
    assert station.station == "unknown"
    assert "it is gone" in str(station.detail)


@pytest.mark.privileged
def test_a_row_without_an_owner_is_followed_all_the_same() -> None:
    with talking(SERVICE, SERVER) as (port, _):
        row = row_of("client", port)
        owned = netlab.explain(row)
        bare = row.drop(["pid", "process", "uid", "state"])
        found = netlab.explain(bare.to_dict())

    assert found.frame["station"].tolist() == owned.frame["station"].tolist()
    assert found.frame.iloc[1:].equals(owned.frame.iloc[1:])


@pytest.mark.privileged
def test_a_series_a_dict_and_a_frame_of_one_row_are_the_same() -> None:
    with talking(SERVICE, SERVER) as (port, _):
        now = netlab.connections(netns=chains.name("client"), port=port)
        found = [netlab.explain(row) for row in (now, now.iloc[0], now.iloc[0].to_dict())]

    assert len({repr(one) for one in found}) == 1
    assert found[0].frame.equals(found[1].frame)
    assert found[0].frame.equals(found[2].frame)


@pytest.mark.privileged
def test_packets_that_go_round_are_not_followed_for_ever() -> None:
    chains.ip("gateway", "route", "add", "203.0.113.0/24", "via", "10.79.2.2")
    try:
        found = netlab.explain(attempt(remote_address="203.0.113.9"))
    finally:
        chains.ip("gateway", "route", "del", "203.0.113.0/24")

    assert found.frame["station"].iloc[-1] == "unknown"
    assert "the packet has been here: it goes round" in gaps(found)
    assert len(found.frame) < 8


@pytest.mark.privileged
def test_a_refusal_to_route_is_told_with_errno_and_reason() -> None:
    last = netlab.explain(attempt(remote_address="203.0.113.9")).frame.iloc[-1]

    assert [last["station"], last["netns"]] == ["route", chains.inode("gateway")]
    assert [last["error"], last["reason"]] == ["ENETUNREACH", "no route matches, or an unreachable rule"]


@pytest.mark.privileged
@pytest.mark.parametrize(
    ("setting", "remote", "reason"),
    [
        ("net.ipv4.ip_forward", "10.79.3.2", "no route, or not forwarded: net.ipv4.ip_forward is 0 here"),
        (
            "net.ipv6.conf.all.forwarding",
            "fd79:3::2",
            "not forwarded: net.ipv6.conf.all.forwarding is 0 here",
        ),
    ],
)
def test_a_namespace_that_does_not_forward_says_so(setting: str, remote: str, reason: str) -> None:
    local = "fd79:1::2" if ":" in remote else "10.79.1.2"
    run = ("ip", "netns", "exec", chains.name("gateway"), "sysctl", "-qw")
    chains.run(*run, f"{setting}=0")
    try:
        last = netlab.explain(attempt(remote_address=remote, local_address=local)).frame.iloc[-1]
    finally:
        chains.run(*run, f"{setting}=1")

    assert [last["netns"], last["error"], last["reason"]] == [
        chains.inode("gateway"),
        "EHOSTUNREACH",
        reason,
    ]


@pytest.mark.privileged
def test_a_next_hop_that_nobody_answers_for_ends_the_way() -> None:
    chains.ip("host", "route", "add", "203.0.113.9/32", "via", "10.79.2.77")
    chains.ip("host", "neigh", "replace", "10.79.2.77", "dev", "uplink", "nud", "failed")
    try:
        last = netlab.explain(attempt(remote_address="203.0.113.9")).frame.iloc[-1]
    finally:
        chains.ip("host", "route", "del", "203.0.113.9/32")

    assert [last["station"], last["netns"], last["error"]] == ["route", chains.inode("host"), "EHOSTUNREACH"]
    assert last["reason"] == (
        "nobody on uplink answers for the next hop 10.79.2.77: its neighbour entry is failed"
    )


@pytest.mark.privileged
def test_a_packet_that_the_reverse_path_filter_takes_is_not_followed() -> None:
    run = ("ip", "netns", "exec", chains.name("host"), "sysctl", "-qw")
    chains.ip("host", "route", "add", "10.79.1.2/32", "via", "10.79.2.1")
    chains.run(*run, "net.ipv4.conf.all.rp_filter=1")
    try:
        last = netlab.explain(attempt()).frame.iloc[-1]
    finally:
        chains.run(*run, "net.ipv4.conf.all.rp_filter=0")
        chains.ip("host", "route", "del", "10.79.1.2/32")

    assert [last["station"], last["netns"]] == ["route", chains.inode("host")]
    assert last["reason"].startswith("thrown away: ")
    assert "reverse path filter (rp_filter)" in last["reason"]


@pytest.mark.privileged
@pytest.mark.parametrize(
    ("remote", "policy", "doubtful"), [("10.61.1.1", 0, 0), ("10.61.1.1", 1, 1), ("fd61::1", 0, 1)]
)
def test_one_of_several_next_hops_is_said_to_be_no_more(remote: str, policy: int, doubtful: int) -> None:
    """The kernel chooses before a socket has its port, in IPv6 before its address."""
    local = "fd50:255::1" if ":" in remote else "10.50.3.1"
    with routers.router() as middle:
        setting = f"net.ipv4.fib_multipath_hash_policy={policy}"
        routers.run("ip", "netns", "exec", middle.netns, "sysctl", "-qw", setting)
        inode = netns.inode(middle.netns)
        found = netlab.explain(attempt(netns=inode, local_address=local, remote_address=remote, mark=0))

    assert sum("several next hops" in gap for gap in gaps(found)) == doubtful
    assert found.frame["detail"].astype("string").str.contains("several next hops").sum() == doubtful


@pytest.mark.privileged
def test_a_link_local_destination_without_its_link_is_not_guessed() -> None:
    found = netlab.explain(attempt(local_address="fe80::7", remote_address="fe80::9"))

    assert found.frame["station"].tolist() == ["socket", "route"]
    assert "the destination is link-local, and which link is not known" in gaps(found)


@pytest.mark.privileged
def test_a_link_local_source_tells_the_link() -> None:
    said = json.loads(chains.ip("client", "-j", "-6", "address", "show", "dev", "eth0"))
    (local,) = (one["local"] for link in said for one in link["addr_info"] if one["scope"] == "link")
    found = netlab.explain(attempt(local_address=local, remote_address="fe80::9"))

    assert found.frame["interface"].iloc[1] == "eth0"
    assert found.frame["to_netns"].iloc[1] == chains.inode("host")


@pytest.mark.privileged
def test_a_mark_counts_in_the_namespace_of_its_socket_and_is_lost_on_the_way_out() -> None:
    """The host throws away what has the mark, and nothing has it any more when it gets there."""
    chains.ip("host", "rule", "add", "fwmark", "7", "blackhole")
    chains.ip("client", "rule", "add", "fwmark", "8", "blackhole")
    try:
        with made("server", "tcp", SERVER[0]) as listener, made("client", "tcp", SERVER[0]) as client:
            listener.bind((SERVER[0], 8091))
            listener.listen()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 7)
            client.connect(listener.getsockname())
            reached = netlab.explain(row_of("client", client.getsockname()[1]))
        stopped = netlab.explain(attempt(mark=8))
    finally:
        chains.ip("host", "rule", "del", "fwmark", "7", "blackhole")
        chains.ip("client", "rule", "del", "fwmark", "8", "blackhole")

    assert reached.frame["station"].iloc[-1] == "peer"
    host = reached.frame[reached.frame["netns"] == chains.inode("host")]
    (said,) = host.loc[host["station"] == "route", "detail"]
    assert said == "policy rules look at the packets' mark, which is not known: taken for 0"
    assert gaps(reached)[said] == "routes: approximate"
    assert stopped.frame["reason"].iloc[-1].startswith("a blackhole route or rule")
    assert "routes: approximate" not in gaps(stopped).values()


@contextlib.contextmanager
def ruled(role: str, table: str) -> Iterator[None]:
    """Add the rules of a table called netlab_added."""
    inside = ["ip", "netns", "exec", chains.name(role), "nft"]
    chains.run(*inside, "-f", "-", text=f"table ip netlab_added {{\n{table}\n}}")
    try:
        yield
    finally:
        chains.run(*inside, "delete", "table", "ip", "netlab_added")


@contextlib.contextmanager
def neighbour() -> Iterator[None]:
    """Add a container 10.79.1.3 to the bridge that the client is on."""
    other, host = chains.name("other"), chains.name("host")
    chains.run("ip", "netns", "add", other)
    try:
        pair = ["eth0", "type", "veth", "peer", "name", "port2", "netns", host]
        chains.ip("other", "link", "add", *pair)
        chains.ip("other", "address", "add", "10.79.1.3/24", "dev", "eth0")
        chains.ip("other", "link", "set", "eth0", "up")
        chains.ip("host", "link", "set", "port2", "master", "br0", "up")
        yield
    finally:
        chains.ip("host", "link", "del", "port2")  # a namespace's own interfaces go some time after it
        chains.run("ip", "netns", "del", other)


@pytest.mark.privileged
def test_a_bridge_sends_to_the_port_that_has_the_mac() -> None:
    """Two containers on one bridge: the packet does not come up to the host's routing."""
    with neighbour():
        with talking(("10.79.1.3", 7001), ("10.79.1.3", 7001), server="other") as (port, _):
            found = netlab.explain(row_of("client", port))
        inode = chains.inode("other")

    ways = found.frame[["station", "netns", "interface", "to_interface"]].astype(object)
    host, client = chains.inode("host"), chains.inode("client")
    assert ways.where(ways.notna(), None).to_numpy().tolist() == [
        ["socket", client, None, None],
        ["route", client, "eth0", "port1"],
        ["bridge", host, "port2", "eth0"],
        ["route", inode, "lo", None],
        ["peer", inode, None, None],
    ]


BRIDGED = """
chain targets {
    type nat hook prerouting priority dstnat
    ip daddr 10.96.0.20 tcp dport 80 dnat to 10.79.1.3:7001
}
"""


@pytest.mark.privileged
def test_answers_that_only_cross_a_bridge_are_turned_back_where_bridges_call_netfilter() -> None:
    """A container calls its neighbour by the service's address; the answer is not routed by the host."""
    switch = ["sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=1"]
    chains.run("ip", "netns", "exec", chains.name("host"), *switch)
    with (
        ruled("host", BRIDGED),
        neighbour(),
        talking(("10.96.0.20", 80), ("10.79.1.3", 7001), server="other") as (port, _),
    ):
        found = netlab.explain(row_of("other", 7001, port))

    assert found.frame["station"].tolist() == ["socket", "route", "translation", "bridge", "route", "peer"]
    peer = found.frame.iloc[-1]
    assert [peer[name] for name in ENDS] == ["10.96.0.20", 80, "10.79.1.2", port]
    assert peer["process"]


ZONE = """
chain zones {
    type filter hook prerouting priority raw
    tcp dport 81 ct zone set 9
    tcp sport 8081 ct zone set 9
}
"""


@pytest.mark.privileged
def test_a_translation_in_a_zone_is_found() -> None:
    with ruled("host", ZONE), talking((SERVICE[0], 81), (SERVER[0], 8081)) as (port, _):
        found = netlab.explain(row_of("client", port))

    (translated,) = found.frame.query("station == 'translation' and nat == 'dnat'").to_dict("records")
    assert (translated["new_dst"], translated["new_dport"]) == (SERVER[0], 8081)
    assert found.frame["station"].iloc[-1] == "peer"


@pytest.mark.privileged
def test_translations_of_several_zones_that_differ_are_not_guessed() -> None:
    add = "conntrack -I -p tcp -s 10.79.1.2 -d 10.79.3.2 --sport 40000 --dport 8080 -t 60 --state ESTABLISHED"
    for zone in ("7", "8"):
        command = [*add.split(), "--src-nat", f"10.79.2.{zone}", "-w", zone]
        chains.run("ip", "netns", "exec", chains.name("host"), *command)
    found = netlab.explain(attempt())

    (said,) = (detail for detail in gaps(found) if "zones" in detail)
    assert gaps(found)[said] == "translations: unavailable"
    assert found.frame["detail"].eq(said).sum() == 1


@pytest.mark.privileged
def test_an_interface_that_leads_to_no_namespace_ends_the_way() -> None:
    chains.ip("client", "tuntap", "add", "away", "mode", "tun")
    try:
        chains.ip("client", "link", "set", "away", "up")
        chains.ip("client", "route", "add", "203.0.113.0/24", "dev", "away")
        found = netlab.explain(attempt(remote_address="203.0.113.9"))
    finally:
        chains.ip("client", "link", "del", "away")

    last = found.frame.iloc[-1]
    assert [last["station"], last["interface"]] == ["route", "away"]
    assert last["detail"] == "leaves by away: what a tun device does is not followed"
    assert last["detail"] in gaps(found)


@pytest.mark.privileged
def test_a_bridge_that_does_not_know_the_mac_is_not_guessed() -> None:
    neighbour = ("10.79.1.9", "lladdr", "02:00:00:00:00:09", "dev", "br0")
    chains.ip("host", "neighbour", "add", *neighbour)
    try:
        found = netlab.explain(
            attempt(netns=chains.inode("host"), local_address="10.79.1.1", remote_address="10.79.1.9")
        )
    finally:
        chains.ip("host", "neighbour", "del", "10.79.1.9", "dev", "br0")

    assert found.frame["station"].tolist() == ["socket", "route", "bridge"]
    assert "br0 does not know 02:00:00:00:00:09 any more, hence not by which port it goes" in gaps(found)


@pytest.mark.privileged
def test_a_listener_without_the_connection_is_told_from_nothing() -> None:
    with made("server", "tcp", "::") as listener:
        listener.bind(("::", 8090))
        listener.listen()
        last = netlab.explain(attempt(remote_port=8090)).frame.iloc[-1]

    assert [last["state"], last["pid"]] == ["listen", os.getpid()]
    assert last["detail"] == (
        "a socket listens here, and none has this connection (any more); "
        "it is an IPv6 socket, which gets IPv4 packets unless IPV6_V6ONLY is set"
    )


@pytest.mark.privileged
def test_hops_of_a_trace_follow_the_other_stations() -> None:
    hops = trace([["10.1.0.1"], None, ["10.79.3.2"]])

    frame = netlab.explain(attempt(), hops=hops).frame

    rows = told(frame[frame["station"] == "hop"][["ttl", "address", "rtt_ms", "source"]])
    assert rows == [
        {"ttl": 1, "address": "10.1.0.1", "rtt_ms": pytest.approx(3.3), "source": "traceroute"},
        {"ttl": 2, "source": "traceroute"},
        {"ttl": 3, "address": "10.79.3.2", "rtt_ms": pytest.approx(9.9), "source": "traceroute"},
    ]


@pytest.mark.privileged
def test_hops_past_the_end_and_what_was_not_probed_do_not_follow() -> None:
    whole, further = trace([["10.1.0.1"], ["10.79.3.2"]]), trace([["10.1.0.1"], None, ["10.79.3.2"]])
    failed = whole.iloc[:1].assign(ttl=pd.array([pd.NA], "Int64"), error="no route")
    failed.attrs = whole.attrs

    frame = netlab.explain(attempt(), hops=netlab.concat([whole, further, failed])).frame

    assert frame.loc[frame["station"] == "hop", "ttl"].tolist() == [1, 2]


@pytest.mark.privileged
def test_a_trace_to_somewhere_else_is_refused() -> None:
    with pytest.raises(netlab.BadInput, match=r"leads to 192\.0\.2\.7, not to this connection's peer"):
        netlab.explain(attempt(), hops=trace([["192.0.2.7"]]))
    with pytest.raises(netlab.BadInput, match="no trace"):
        netlab.explain(attempt(), hops=attempt())


@pytest.mark.privileged
def test_without_privileges_the_own_namespace_is_told_and_the_rest_says_what_it_takes() -> None:
    code = """
import os, sys, netlab, pandas as pd
row = pd.read_json(sys.stdin, typ="series").to_dict()
netlab.explain(row)  # an ordinary user may not read what a test's Python is made of
os.setgroups([]); os.setresgid(*[65534] * 3); os.setresuid(*[65534] * 3)
found = netlab.explain(row)
print(found)
print(found.frame.station.tolist())
"""
    with talking(SERVICE, SERVER) as (port, _):
        row = row_of("client", port)[["protocol", "netns", "local_address", "local_port", "state"]]
        row["remote_address"], row["remote_port"] = SERVICE
        command = ("ip", "netns", "exec", chains.name("client"), sys.executable, "-c", code)
        said = chains.run(*command, text=row.to_json())

    assert said.splitlines()[-1] == "['socket', 'translation', 'route', 'unknown']"
    assert "by eth0 via 10.79.1.1" in said
    assert "grant CAP_NET_ADMIN" in said
    assert "setns(2) needs CAP_SYS_ADMIN" in said


class Cells(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002 - as of HTMLParser
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.privileged
def test_foreign_text_is_escaped_bounded_and_on_one_line() -> None:
    found = netlab.explain(attempt(netns=1, process="<script>x</script>\x1b[31m\n" + "y" * 9000))
    page = Cells()
    page.feed(found._repr_html_())

    assert page.tags == {"table", "thead", "tbody", "tr", "th", "td", "ul", "li"}
    assert "<script>" in page.text
    assert "\x1b" not in repr(found)
    assert len(repr(found).splitlines()) == len(found.frame) + len(netlab.coverage(found.frame))
    assert max(map(len, repr(found).splitlines())) < 500


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (None, "not NoneType objects"),
        (CONNECTIONS.empty(), "this frame has 0"),
        ({"protocol": "tcp"}, "this row has no 'local_address'"),
        (netlab.schemas.HOPS.frame({"ttl": [1]}), "this row has no 'local_address'"),
    ],
)
def test_anything_else_than_one_connection_is_refused(row: Any, said: str) -> None:
    with pytest.raises(netlab.BadInput, match=said):
        netlab.explain(row)


@pytest.mark.privileged
@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"protocol": "sctp"}, "protocol 'sctp'"),
        ({"local_address": "nowhere"}, "addresses are none"),
        ({"local_address": "fd79:1::2"}, "of two families"),
        ({"remote_port": 99999}, "is not a whole number from 1 to 65535"),
    ],
)
def test_values_that_no_connection_has_are_refused(columns: dict[str, object], said: str) -> None:
    with pytest.raises(netlab.BadInput, match=said):
        netlab.explain(attempt(**columns))
