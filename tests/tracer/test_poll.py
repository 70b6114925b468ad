"""A capture without eBPF: what looking again and again sees, and what it says it missed."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pandas as pd
import pytest
from attempts import attempts
from loopback import Echo, cookie, disconnect, finish
from programs import wait_until

import netlab
from netlab.kernel import clock
from netlab.tracer import system
from netlab.tracer.limits import Limits
from netlab.tracer.poll import Poll
from netlab.tracer.snapshot import Snapshot

FAMILIES = pytest.mark.parametrize("family", [4, 6])
EVERY_S = 0.1


def ends(frame: pd.DataFrame, direction: str) -> pd.DataFrame:
    return frame[frame["direction"] == direction]


@FAMILIES
def test_a_connection_is_a_row_while_it_is_open_and_after(echo: Echo, family: int) -> None:
    with netlab.capture(mode="poll", poll_every_s=EVERY_S, port=echo.port) as capture:
        before = pd.Timestamp.now("UTC")
        with echo.connect(family) as client:
            client.sendall(bytes(1000))
            client.recv(1000, socket.MSG_WAITALL)
            info = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
            wait_until(lambda: len(ends(capture.connections(), "outgoing")) == 1)
            row = ends(capture.connections(), "outgoing").iloc[0]
            assert row["cookie"] == cookie(client)
            assert (row["state"], row["pid"]) == ("established", os.getpid())
            assert before <= row["opened_at"] <= pd.Timestamp.now("UTC")
            assert row["bytes_sent"] == struct.unpack_from("=Q", info, 200)[0] == 1000
        wait_until(lambda: ends(capture.connections(), "outgoing")["closed_at"].notna().all())

    row = ends(capture.connections(), "outgoing").iloc[0]
    assert (row["state"], row["bytes_sent"], row["bytes_received"]) == ("closed", 1000, 1000)
    assert pd.isna(row["error"])
    assert row["closed_at"] <= pd.Timestamp.now("UTC")


def test_a_connection_that_was_there_before_is_backfilled_and_its_end_is_seen(echo: Echo) -> None:
    with echo.connect(4) as client:
        client.sendall(b"before")
        client.recv(6, socket.MSG_WAITALL)
        with netlab.capture(mode="poll", poll_every_s=EVERY_S, port=echo.port) as capture:
            finish(client)
            client.close()

    row = ends(capture.connections(), "outgoing").iloc[0]
    assert (row["seen"], row["state"], row["bytes_sent"]) == ("backfill", "closed", 6)
    assert pd.isna(row["opened_at"])


def test_a_connection_that_was_there_before_is_told_as_closed_once(echo: Echo) -> None:
    told = []
    with (
        echo.connect(4) as client,
        netlab.capture(mode="poll", poll_every_s=EVERY_S, port=echo.port) as capture,
    ):
        number = cookie(client)
        capture.register("me")
        finish(client)
        client.close()

        def is_told() -> bool:
            frame = capture.delta("me")
            told.extend(frame.loc[frame["cookie"] == number, "state"].tolist())
            return "closed" in told

        wait_until(is_told)
        again = capture.delta("me")

    assert told.count("closed") == 1
    assert number not in again["cookie"].tolist()


def list_of(*numbers: int) -> Snapshot:
    records = attempts(*({"cookie": n, "protocol": 6, "netns": 1, "remote_port": 80} for n in numbers))
    size = len(records)
    return Snapshot(records, np.ones(size, np.uint8), np.arange(size, dtype=np.uint64), {}, [])


def looked(*lists: Snapshot) -> Poll:
    watch = Poll(Limits(), 0, every_s=60, system=system.here())
    for one in lists:
        watch.look(one)
    return watch


def test_a_connection_that_one_list_skips_has_not_ended() -> None:
    watch = looked(list_of(1, 2), list_of(2), list_of(1, 2), list_of(2), list_of(1, 2))

    assert sorted(watch.open()["cookie"]) == [1, 2]
    assert len(watch.closed().attempts) == 0


def test_a_connection_that_two_lists_lack_ended_when_the_first_was_made() -> None:
    watch = looked(list_of(1, 2), list_of(2))
    first_ns = clock.now_ns()
    watch.look(list_of(2))

    (ended,) = watch.closed().attempts
    assert ended["cookie"] == 1
    assert ended["opened_ns"] < ended["closed_ns"] <= first_ns
    assert watch.open()["cookie"].tolist() == [2]


def test_a_socket_that_connects_again_between_two_looks_is_two_connections(ports: tuple[int, int]) -> None:
    with contextlib.ExitStack() as opened:
        first, second = (opened.enter_context(socket.create_server(("127.0.0.1", port))) for port in ports)
        client = opened.enter_context(socket.socket())
        with netlab.capture(mode="poll", poll_every_s=60, port=ports, direction="outgoing") as capture:
            watch = capture._watch
            assert isinstance(watch, Poll)
            client.connect(first.getsockname())
            client.sendall(bytes(1000))
            watch.look(watch._listed())
            between = pd.Timestamp.now("UTC")
            disconnect(client)
            client.connect(second.getsockname())
            client.sendall(bytes(5))
            watch.look(watch._listed())
            watch.look(watch._listed())
            frame = capture.connections()

    assert frame["remote_port"].tolist() == list(ports)
    assert frame["state"].tolist() == ["closed", "established"]
    assert frame["bytes_sent"].tolist() == [1000, 5]
    assert (frame["opened_at"] < between).tolist() == [True, False]
    assert frame["closed_at"].iloc[0] >= between


def test_what_opened_in_a_pause_is_forgotten_when_it_ends() -> None:
    watch = looked()
    watch._paused = True
    for number in range(1, 9):
        watch.look(list_of(number))

    assert len(watch._skipped) <= 2
    assert [gap.count for gap in watch.losses() if "paused" in gap.detail] == [8]


def test_connections_too_short_for_a_look_are_counted_as_missed(echo: Echo) -> None:
    with netlab.capture(mode="poll", poll_every_s=60, port=echo.port) as capture:
        for _ in range(25):
            echo.talk(4, 1)

    frame = capture.connections()
    gaps = netlab.coverage(frame)
    missed = gaps[(gaps["what"] == "connections") & (gaps["kind"] == "unseen")]
    assert len(frame) == 0
    assert missed["count"].sum() >= 50


@pytest.mark.privileged
def test_udp_sockets_make_up_for_no_connection_that_was_missed(echo: Echo) -> None:
    talks = 5
    with netlab.capture(mode="poll", poll_every_s=60) as capture, contextlib.ExitStack() as opened:
        for _ in range(20 * talks):
            flow = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            flow.connect(("127.0.0.1", echo.port))
        for _ in range(talks):
            echo.talk(4, 1)
        capture.stop()

    gaps = netlab.coverage(capture.connections())
    assert gaps.loc[gaps["detail"].str.contains("too short"), "count"].sum() >= 2 * talks


def test_who_asks_for_udp_alone_is_told_of_no_missed_tcp_connection(echo: Echo) -> None:
    with netlab.capture(mode="poll", poll_every_s=60, protocol="udp") as capture:
        echo.talk(4, 1)

    assert not netlab.coverage(capture.connections())["detail"].str.contains("too short").any()


def test_deltas_work_without_ebpf(echo: Echo) -> None:
    sent = []
    with (
        netlab.capture(mode="poll", poll_every_s=EVERY_S, port=echo.port) as capture,
        echo.connect(4) as client,
    ):
        capture.register("me")

        def has_changed() -> bool:
            sent.append(int(ends(capture.delta("me"), "outgoing")["delta_bytes_sent"].sum()))
            return sent[-1] > 0

        for size in (10, 100):
            client.sendall(bytes(size))
            client.recv(size, socket.MSG_WAITALL)
            wait_until(has_changed)

    assert sum(sent) == 110


def test_what_opens_in_a_pause_is_no_row_and_counted(echo: Echo) -> None:
    with netlab.capture(mode="poll", poll_every_s=EVERY_S, port=echo.port) as capture:
        capture.pause()
        with echo.connect(4):
            time.sleep(3 * EVERY_S)
            capture.resume()
            time.sleep(3 * EVERY_S)
            frame = capture.connections()

    gaps = netlab.coverage(frame)
    assert len(frame) == 0
    assert gaps[gaps["detail"].str.contains("paused")]["count"].sum() >= 2


def test_no_thread_is_left_behind(echo: Echo) -> None:
    with netlab.capture(mode="poll", poll_every_s=EVERY_S, port=echo.port):
        assert "netlab-poll" in {thread.name for thread in threading.enumerate()}

    assert "netlab-poll" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("option", ["events", "drops", "cost"])
def test_what_needs_ebpf_is_refused(option: str) -> None:
    with pytest.raises(netlab.BadInput, match=option):
        netlab.capture(mode="poll", **{option: True})  # type: ignore[arg-type]


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(netlab.BadInput, match="Did you mean 'poll'"):
        netlab.capture(mode="pol")


@pytest.mark.privileged
def test_polling_needs_no_privilege() -> None:
    script = textwrap.dedent("""
        import netlab, socket, time
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            with netlab.capture(mode="poll", poll_every_s=0.05, port=port) as capture:
                with socket.create_connection(("127.0.0.1", port)):
                    time.sleep(0.5)
                    print(len(capture.connections()))
    """)
    drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]

    run = subprocess.run(
        [*drop, sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )

    assert run.stdout == "2\n"
