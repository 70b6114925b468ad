"""The nat_* columns of captures: real rules, real connections, both sides, in real network namespaces."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from between import Between, between, inside, run
from loopback import AF
from programs import wait_until

import netlab
from netlab.kernel import ctlisten, netns
from netlab.tracer import translations

pytestmark = pytest.mark.privileged

SERVICE = {4: "10.92.1.1", 6: "fd92:1::1"}  # the router's address on the client's side
SERVER = {4: "10.92.2.2", 6: "fd92:2::2"}
OUTSIDE = {4: "10.92.2.1", 6: "fd92:2::1"}  # what the server sees
NAT = ["nat_local_address", "nat_local_port", "nat_remote_address", "nat_remote_port"]
OWN = ["local_address", "local_port", "remote_address", "remote_port"]
# A service address that leads to the server, and everything masqueraded on its way out. Zone 7 translates the
# same tuples to another port.
ROUTER = """
table inet netlab_host {
    chain zones {
        type filter hook prerouting priority raw
        udp dport 5907 ct zone set 7
    }
    chain targets {
        type nat hook prerouting priority dstnat
        iifname "c" ip daddr 10.92.1.1 tcp dport 80 dnat ip to 10.92.2.2:8000
        iifname "c" ip6 daddr fd92:1::1 tcp dport 80 dnat ip6 to [fd92:2::2]:8000
        iifname "c" ip daddr 10.92.1.1 tcp dport 79 dnat ip to 10.92.2.2:7
        iifname "c" ip6 daddr fd92:1::1 tcp dport 79 dnat ip6 to [fd92:2::2]:7
        iifname "c" ip daddr 10.92.1.1 udp dport 53 dnat ip to 10.92.2.2:5300
        iifname "c" ip6 daddr fd92:1::1 udp dport 53 dnat ip6 to [fd92:2::2]:5300
        iifname "s" ip daddr 10.92.2.1 tcp dport 81 dnat ip to 10.92.2.2:8000
    }
    chain sources {
        type nat hook postrouting priority srcnat
        oifname "s" masquerade
    }
}
"""
# What the client's own namespace does to its connections before they leave.
CLIENT = """
table inet netlab_own {
    chain out {
        type nat hook output priority -100
        tcp dport 8080 dnat ip to 10.92.2.2:8000
        tcp dport 8081 dnat ip to 10.92.1.1:80
        tcp dport 8082 redirect to :8083
    }
}
"""

# A service whose flows go to two ports in turn.
TURNS = """
table ip netlab_turns {
    chain targets {
        type nat hook prerouting priority dstnat - 1
        udp dport 59 dnat to 10.92.2.2 : numgen inc mod 2 map { 0 : 5301, 1 : 5302 }
    }
}
"""


@pytest.fixture(scope="module")
def net() -> Iterator[Between]:
    with between(92) as built:
        inside(built.router, "nft", "-f", "-", text=ROUTER)
        inside(built.client, "nft", "-f", "-", text=CLIENT)
        yield built


def made(space: str, family: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    with netns.entered(space):
        return socket.socket(AF[family], kind)


@contextlib.contextmanager
def listening(space: str, family: int, port: int) -> Iterator[socket.socket]:
    with made(space, family) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("", port))
        server.listen(16)
        server.settimeout(10)
        yield server


@contextlib.contextmanager
def talked(net: Between, family: int, to: tuple[str, int], *, port: int = 8000) -> Iterator[tuple[Any, Any]]:
    """Connect from the client's namespace to a server that listens on *port*; what each end sees of it."""
    with listening(net.server, family, port) as server, made(net.client, family) as client:
        client.settimeout(10)
        client.connect(to)
        accepted, _ = server.accept()
        with accepted:
            yield client, accepted


def ends(one: socket.socket) -> list[Any]:
    """Return the socket's own address and port, and its peer's."""
    return [*one.getsockname()[:2], *one.getpeername()[:2]]


def row(frame: pd.DataFrame, space: str, one: list[Any]) -> pd.Series:
    """Return the row of the socket with these ends."""
    (place,) = (i for i, found in enumerate(frame[OWN].to_numpy().tolist()) if found == one)
    assert frame["netns"][place] == netns.inode(space)
    return frame.iloc[place]


