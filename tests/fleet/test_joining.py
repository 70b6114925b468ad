"""Both ends of a connection in one row: the kernel's socket cookies say which belong together."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import fleets
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

import netlab
from netlab.errors import BadInput
from netlab.fleet import Fleet, joined
from netlab.frames import Gap, Missing
from netlab.schemas import CONNECTIONS, NAT

PORT, SERVICE, REDIRECTED = 7001, "198.51.100.10", 7100
_SO_COOKIE = 57  # include/uapi/asm-generic/socket.h
_RULES = {
    "h1": f"output priority -100; ip daddr {SERVICE} tcp dport 80 dnat to {fleets.address('h8')}:{PORT}",
    "h7": f"prerouting priority -100; tcp dport {REDIRECTED} redirect to :{PORT}",
    "r2": f"postrouting priority 100; ip saddr {fleets.address('h4')} tcp dport {PORT} masquerade",
}


@dataclass(frozen=True)
class Talk:
    near: str
    far: str
    cookies: tuple[int, int]
    sent: int


def cookie(end: socket.socket) -> int:
    return int.from_bytes(end.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8), "little")


@pytest.fixture(scope="module")
def talks(rig: fleets.Rig) -> Iterator[list[Talk]]:
    """Connections that are open: plain, through each kind of translation, and to a host without a worker."""
    with contextlib.ExitStack() as opened:
        for node, rule in _RULES.items():
            table = f"table ip test {{\n chain test {{\n type nat hook {rule}\n }}\n}}\n".replace("; ", "\n")
            command = ["ip", "netns", "exec", rig.netns(node), "nft", "-f", "-"]
            subprocess.run(command, input=table, text=True, check=True)
        with rig.entered("h1"):
            subprocess.run(
                ["ip", "route", "add", SERVICE, "via", fleets.link_address("r1", "h1")], check=True
            )
        listeners = {}
        for node in ("h6", "h7", "h8", "r1"):
            with rig.entered(node):
                listeners[node] = opened.enter_context(socket.create_server(("0.0.0.0", PORT)))
        found = []
        for number, (near, far, place) in enumerate(
            [
                ("h2", "h6", (fleets.address("h6"), PORT)),
                ("h1", "h8", (SERVICE, 80)),
                ("h3", "h7", (fleets.address("h7"), REDIRECTED)),
                ("h4", "h8", (fleets.address("h8"), PORT)),
                ("h5", "r1", (fleets.link_address("r1", "r2"), PORT)),
            ],
            start=1,
        ):
            with rig.entered(near):
                client = opened.enter_context(socket.create_connection(place, timeout=30))
            server = opened.enter_context(listeners[far].accept()[0])
            client.sendall(bytes(number * 100))
            server.recv(number * 100, socket.MSG_WAITALL)
            found.append(Talk(near, far, (cookie(client), cookie(server)), number * 100))
        yield found


@pytest.mark.privileged
def test_both_ends_are_one_row_through_what_hosts_and_gateways_translate(
    fleet: Fleet, rig: fleets.Rig, talks: list[Talk]
) -> None:
    frame = joined(fleet.connections(protocol="tcp", nat=True), nat=netlab.nat(netns=rig.netns("r2")))

    both = frame[frame["ends"] == "both"].set_index("client_cookie")
    told = {
        (row["client_host"], row["server_host"], (number, row["server_cookie"]), row["server_bytes_received"])
        for number, row in both.iterrows()
    }
    assert told == {(talk.near, talk.far, talk.cookies, talk.sent) for talk in talks if talk.far != "r1"}
    assert both["to_server_bytes_difference"].eq(0).all()
    assert set(both["client_process"]) == set(both["server_process"]) != {pd.NA}


@pytest.mark.privileged
def test_an_end_whose_peer_has_no_worker_stays_alone_with_the_other_missing(
    fleet: Fleet, talks: list[Talk]
) -> None:
    frame = joined(fleet.connections(protocol="tcp", nat=True))

    alone = frame[frame["client_cookie"] == talks[-1].cookies[0]].iloc[0]
    assert alone["ends"] == "client"
    assert alone[[name for name in frame if name.startswith(("server_", "peer_"))]].isna().all()
    assert pd.isna(alone["to_server_bytes_difference"])


def ends(*rows: dict[str, object]) -> pd.DataFrame:
    """Return connections between 10.0.0.1 port 5000 on "near" and 10.0.0.2 port 80 on "far"."""
    near = {"host": "near", "direction": "outgoing", "local_address": "10.0.0.1", "local_port": 5000}
    near |= {"remote_address": "10.0.0.2", "remote_port": 80, "protocol": "tcp"}
    far = {"host": "far", "direction": "incoming", "local_address": "10.0.0.2", "local_port": 80}
    far |= {"remote_address": "10.0.0.1", "remote_port": 5000, "protocol": "tcp"}
    whole = [{**(near if row["end"] == "near" else far), **row} for row in rows]
    names = [name for name in dict.fromkeys(name for row in whole for name in row) if name != "end"]
    return CONNECTIONS.with_host().frame({name: [row.get(name) for row in whole] for name in names})


def life(end: str, number: int, begun_s: float, *, lasts_s: float = 10.0) -> dict[str, object]:
    begun = pd.Timestamp("2026-11-21", tz="UTC") + pd.Timedelta(seconds=begun_s)
    return {
        "end": end,
        "cookie": number,
        "opened_at": begun,
        "closed_at": begun + pd.Timedelta(seconds=lasts_s),
    }


@settings(max_examples=30)
@given(st.lists(st.floats(12, 1000), min_size=1, max_size=8), st.floats(-0.9, 0.9), st.randoms())
def test_connections_that_use_a_tuple_again_are_told_apart_by_their_times(
    pauses_s: list[float], skew_s: float, chance: object
) -> None:
    begun = [sum(pauses_s[:number]) for number in range(len(pauses_s))]
    rows = [
        life(end, n, at + (skew_s if end == "far" else 0))
        for n, at in enumerate(begun)
        for end in ("near", "far")
    ]
    chance.shuffle(rows)

    found = joined(ends(*rows))

    assert found["ends"].eq("both").all()
    assert found["client_cookie"].equals(found["server_cookie"])
    assert sorted(found["client_cookie"]) == list(range(len(begun)))


def test_an_end_that_fits_two_others_stays_alone_and_is_counted() -> None:
    found = joined(ends(life("near", 1, 0), life("far", 2, 0), life("far", 3, 5)))

    assert sorted(found["ends"]) == ["client", "server", "server"]
    assert netlab.coverage(found).set_index("what").loc["the other end", "count"] == 3


def told(found: pd.DataFrame) -> dict[str, int]:
    return dict(netlab.coverage(found)[["detail", "count"]].to_numpy().tolist())


def test_ends_whose_times_are_too_far_apart_are_counted_with_what_to_do() -> None:
    rows = ends(life("near", 1, 0, lasts_s=1), life("far", 2, 4, lasts_s=1))

    apart, fitting = joined(rows), joined(rows, clock_skew_s=5)

    assert sorted(apart["ends"]) == ["client", "server"]
    assert [(count, "clock_skew_s=" in detail) for detail, count in told(apart).items()] == [(2, True)]
    assert (fitting["ends"].tolist(), told(fitting)) == (["both"], {})


def translations(*new_ports: int) -> pd.DataFrame:
    """Return entries of gateways that translate the connection of `ends`, each to another port."""
    count = len(new_ports)
    entry = {"protocol": "tcp", "src": "10.0.0.1", "sport": 5000, "dst": "10.0.0.2", "dport": 80}
    entry |= {"reply_src": "10.0.0.2", "reply_dst": "10.0.0.1", "reply_dport": 5000}
    columns = {name: [value] * count for name, value in entry.items()}
    return NAT.frame(
        columns | {"reply_sport": list(new_ports)},
        [Missing("rows of host gw1", Gap.UNAVAILABLE, None, "gw1: no answer within 30 s")],
    )


def test_what_the_gateways_did_not_tell_is_in_the_coverage() -> None:
    found = joined(ends(life("near", 1, 0)), nat=translations())

    coverage = netlab.coverage(found)
    assert coverage[["what", "detail"]].to_numpy().tolist() == [
        ["nat: rows of host gw1", "gw1: no answer within 30 s"]
    ]


def test_ends_that_gateways_translate_in_different_ways_are_counted() -> None:
    found = joined(ends(life("near", 1, 0), life("far", 2, 0) | {"local_port": 81}), nat=translations(81, 82))

    assert sorted(found["ends"]) == ["client", "server"]
    assert [count for detail, count in told(found).items() if "different ways" in detail] == [1]


def test_an_attempt_that_got_no_port_stays_and_one_of_unknown_direction_is_counted() -> None:
    failed = life("near", 1, 0) | {"local_port": None, "error": "EADDRNOTAVAIL"}

    found = joined(ends(failed, life("far", 2, 0), life("near", 3, 0) | {"direction": "unknown"}))

    assert sorted(found["ends"]) == ["client", "server"]
    assert found["client_error"].dropna().tolist() == ["EADDRNOTAVAIL"]
    assert netlab.coverage(found).set_index("what").loc["connections of unknown direction", "count"] == 1


def test_loopback_addresses_of_two_hosts_are_not_one_connection() -> None:
    here = {"local_address": "127.0.0.1", "remote_address": "127.0.0.1"}

    found = joined(ends(life("near", 1, 0) | here, life("far", 2, 0) | here))

    assert sorted(found["ends"]) == ["client", "server"]


def test_a_frame_without_hosts_is_refused() -> None:
    with pytest.raises(BadInput, match="with a column 'host'"):
        joined(netlab.connections())
    other = ends({"end": "near"})
    other.attrs["schema"] = "requests"
    with pytest.raises(BadInput, match="takes connections, and this is a frame of requests"):
        joined(other)
