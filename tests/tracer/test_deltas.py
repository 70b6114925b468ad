"""Capture.delta() against what real sockets sent."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest
from loopback import Echo, cookie, finish

import netlab

pytestmark = pytest.mark.privileged


def total(frames: list[pd.DataFrame], column: str) -> int:
    return int(sum(frame[column].sum() for frame in frames))


def test_deltas_add_up_to_what_was_sent_and_each_close_is_told_once(echo: Echo) -> None:
    with netlab.capture(port=echo.port) as capture:
        capture.register("one")
        frames = []
        with echo.connect(4) as long:
            for size in (10, 200, 3000):
                long.sendall(bytes(size))
                echo.talk(6, size)
                frames.append(capture.delta("one"))
            finish(long)
        frames.append(capture.delta("one"))

    frames.append(capture.delta("one"))
    outgoing = [frame[frame["direction"] == "outgoing"] for frame in frames]
    closed = [frame[frame["closed_at"].notna()] for frame in outgoing]
    assert total(outgoing, "delta_bytes_sent") == 2 * 3210
    assert sum(map(len, closed)) == 4
    assert total(outgoing, "new") == 4
    assert len(capture.delta("one")) == 0


def test_an_attempt_that_never_left_is_told_once_though_its_socket_stays() -> None:
    with netlab.lab.practice() as net:
        net.client.run(["ip", "route", "add", "unreachable", "203.0.113.0/24"], check=True)
        with net.client.entered():
            client = socket.socket()
        with netlab.capture(remote="203.0.113.0/24") as capture, client:
            capture.register("one")
            with pytest.raises(OSError, match="No route"):
                client.connect(("203.0.113.1", 80))
            frames = [capture.delta("one")]
            client.close()
            frames.append(capture.delta("one"))

    assert [frame["error"].tolist() for frame in frames] == [["EHOSTUNREACH"], []]


def test_a_delta_that_was_interrupted_is_told_by_the_next_one(
    echo: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with netlab.capture(port=echo.port) as capture:
        capture.register("one")
        echo.talk(4, 10)
        with monkeypatch.context() as patch:
            patch.setattr("netlab.tracer.deltas.frame", interrupted)
            with pytest.raises(KeyboardInterrupt):
                capture.delta("one")

        assert total([capture.delta("one")], "delta_bytes_sent") == 20


def test_an_answer_that_got_lost_is_told_again_with_what_came_since(echo: Echo) -> None:
    with netlab.capture(port=echo.port) as capture:
        capture.register("one")
        with pytest.raises(netlab.CaptureError, match="no answer that could be given again"):
            capture.delta("one", again=True)
        echo.talk(4, 20)
        lost = capture.delta("one")
        echo.talk(4, 10)
        frames = [capture.delta("one", again=True), capture.delta("one")]

    assert total([lost[lost["direction"] == "outgoing"]], "delta_bytes_sent") == 20
    assert [total([told[told["direction"] == "outgoing"]], "delta_bytes_sent") for told in frames] == [30, 0]


def test_each_client_gets_what_changed_since_its_own_last_call(echo: Echo) -> None:
    with netlab.capture(port=echo.port) as capture:
        capture.register("often")
        capture.register("seldom")
        often = []
        for size in (1, 20, 300):
            echo.talk(4, size)
            often.append(capture.delta("often"))
        echo.talk(4, 4000)

    seldom = [capture.delta("seldom")]
    often.append(capture.delta("often"))
    for frames in (often, seldom):
        mine = [frame[frame["direction"] == "outgoing"] for frame in frames]
        assert total(mine, "delta_bytes_sent") == 4321
        assert total(mine, "new") == 4


def test_an_older_connection_counts_from_registration(echo: Echo) -> None:
    with echo.connect(4) as old:
        old.sendall(bytes(1000))
        with netlab.capture(port=echo.port) as capture:
            capture.register("me")
            old.sendall(bytes(50))
            finish(old)
            old.close()
            told = capture.delta("me")

    mine = told[told["direction"] == "outgoing"]
    assert mine["delta_bytes_sent"].tolist() == [50]
    assert mine["bytes_sent"].tolist() == [1050]
    assert mine["new"].tolist() == [False]


def test_an_older_connection_is_told_as_closed_once_and_never_again_as_open(echo: Echo) -> None:
    with echo.connect(4) as old, netlab.capture(port=echo.port) as capture:
        capture.register("me")
        number = cookie(old)
        finish(old)
        old.close()
        told = capture.delta("me")
        again = capture.delta("me")

    assert told.loc[told["cookie"] == number, "state"].tolist() == ["closed"]
    assert number not in again["cookie"].tolist()


def test_closed_attempts_dropped_before_a_client_saw_them_are_counted_for_it(echo: Echo) -> None:
    with netlab.capture(port=echo.port, max_closed=10) as capture:
        capture.register("late")
        for _ in range(20):
            echo.talk(4, 1)

    told = capture.delta("late")
    gaps = netlab.coverage(told)
    for_me = gaps[gaps["detail"].str.contains("before this client")]
    assert len(told) + for_me["count"].sum() == 40
    assert capture.debug_state("late")["closed_dropped"] == for_me["count"].item()


def test_clients_that_ask_at_the_same_time_are_each_told_everything_once(echo: Echo) -> None:
    def ask(name: str) -> list[pd.DataFrame]:
        return [capture.delta(name) for _ in range(6)]

    names = ["one", "two", "three"]
    with netlab.capture(port=echo.port) as capture, ThreadPoolExecutor() as threads:
        for name in names:
            capture.register(name)
        asked = [threads.submit(ask, name) for name in names]
        for size in range(1, 41):
            echo.talk(4, size)
        told = [answers.result() for answers in asked]

    for name, frames in zip(names, told, strict=True):
        whole = [*frames, capture.delta(name)]
        mine = [frame[frame["direction"] == "outgoing"] for frame in whole]
        assert total(mine, "delta_bytes_sent") == sum(range(1, 41))
        assert sum(frame["closed_at"].notna().sum() for frame in mine) == total(mine, "new") == 40


def test_a_delta_without_registration_is_refused(echo: Echo) -> None:
    with netlab.capture(port=echo.port) as capture, pytest.raises(netlab.CaptureError, match="register"):
        capture.delta("nobody")