def turned(seen: list[Any]) -> list[Any]:
    return seen[2:] + seen[:2]


def gaps(frame: pd.DataFrame) -> pd.DataFrame:
    known = netlab.coverage(frame)
    return known[known["what"] == "nat_*"]


@pytest.mark.parametrize("family", [4, 6])
def test_both_ends_of_a_chain_agree(net: Between, family: int) -> None:
    with (
        netlab.capture(protocol="tcp", nat=net.router) as capture,
        talked(net, family, (SERVICE[family], 80)) as (client, accepted),
    ):
        one, other = ends(client), ends(accepted)
        frame = capture.connections()

    assert row(frame, net.client, one)[NAT].tolist() == turned(other)
    assert row(frame, net.server, other)[NAT].tolist() == turned(one)
    assert one[2] == SERVICE[family]
    assert other[2] == OUTSIDE[family]


@pytest.mark.parametrize("family", [4, 6])
def test_a_refused_connection_whose_entry_is_gone_has_its_translation(net: Between, family: int) -> None:
    with (
        netlab.capture(protocol="tcp", nat=net.router) as capture,
        made(net.client, family) as client,
        pytest.raises(ConnectionRefusedError),
    ):
        client.connect((SERVICE[family], 79))

    (failed,) = capture.failures().query("remote_port == 79").to_dict("records")
    assert netlab.conntrack(netns=net.router, protocol="tcp", dport=79).empty  # the reset destroyed it
    assert failed["error"] == "ECONNREFUSED"
    assert [failed["nat_local_address"], failed["nat_remote_address"]] == [OUTSIDE[family], SERVER[family]]
    assert failed["nat_remote_port"] == 7


@pytest.mark.parametrize("family", [4, 6])
def test_both_ends_of_a_udp_flow_agree(net: Between, family: int) -> None:
    with (
        netlab.capture(protocol="udp", nat=net.router) as capture,
        made(net.server, family, socket.SOCK_DGRAM) as server,
        made(net.client, family, socket.SOCK_DGRAM) as client,
    ):
        server.bind((SERVER[family], 5300))
        server.settimeout(10)
        client.connect((SERVICE[family], 53))
        client.send(b"question")
        _, peer = server.recvfrom(100)
        one, other = ends(client), [SERVER[family], 5300, *peer[:2]]
        frame = capture.connections()

    assert row(frame, net.client, one)[NAT].tolist() == turned(other)
    assert row(frame, net.server, other)[NAT].tolist() == turned(one)


def test_a_udp_flow_whose_entry_is_followed_by_another_is_said_to_have_gone_elsewhere(net: Between) -> None:
    """As behind a service with several servers, when the flow pauses for longer than its entry lives."""
    inside(net.router, "nft", "-f", "-", text=TURNS)
    with (
        netlab.capture(protocol="udp", nat=net.router, netns=net.client) as capture,
        made(net.server, 4, socket.SOCK_DGRAM) as first,
        made(net.server, 4, socket.SOCK_DGRAM) as second,
        made(net.client, 4, socket.SOCK_DGRAM) as client,
    ):
        first.bind(("", 5301))
        second.bind(("", 5302))
        client.connect((SERVICE[4], 59))
        client.send(b"to the first")
        before = capture.connections()
        inside(net.router, "conntrack", "-D", "-p", "udp", "--dport", "59")
        client.send(b"to the second")
        after = capture.connections()

    assert [frame["nat_remote_port"].tolist() for frame in (before, after)] == [[5301], [5302]]
    assert [gaps(frame)["kind"].tolist() for frame in (before, after)] == [[], ["approximate"]]


def test_what_the_own_namespace_does_is_shown_without_a_host_that_translates(net: Between) -> None:
    with (
        netlab.capture(protocol="tcp", nat=net.client) as capture,
        talked(net, 4, ("192.0.2.1", 8080)) as (client, _),
    ):
        one = ends(client)
        frame = capture.connections()

    assert row(frame, net.client, one)[NAT].tolist() == [*one[:2], SERVER[4], 8000]


