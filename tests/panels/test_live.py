"""Panels in an event loop, as a notebook's kernel has one: started, paused, stopped, failed, closed."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ipywidgets
import pandas as pd
import pytest
from loops import run, until
from programs import held_by

import netlab
from netlab.errors import BadInput, CaptureError
from netlab.lab.network import PracticeNetwork
from netlab.panels import LiveConnections, LiveConntrack, LivePath, rates
from netlab.panels.live import State


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Return a port that is bound and refuses connections, so that nobody else's are made to it."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


def refused(port: int) -> None:
    with socket.socket() as sock:
        assert sock.connect_ex(("127.0.0.1", port))


@pytest.mark.privileged
def test_a_refused_connection_comes_first_and_is_counted(port: int) -> None:
    async def work() -> None:
        panel = LiveConnections(port=port).start()
        refused(port)
        await until(lambda: panel.table.view["total"])
        (row, *_) = panel.table.view["rows"]
        assert row["bad"]
        assert row["cells"][0] == "ECONNREFUSED"
        assert ">failed" in panel._head.value
        panel.close()

    run(work())


@pytest.mark.privileged
def test_a_capture_with_a_duration_ends_the_panel_with_all_rows(port: int) -> None:
    async def work() -> None:
        panel = LiveConnections(duration_s=0.5, port=port).start()
        refused(port)
        await until(lambda: panel.state is State.STOPPED)
        assert panel.table.view["total"] == 1
        panel.close()

    run(work())


@pytest.mark.privileged
def test_stop_keeps_what_was_seen_and_start_begins_anew(port: int) -> None:
    async def work() -> None:
        panel = LiveConnections(port=port).start()
        refused(port)
        panel.stop()
        assert (panel.state, panel.table.view["total"]) == (State.STOPPED, 1)
        panel.start()
        await until(lambda: panel.table.view["total"] == 0)
        panel.close()

    run(work())


@pytest.mark.privileged
def test_the_buttons_do_what_the_methods_do(port: int) -> None:
    async def work() -> None:
        panel = LiveConnections(port=port)
        panel._start.click()
        await until(lambda: panel.state is State.RUNNING)
        panel._pause.click()
        await until(lambda: panel.state is State.PAUSED)
        refused(port)
        panel._pause.click()
        await until(lambda: panel.state is State.RUNNING)
        refused(port)
        panel._stop.click()
        await until(lambda: panel.state is State.STOPPED)
        assert panel.table.view["total"] == 1
        assert "paused" in panel._foot.value
        panel.close()

    run(work())


@pytest.mark.privileged
def test_a_running_capture_can_be_followed_and_goes_on_after_the_panel(port: int) -> None:
    async def work() -> None:
        with netlab.capture(port=port) as cap:
            panel = LiveConnections(cap).start()
            refused(port)
            await until(lambda: panel.table.view["total"])
            panel.close()
            assert cap.state == "running"

    run(work())


@pytest.mark.privileged
def test_what_goes_wrong_in_the_background_is_shown_and_can_be_raised() -> None:
    async def work() -> None:
        panel = LiveConnections().start()
        panel._read = lambda _: 1 / 0  # type: ignore[method-assign]
        await until(lambda: panel.state is State.FAILED)
        assert "ZeroDivisionError" in panel._fault.value
        with pytest.raises(ZeroDivisionError):
            panel.raise_if_failed()
        assert panel.feed is not None
        assert panel.feed.state == "stopped"
        panel.close()

    run(work())


def test_a_start_that_fails_is_shown_and_raised() -> None:
    async def work() -> None:
        panel = LiveConntrack(netns="no such namespace")
        with pytest.raises(BadInput, match="no such namespace"):
            panel.start()
        assert panel.state is State.FAILED
        assert "no such namespace" in panel._fault.value
        panel.close()

    run(work())


def test_a_start_by_button_that_fails_is_shown() -> None:
    async def work() -> None:
        panel = LiveConntrack(netns="no such namespace")
        panel._start.click()
        await until(lambda: panel.state is State.FAILED)
        assert "no such namespace" in panel._fault.value
        panel.close()

    run(work())


@pytest.mark.parametrize("options", [{"prot": 80}, {"port": "http"}, {"duration_s": -1}])
def test_bad_options_are_refused_when_the_panel_is_made(options: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        LiveConnections(**options)


def test_without_a_loop_there_is_no_panel_to_start() -> None:
    panel = LiveConntrack()

    with pytest.raises(CaptureError, match="event loop"):
        panel.start()

    panel.close()


def test_a_closed_panel_says_so() -> None:
    panel = LiveConntrack()
    panel.close()
    panel.close()

    with pytest.raises(CaptureError, match="closed"):
        panel.start()


@pytest.mark.privileged
def test_translations_and_the_gauge_of_a_namespace_are_shown() -> None:
    async def work(net: PracticeNetwork) -> None:
        with net.client.entered():
            sock = socket.create_connection((net.web.address4, net.ports.http))
        panel = LiveConntrack(netns=net.gateway.netns).start()
        await until(lambda: panel.table.view["total"])
        with sock:
            assert "masquerade" in panel.table.view["rows"][0]["cells"]
        assert f"namespace {net.gateway.inode}" in panel._head.value
        assert " entries (" in panel._head.value
        panel.close()

    with netlab.lab.practice() as net:
        run(work(net))


@pytest.mark.privileged
def test_tracked_connections_are_marked_only_where_there_was_no_answer() -> None:
    async def work(net: PracticeNetwork) -> None:
        with net.client.entered():
            answered = socket.create_connection((net.web.address4, net.ports.http))
            ignored = socket.socket()
        ignored.setblocking(False)
        ignored.connect_ex((net.web.address4, net.ports.drops))
        panel = LiveConntrack(netns=net.gateway.netns).start()
        await until(lambda: panel.table.view["total"])
        states = {row["cells"][2]: (row["cells"][6], row["bad"]) for row in panel.table.view["rows"]}
        ours = ["{}:{}".format(*sock.getsockname()) for sock in (answered, ignored)]
        assert [states[end] for end in ours] == [("ESTABLISHED", False), ("SYN_SENT, no answer", True)]
        panel.close()
        answered.close()
        ignored.close()

    with netlab.lab.practice() as net:
        run(work(net))


def left() -> dict[str, int]:
    gc.collect()
    return {
        "threads": threading.active_count(),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "programs": len(held_by(os.getpid())),
        "tasks": len(asyncio.all_tasks()),
        "widgets": len(ipywidgets.widget._instances),
    }


@pytest.mark.privileged
@pytest.mark.parametrize(
    "make",
    [
        LiveConntrack,
        lambda: LivePath("127.0.0.1"),
        lambda: LiveConnections(mode="poll", poll_every_s=0.05),
        LiveConnections,
    ],
    ids=["conntrack", "path", "connections polled", "connections"],
)
def test_panels_leave_nothing_behind(make: Callable[[], Any]) -> None:
    async def work() -> None:
        async def once() -> None:
            panel = make().start()
            await asyncio.sleep(0.02)
            panel.stop()
            panel.close()

        await once()
        await asyncio.sleep(0.5)  # threads and tasks that were told to end, do
        before = left()
        for _ in range(10):  # `python -m bench panels` does 50
            await once()
        await until(lambda: all(now <= before[what] for what, now in left().items()))

    run(work())


@pytest.mark.privileged
def test_a_panel_whose_feed_does_not_stop_in_order_is_closed_all_the_same() -> None:
    async def work() -> None:
        panel = LiveConnections(backfill=False).start()
        await until(lambda: panel.state is State.RUNNING)
        name, limits = panel.model_id, resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (1, limits[1]))
        try:
            with pytest.raises((netlab.NetlabError, OSError)):
                panel.close()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)

        assert name not in ipywidgets.widget._instances
        assert panel._worker._shutdown
        panel.close()

    run(work())


@pytest.mark.privileged
def test_a_conntrack_panel_with_a_duration_ends_by_itself() -> None:
    async def work() -> None:
        panel = LiveConntrack(duration_s=0.3).start()
        await until(lambda: panel.state is State.STOPPED)
        assert "0:00 of 0:00" in panel._age.value
        panel.close()

    run(work())


@pytest.mark.privileged
def test_a_panel_is_shown_anew_at_most_four_times_a_second() -> None:
    async def work() -> None:
        shown: list[float] = []
        panel = LiveConnections(mode="poll", poll_every_s=0.05)
        panel._show = lambda _: shown.append(time.monotonic())  # type: ignore[method-assign]
        panel.start()
        await until(lambda: len(shown) > 6)
        panel.close()
        assert min(later - earlier for earlier, later in itertools.pairwise(shown)) >= 0.25

    run(work())


def test_rates_are_counted_by_second() -> None:
    now = pd.Timestamp("2026-01-01T00:01:00Z")
    times = pd.Series([now - pd.Timedelta(seconds=age) for age in (0.5, 1.5, 1.6, 59.9, 60.1, -3)])

    counts = rates.per_second(times, now)

    assert (counts[-1], counts[-2], counts[0], counts.sum()) == (1, 2, 1, 4)
