"""Attempts whose end nobody saw: they do not stay open, and their place in the kernel's map is given back."""

from __future__ import annotations

import socket
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from attempts import attempts
from loopback import Echo, cookie, finish

import netlab
from netlab.tracer import system
from netlab.tracer.closed import Ended
from netlab.tracer.expiry import Absent
from netlab.tracer.filters import Filter
from netlab.tracer.look import Clock, Look
from netlab.tracer.owners import Processes
from netlab.tracer.records import end_unseen
from netlab.tracer.session import Capture
from netlab.tracer.snapshot import Snapshot
from netlab.tracer.translated import NatTable

SECOND = 10**9


def test_an_attempt_that_stays_away_for_a_second_has_ended_unseen() -> None:
    absent, one = Absent(), attempts({"socket": 1, "opened_ns": 5})

    assert len(absent.gone(one, 10 * SECOND)) == 0
    assert len(absent.gone(one, 11 * SECOND)) == 0
    over = absent.gone(one, 11 * SECOND + 1)
    assert over["closed_ns"].tolist() == [11 * SECOND + 1]
    assert end_unseen(over).tolist() == [True]


def test_an_attempt_that_was_listed_in_between_has_not_ended() -> None:
    absent, one = Absent(), attempts({"socket": 1, "opened_ns": 5})

    absent.gone(one, 10 * SECOND)
    absent.gone(attempts(), 11 * SECOND)
    assert len(absent.gone(one, 12 * SECOND)) == 0


def test_another_attempt_of_the_same_socket_is_another() -> None:
    absent = Absent()

    absent.gone(attempts({"socket": 1, "opened_ns": 5}), 10 * SECOND)
    assert len(absent.gone(attempts({"socket": 1, "opened_ns": 6}), 12 * SECOND)) == 0


def test_of_several_only_those_that_stay_away_have_ended() -> None:
    absent = Absent()
    old, new, listed = ({"cookie": 9}, {"socket": 2, "opened_ns": 7}, {"socket": 3, "opened_ns": 8})

    absent.gone(attempts(listed, old), 10 * SECOND)
    over = absent.gone(attempts(new, old), 12 * SECOND)

    assert over["cookie"].tolist() == [9]


def test_only_a_socket_that_a_complete_list_should_have_is_missed() -> None:
    tcp = {"protocol": socket.IPPROTO_TCP, "opened_ns": 5}
    opened = attempts(
        tcp | {"socket": 1, "cookie": 1, "netns": 1},
        tcp | {"socket": 2, "cookie": 2, "netns": 2},  # whose list is not complete
        tcp | {"socket": 3, "cookie": 3, "netns": 1},  # opened by both ends at once
        tcp | {"socket": 4, "cookie": 0, "netns": 1},
        tcp | {"socket": 5, "cookie": 5, "netns": 1, "unsent": 1},
    )
    listed = replace(Snapshot.empty(), complete=frozenset({1}), half_open=np.array([3], np.uint64))
    none = Ended(attempts(), np.empty(0, np.int64), 0)

    look = Look.of(
        none,
        opened,
        Snapshot.empty(),
        listed,
        wanted=Filter(),
        system=system.here(),
        at=Clock(0, 0),
        over=np.empty(0, np.uint64),
        losses=[],
        processes=Processes.none(),
        nat=NatTable.nothing(),
    )

    assert look.unlisted()["socket"].tolist() == [1]


def blinded(capture: Capture) -> None:
    """Detach the programs behind the capture's back: what ends from now on, they do not see."""
    assert capture._watch is not None
    capture._watch.program.detach()  # type: ignore[union-attr]


def looked_at_until_closed(capture: Capture, client: socket.socket) -> pd.DataFrame:
    """Close *client* where its cookie is not seen again, and look until its row has ended."""
    number = cookie(client)
    finish(client)
    client.close()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        rows = capture.connections()
        row = rows[rows["cookie"] == number]
        if row["state"].eq("closed").all():
            return row
        time.sleep(0.1)
    raise AssertionError(f"still {row['state'].tolist()}")


@pytest.mark.privileged
def test_an_end_that_the_programs_did_not_see_becomes_a_row_and_leaves_the_map(echo: Echo) -> None:
    with netlab.capture(port=echo.port) as capture:
        capture.register("me")
        lost, kept = echo.connect(4), echo.connect(4)
        with kept:
            lost.sendall(bytes(100))
            first = capture.delta("me")
            number = cookie(lost)
            blinded(capture)
            row = looked_at_until_closed(capture, lost)
            told = capture.delta("me")
            followed = capture.debug_maps()["netlab_open"]["cookie"].tolist()

            assert row[["closed_at", "bytes_sent"]].isna().all(axis=None)
            assert first.loc[first["cookie"] == number, "delta_bytes_sent"].tolist() == [100]
            assert told.loc[told["cookie"] == number, "delta_bytes_sent"].isna().all()
            assert number not in capture.delta("me")["cookie"].tolist()
            assert number not in followed
            assert cookie(kept) in followed
            gaps = netlab.coverage(capture.connections())
            assert gaps.loc[gaps["what"] == "closed_at, error, counters", "count"].tolist() == [2]


@pytest.mark.privileged
def test_a_connection_from_before_whose_end_was_not_seen_becomes_a_row_too(echo: Echo) -> None:
    old = echo.connect(4)
    with netlab.capture(port=echo.port) as capture:
        blinded(capture)
        row = looked_at_until_closed(capture, old)

    assert row["seen"].tolist() == ["backfill"]
    assert row["closed_at"].isna().all()


@pytest.mark.privileged
def test_a_connection_from_before_whose_end_was_not_seen_is_told_as_closed_once(echo: Echo) -> None:
    old = echo.connect(4)
    number = cookie(old)
    with netlab.capture(port=echo.port) as capture:
        capture.register("me")
        blinded(capture)
        looked_at_until_closed(capture, old)
        told = []
        for _ in range(4):
            told.append(capture.delta("me"))
            time.sleep(0.6)

    states = [frame.loc[frame["cookie"] == number, "state"].tolist() for frame in told]
    assert states == [["closed"], [], [], []]


@pytest.mark.privileged
def test_an_attempt_that_did_not_fit_into_the_map_expires_like_the_others(echo: Echo) -> None:
    with netlab.capture(port=echo.port, max_open=1) as capture:
        ends = [echo.connect(4) for _ in range(3)]
        blinded(capture)
        for end in ends:
            assert len(looked_at_until_closed(capture, end)) == 1

        for _ in range(3):  # and the other ends
            time.sleep(0.5)
            rows = capture.connections()

        assert set(rows["state"]) == {"closed"}
        assert len(capture.debug_maps()["netlab_open"]) == 0


@pytest.mark.privileged
def test_an_idle_connection_does_not_expire(echo: Echo) -> None:
    with netlab.capture(port=echo.port) as capture, echo.connect(4) as idle:
        for _ in range(4):
            time.sleep(0.5)
            rows = capture.connections()
            assert rows.loc[rows["cookie"] == cookie(idle), "state"].tolist() == ["established"]