def test_own_namespace_and_host_in_turn_give_the_final_addresses(net: Between) -> None:
    with (
        netlab.capture(protocol="tcp", nat=net.router) as capture,
        talked(net, 4, ("192.0.2.1", 8081)) as (client, accepted),
    ):
        one, other = ends(client), ends(accepted)
        frame = capture.connections()

    assert row(frame, net.client, one)[NAT].tolist() == turned(other)
    # The server's end knows what the host did, and not what the client's namespace had done before.
    assert row(frame, net.server, other)[NAT].tolist() == [SERVICE[4], 80, *one[:2]]


def test_a_redirect_is_seen_at_both_ends_in_one_namespace(net: Between) -> None:
    with (
        netlab.capture(protocol="tcp", nat=net.router) as capture,
        listening(net.client, 4, 8083) as server,
        made(net.client, 4) as client,
    ):
        client.connect(("192.0.2.1", 8082))
        accepted, _ = server.accept()
        with accepted:
            one, other = ends(client), ends(accepted)
            frame = capture.connections()

    assert row(frame, net.client, one)[NAT].tolist() == turned(other)
    assert row(frame, net.client, other)[NAT].tolist() == turned(one)


def test_a_hairpin_shows_the_service_address_at_the_server(net: Between) -> None:
    with (
        netlab.capture(protocol="tcp", nat=net.router) as capture,
        listening(net.server, 4, 8000) as server,
        made(net.server, 4) as client,
    ):
        client.settimeout(10)
        client.connect((OUTSIDE[4], 81))
        accepted, _ = server.accept()
        with accepted:
            one, other = ends(client), ends(accepted)
            frame = capture.connections()

    assert row(frame, net.server, one)[NAT].tolist() == turned(other)
    assert row(frame, net.server, other)[NAT].tolist() == turned(one)


def test_what_is_not_translated_has_no_nat_columns(net: Between) -> None:
    with (
        netlab.capture(protocol="tcp", nat=net.router) as capture,
        listening(net.client, 4, 0) as server,
        made(net.client, 4) as client,
    ):
        client.connect(server.getsockname())
        one = ends(client)
        frame = capture.connections()

    assert row(frame, net.client, one)[NAT].isna().all()


def test_a_tuple_used_again_has_the_translation_of_its_own_time(net: Between) -> None:
    """The masquerade is told to take another source port each time."""
    seen = []
    with netlab.capture(protocol="tcp", nat=net.router) as capture, listening(net.server, 4, 8000) as server:
        for taken in (40_001, 40_002):
            rule = f"oifname s tcp sport 5555 masquerade to :{taken}"
            inside(net.router, "nft", "insert", "rule", "inet", "netlab_host", "sources", *rule.split())
            with made(net.client, 4) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # no TIME-WAIT
                client.bind(("10.92.1.2", 5555))
                client.connect((SERVER[4], 8000))
                accepted, peer = server.accept()
                accepted.close()
                seen.append(peer[1])
            inside(net.router, "conntrack", "-D", "-p", "tcp", "--orig-port-src", "5555")
        frame = capture.connections()

    ours = frame[(frame["local_port"] == 5555) & (frame["direction"] == "outgoing")]
    assert seen == [40_001, 40_002]
    assert ours["nat_local_port"].tolist() == seen
    assert netlab.conntrack(netns=net.router, protocol="tcp", sport=5555).empty


def test_a_connection_that_was_open_before_is_found_by_a_dump(net: Between) -> None:
    with talked(net, 4, (SERVICE[4], 80)) as (client, accepted):
        one, other = ends(client), ends(accepted)
        with netlab.capture(protocol="tcp", nat=net.router) as capture:
            pass

    frame = capture.connections()
    assert row(frame, net.client, one)[NAT].tolist() == turned(other)
    assert row(frame, net.client, one)["seen"] == "backfill"


