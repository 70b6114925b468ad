"""State changes in the kernel's order, and what a capture tells about itself."""

from __future__ import annotations

import os
import socket
import struct
import time

import pytest
from loopback import Echo, cookie, finish
from routers import router

import netlab

pytestmark = pytest.mark.privileged
CLIENT = ["syn-sent", "established", "fin-wait-1", "fin-wait-2", "closed"]
SERVER = ["syn-recv", "established", "close-wait", "last-ack", "closed"]


def test_events_are_every_state_of_each_end_in_order(echo: Echo) -> None:
    with netlab.capture(port=echo.port, events=True) as capture:
        for family in (4, 6):
            echo.talk(family, 10)

    events = capture.events()
    assert events["at"].is_monotonic_increasing
    for _, of_one in events.groupby("cookie"):
        outgoing = of_one["direction"].iloc[0] == "outgoing"
        assert of_one["after"].tolist() == (CLIENT if outgoing else SERVER)
        assert of_one["before"].tolist()[1:] == of_one["after"].tolist()[:-1]
    assert len(events) == 2 * len(CLIENT + SERVER)


def test_the_events_of_a_socket_used_again_belong_to_each_attempt(closed_port: int) -> None:
    with netlab.capture(port=closed_port, events=True) as capture, socket.socket() as client:
        for _ in range(3):
            client.connect_ex(("127.0.0.1", closed_port))

    events = capture.events()
    assert events["after"].tolist() == ["syn-sent", "closed"] * 3
    assert events["error"].dropna().tolist() == ["ECONNREFUSED"] * 3
    assert events["pid"].eq(os.getpid()).all()
    assert events["local_port"].nunique() == len(capture.connections()) == 3


def test_what_a_listener_does_is_no_event_of_the_connection_whose_place_it_has(closed_port: int) -> None:
    with netlab.capture(protocol="tcp", pid=os.getpid(), events=True, backfill=False) as capture:
        with socket.socket() as first:
            first.connect_ex(("127.0.0.1", closed_port))
            first.bind(("127.0.0.1", 0))
            first.listen()
        for _ in range(3):  # likely in the memory of the one before
            with socket.socket() as client:
                client.connect_ex(("127.0.0.1", closed_port))
            with socket.create_server(("127.0.0.1", 0)):
                pass

    assert set(capture.events()["after"]) == {"syn-sent", "closed"}
    assert len(capture.events()) == 2 * len(capture.connections()) == 8


def test_the_flows_of_one_udp_socket_do_not_hide_the_events(echo: Echo) -> None:
    with netlab.capture(events=True) as capture:
        with socket.socket(type=socket.SOCK_DGRAM) as sender:
            for peer in ("127.0.0.1", "127.0.0.2"):
                sender.sendto(b"x", (peer, echo.port))
        echo.talk(4, 10)
        number = capture.connections().query("protocol == 'tcp' and remote_port == @echo.port")["cookie"]
        events = capture.events()

    assert events.loc[events["cookie"].isin(number), "after"].tolist()[:2] == ["syn-sent", "established"]


def test_events_of_connections_that_were_open_before_are_found_by_cookie(echo: Echo) -> None:
    with echo.connect(4) as old, netlab.capture(port=echo.port, events=True) as capture:
        old.shutdown(socket.SHUT_WR)
        number = cookie(old)
        events = capture.events()

    mine = events[events["cookie"] == number]
    assert mine["after"].tolist()[0] == "fin-wait-1"


def test_events_have_to_be_asked_for(echo: Echo) -> None:
    with netlab.capture(port=echo.port) as capture, pytest.raises(netlab.CaptureError, match="events=True"):
        capture.events()


def test_congestion_columns_are_those_of_tcp_info(echo: Echo) -> None:
    rwnd_limited, ooo, rto = 176, 224, 244  # offsets in struct tcp_info, include/uapi/linux/tcp.h
    with netlab.capture(port=echo.port) as capture, echo.connect(4) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.sendall(bytes(100_000))
        info = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        finish(client)

    frame = capture.connections()
    rows = frame.set_index("direction")
    assert rows.loc["incoming", "rwnd_limited_ms"] > 0  # the echo waited for the small window
    assert (
        rows.loc["outgoing", "rwnd_limited_ms"] >= struct.unpack_from("=Q", info, rwnd_limited)[0] / 1000 - 10
    )
    assert rows.loc["outgoing", "out_of_order"] >= struct.unpack_from("=I", info, ooo)[0]
    if len(info) > rto:
        assert rows.loc["outgoing", "rtos"] >= struct.unpack_from("=H", info, rto)[0]
    else:  # before Linux 6.7
        assert rows["rtos"].isna().all()
    assert ("rtos" in set(netlab.coverage(frame)["what"])) == rows["rtos"].isna().all()


def test_the_cost_of_each_program_is_counted_when_asked_for(echo: Echo) -> None:
    with netlab.capture(port=echo.port, cost=True) as capture:
        for _ in range(10):
            echo.talk(4, 1)

    cost = capture.cost().set_index("program")
    changes = cost.loc["netlab_state_changed"]
    assert changes["runs"] >= 10 * len(CLIENT + SERVER)
    assert 0 < changes["ns_per_run"] == pytest.approx(changes["run_ms"] * 1e6 / changes["runs"])
    assert cost.loc["netlab_open", "memory_bytes"] > 0
    assert cost.loc["netlab_open", "max_entries"] == 65_536


def test_cost_says_when_runs_were_not_counted(echo: Echo) -> None:
    with netlab.capture(port=echo.port) as capture:
        echo.talk(4, 1)

    cost = capture.cost()
    assert cost["runs"].isna().all()
    assert netlab.coverage(cost)["what"].tolist() == ["runs, run_ms, ns_per_run"]


def test_the_raw_maps_show_open_attempts(echo: Echo) -> None:
    with netlab.capture(port=echo.port) as capture, echo.connect(4) as client:
        followed = capture.debug_maps()["netlab_open"]

        assert cookie(client) in followed["cookie"].tolist()


def test_state_changes_are_kept_up_to_a_bound_and_those_dropped_are_counted(echo: Echo) -> None:
    with netlab.capture(port=echo.port, events=True, max_closed=4) as capture:
        for _ in range(30):
            echo.talk(4, 1)
            time.sleep(0.06)  # longer than a drain: they come in many blocks
        frame = capture.events()

    changes = 30 * len(CLIENT + SERVER)
    gaps = netlab.coverage(frame)
    dropped = int(gaps.loc[gaps["what"] == "events", "count"].sum())
    assert dropped > 0  # others' changes among them
    assert 0 < len(frame) < changes


def test_changes_in_namespaces_that_were_not_asked_for_take_no_room_and_are_not_lost(echo: Echo) -> None:
    with router() as elsewhere, netlab.capture(netns=elsewhere.netns, events=True, max_closed=4) as capture:
        for _ in range(30):
            echo.talk(4, 1)
            time.sleep(0.06)  # longer than a drain: they come in many blocks
        gaps = netlab.coverage(capture.events())

    assert "events" not in gaps["what"].tolist()