def test_a_tuple_in_two_zones_is_said_to_be_contested(net: Between) -> None:
    add = "conntrack -I -p udp -s 10.92.1.2 -d 10.92.2.2 --sport 5556 --dport 5907 -t 60"
    inside(net.router, *add.split(), "--src-nat", "10.92.2.1")
    with (
        netlab.capture(protocol="udp", nat=net.router) as capture,
        made(net.client, 4, socket.SOCK_DGRAM) as client,
    ):
        client.bind(("10.92.1.2", 5556))
        client.connect((SERVER[4], 5907))
        inside(net.router, *add.split(), "-w", "7", "--src-nat", "10.92.2.99")
        client.send(b"x")
        frame = capture.connections()

    assert row(frame, net.client, ["10.92.1.2", 5556, SERVER[4], 5907])[NAT].isna().all()
    known = gaps(frame)
    assert known["detail"].str.contains("zones").any()
    assert known[known["detail"].str.contains("zones")]["count"].tolist() == [1]


def test_the_same_tuple_in_another_zone_that_is_over_does_not_matter(net: Between) -> None:
    add = "conntrack -I -p udp -s 10.92.1.2 -d 10.92.2.2 --sport 5558 --dport 5900 -t 60 -w 9"
    with netlab.capture(protocol="udp", nat=net.router) as capture:
        inside(net.router, *add.split(), "--src-nat", "10.92.2.99")
        inside(net.router, "conntrack", "-D", "-w", "9")
        capture.connections()  # so that the end is known to be before what follows
        with made(net.client, 4, socket.SOCK_DGRAM) as client:
            client.bind(("10.92.1.2", 5558))
            client.connect((SERVER[4], 5900))
            client.send(b"x")
            frame = capture.connections()

    assert row(frame, net.client, ["10.92.1.2", 5558, SERVER[4], 5900])["nat_local_address"] == OUTSIDE[4]


def test_clients_are_told_translations_with_each_delta(net: Between) -> None:
    with netlab.capture(protocol="tcp", nat=net.router) as capture:
        capture.register("test")
        with talked(net, 4, (SERVICE[4], 80)) as (client, accepted):
            one, other = ends(client), ends(accepted)
            opened = capture.delta("test")
        closed = capture.delta("test")

    for frame in (opened, closed):
        assert row(frame, net.client, one)[NAT].tolist() == turned(other)


def test_polling_shows_translations_too(net: Between) -> None:
    with (
        netlab.capture(mode="poll", protocol="tcp", nat=net.router, poll_every_s=0.05) as capture,
        talked(net, 4, (SERVICE[4], 80)) as (client, accepted),
    ):
        one, other = ends(client), ends(accepted)
        wait_until(lambda: other in capture.connections()[OWN].to_numpy().tolist())
        frame = capture.connections()

    assert row(frame, net.client, one)[NAT].tolist() == turned(other)
    assert row(frame, net.server, other)[NAT].tolist() == turned(one)


def test_what_opened_before_a_pause_keeps_its_translation_and_the_pause_loses_none(net: Between) -> None:
    with netlab.capture(protocol="tcp", nat=net.router) as capture:
        with talked(net, 4, (SERVICE[4], 80)) as (client, accepted):
            one, other = ends(client), ends(accepted)
            capture.pause()
        capture.resume()
        with talked(net, 4, (SERVICE[4], 80)) as (client, accepted):
            later, other_later = ends(client), ends(accepted)

    frame = capture.connections()
    assert row(frame, net.client, one)[NAT].tolist() == turned(other)
    assert row(frame, net.client, later)[NAT].tolist() == turned(other_later)


def test_a_capture_of_one_namespace_asks_the_host_too(net: Between) -> None:
    with (
        netlab.capture(protocol="tcp", netns=net.client, nat=net.router) as capture,
        talked(net, 4, (SERVICE[4], 80)) as (client, accepted),
    ):
        one, other = ends(client), ends(accepted)
        frame = capture.connections()

    assert row(frame, net.client, one)[NAT].tolist() == turned(other)
    assert frame["netns"].unique().tolist() == [netns.inode(net.client)]


def test_messages_lost_to_a_full_buffer_are_counted_and_a_dump_makes_up_for_them(
    net: Between, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctlisten, "_BUFFER_BYTES", 1 << 12)
    monkeypatch.setattr(ctlisten, "_LARGEST_BUFFER", 1 << 12)
    with (
        netlab.capture(protocol="udp", nat=net.router) as capture,
        made(net.client, 4, socket.SOCK_DGRAM) as client,
    ):
        client.bind(("10.92.1.2", 0))
        for port in range(20_000, 20_400):
            client.sendto(b"x", (SERVER[4], port))
        frame = capture.connections()

    ours = frame[(frame["direction"] == "outgoing") & frame["remote_port"].between(20_000, 20_399)]
    lost = gaps(frame).query("kind == 'lost'")
    assert lost["count"].sum() > 0
    assert len(ours) == 400
    assert ours["nat_local_address"].eq(OUTSIDE[4]).all()


def test_translations_beyond_the_limit_are_counted(net: Between) -> None:
    with (
        netlab.capture(protocol="udp", nat=net.router, netns=net.client, max_nat=10) as capture,
        made(net.client, 4, socket.SOCK_DGRAM) as client,
    ):
        for port in range(21_000, 21_100):
            client.sendto(b"x", (SERVER[4], port))

    frame = capture.connections()
    ours = frame[frame["remote_port"].between(21_000, 21_099)]
    (lost,) = gaps(frame).query("kind == 'lost'").to_dict("records")
    assert len(ours) == 100
    assert ours["nat_local_address"].notna().sum() <= 10
    assert lost["count"] >= 90
    assert "only 10 translations" in lost["detail"]


def test_a_namespace_that_tells_nothing_is_said_to(net: Between) -> None:
    inside(net.router, "sysctl", "-qw", "net.netfilter.nf_conntrack_events=0")
    try:
        with (
            netlab.capture(protocol="tcp", nat=net.router) as capture,
            talked(net, 4, (SERVICE[4], 80)) as (client, accepted),
        ):
            one, other = ends(client), ends(accepted)
            frame = capture.connections()
    finally:
        inside(net.router, "sysctl", "-qw", "net.netfilter.nf_conntrack_events=2")

    assert row(frame, net.client, one)[NAT].tolist() == turned(other)  # a dump has it
    assert gaps(frame)["detail"].str.contains("nf_conntrack_events is 0").any()


def test_a_namespace_that_tells_nothing_any_more_is_said_to(net: Between) -> None:
    try:
        with netlab.capture(protocol="tcp", nat=net.router) as capture:
            inside(net.router, "sysctl", "-qw", "net.netfilter.nf_conntrack_events=0")
            with talked(net, 4, (SERVICE[4], 80)):
                assert gaps(capture.connections())["kind"].tolist() == ["unseen"]
            inside(net.router, "sysctl", "-qw", "net.netfilter.nf_conntrack_events=2")
    finally:
        inside(net.router, "sysctl", "-qw", "net.netfilter.nf_conntrack_events=2")

    assert gaps(capture.connections())["detail"].str.contains("nf_conntrack_events was set to 0").any()


def test_connections_of_namespaces_that_come_and_go_are_translated_or_counted() -> None:
    rule = "type nat hook output priority -100\ntcp dport 4182 redirect to :4181"
    table = f"table ip netlab_passing {{\nchain targets {{\n{rule}\n}}\n}}"
    with netlab.capture(protocol="tcp", port=4182) as capture:
        for number in range(5):
            passing = f"netlab-passing-{os.getpid()}-{number}"
            run("ip", "netns", "add", passing)
            try:
                run("ip", "-n", passing, "link", "set", "lo", "up")
                inside(passing, "nft", "-f", "-", text=table)
                with netns.entered(passing), socket.create_server(("127.0.0.1", 4181)):
                    socket.create_connection(("127.0.0.1", 4182)).close()
            finally:
                run("ip", "netns", "del", passing)
        frame = capture.connections()

    known = gaps(frame)
    assert len(frame) == 5
    assert known.loc[known["kind"] == "unseen", "count"].sum() == frame["nat_remote_port"].isna().sum()


def test_the_host_is_let_go_when_it_is_gone() -> None:
    """A socket in it would keep it alive, and with it the other ends of its pairs."""
    with between(94) as passing, netlab.capture(protocol="tcp", nat=passing.router) as capture:
        run("ip", "netns", "del", passing.router)
        wait_until(lambda: "r@" not in inside(passing.client, "ip", "link"))
        assert capture.connections().columns.size


def test_without_nat_nothing_is_looked_up_and_the_coverage_says_so(net: Between) -> None:
    with (
        netlab.capture(protocol="tcp", nat=False) as capture,
        talked(net, 4, (SERVICE[4], 80)) as (client, _),
    ):
        one = ends(client)
        frame = capture.connections()

    assert row(frame, net.client, one)[NAT].isna().all()
    assert gaps(frame)["detail"].tolist() == ["netlab.capture(nat=True) looks translations up"]


def test_where_conntrack_is_not_loaded_nobody_listens(net: Between, monkeypatch: pytest.MonkeyPatch) -> None:
    """To listen would have the kernel load it; the file that tells of it is the only pretence here."""
    monkeypatch.setattr(translations, "_CONNTRACK", translations._CONNTRACK.with_name("not-loaded"))
    with netlab.capture(protocol="tcp", nat=net.router) as capture:
        assert not capture._nat.namespaces  # type: ignore[union-attr]
        with talked(net, 4, (SERVICE[4], 80)):
            pass
        monkeypatch.undo()
        wait_until(lambda: netns.inode(net.router) in capture._nat.namespaces)  # type: ignore[union-attr]
        with talked(net, 4, (SERVICE[4], 80)) as (client, accepted):
            one, other = ends(client), ends(accepted)

    frame = capture.connections()
    assert row(frame, net.client, one)[NAT].tolist() == turned(other)


@pytest.mark.parametrize("nat", [None, "no-such-namespace", 1.5, ""])
def test_what_is_no_namespace_is_refused(nat: object) -> None:
    with pytest.raises(netlab.BadInput):
        netlab.capture(nat=nat)  # type: ignore[arg-type]


def test_a_list_of_open_connections_has_translations_on_demand(net: Between) -> None:
    with talked(net, 4, (SERVICE[4], 80)) as (client, accepted):
        one, other = ends(client), ends(accepted)
        asked = netlab.connections(netns=net.client, nat=net.router)
        served = netlab.connections(netns="all", nat=net.router)
        unasked = netlab.connections(netns=net.client)

    assert row(asked, net.client, one)[NAT].tolist() == turned(other)
    assert row(served, net.server, other)[NAT].tolist() == turned(one)
    assert gaps(asked).empty
    assert row(unasked, net.client, one)[NAT].isna().all()
    assert gaps(unasked)["detail"].tolist() == ["netlab.connections(nat=True) looks translations up"]


def test_translations_survive_a_recording(net: Between, tmp_path: Path) -> None:
    with (
        netlab.capture(protocol="tcp", nat=net.router) as capture,
        talked(net, 4, (SERVICE[4], 80)) as (client, accepted),
    ):
        one, other = ends(client), ends(accepted)
    netlab.save(tmp_path / "nat.netlab", connections=capture.connections())

    frame = netlab.load(tmp_path / "nat.netlab")["connections"]
    assert row(frame, net.client, one)[NAT].tolist() == turned(other)


@pytest.mark.parametrize("ask", ["netlab.connections(nat=True)", "poll()"])
def test_who_may_not_ask_conntrack_is_told_so_and_gets_the_rest(ask: str) -> None:
    code = f"""
        import os, socket
        import netlab
        listening = socket.create_server(("127.0.0.1", 0))
        client = socket.create_connection(listening.getsockname())
        def poll():
            with netlab.capture(mode="poll", poll_every_s=0.05) as capture:
                pass
            return capture.connections()
        {ask}  # so that nothing is left to import
        os.setgroups([]); os.setresgid(*[65534] * 3); os.setresuid(*[65534] * 3)
        frame = {ask}
        assert client.getsockname()[1] in set(frame["local_port"])
        gaps = netlab.coverage(frame)
        print(*gaps[gaps["what"] == "nat_*"]["detail"], sep="\\n")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    assert "CAP_NET_ADMIN" in done.stdout
    assert "root" in done.stdout
