"""Panels over recordings: without privileges they show what they showed live."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pandas as pd
import pytest

import netlab
from netlab import bundle
from netlab.errors import BadInput, CaptureError
from netlab.panels import LiveConnections, LiveConntrack, LiveDNS, LivePath, LiveRequests
from netlab.panels.live import State
from netlab.schemas import CONNECTIONS, DNS, HOPS, NAT, REQUESTS

HOSTILE = "<script>\N{RIGHT-TO-LEFT OVERRIDE}gpj.example"
T0 = pd.Timestamp("2026-03-01T12:00:00Z")


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 120))


async def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, "it never came true"
        await asyncio.sleep(0.05)


def recording(frame: pd.DataFrame, seconds: float) -> bundle.Bundle:
    end = (T0 + pd.Timedelta(seconds=seconds)).to_pydatetime()
    origin = bundle.Metadata(end, "db1", "6.1", "0.1.0", "")
    return bundle.Bundle({"frame": bundle.Item(frame, (origin,))})


def connections() -> bundle.Bundle:
    times = [T0, T0 + pd.Timedelta(seconds=1)]
    frame = CONNECTIONS.frame(
        {"process": ["curl", "wget"], "opened_at": times, "closed_at": times, "error": [None, "ECONNREFUSED"]}
    )
    return recording(frame, seconds=2)


def test_connections_appear_as_the_recording_goes_on_and_the_panel_ends_with_it() -> None:
    async def work() -> None:
        past = netlab.replay(connections(), speed=4)
        panel = LiveConnections(past).start()
        assert panel.feed is past
        await until(lambda: panel.state is State.STOPPED)
        panel.raise_if_failed()
        assert past.now() == past.end
        assert panel._read(past)["error"].notna().tolist() == [False, True]
        assert "failed 1/s" in panel._head.value
        panel.close()

    run(work())


def test_pausing_the_panel_pauses_the_recording() -> None:
    async def work() -> None:
        past = netlab.replay(connections())
        panel = LiveConnections(past).start()
        panel.pause()
        assert (panel.state, past.state) == (State.PAUSED, "paused")
        panel.resume()
        assert past.running
        panel.stop()
        assert past.state == "stopped"
        panel.close()

    run(work())


def path() -> bundle.Bundle:
    runs = range(3)
    hops = HOPS.frame(
        {
            "trace": ["t"] * 6,
            "target": ["db.example"] * 6,
            "target_address": ["192.0.2.9"] * 6,
            "run": [run for run in runs for _ in range(2)],
            "flow": [0] * 6,
            "ttl": [1, 2] * 3,
            "attempt": [0] * 6,
            "address": ["192.0.2.1", "192.0.2.9"] * 3,
            "rtt_ms": [1.0, 2.0] * 3,
            "reply": ["time-exceeded", "port-unreachable"] * 3,
            "reached": [False, True] * 3,
            "sent_at": [T0 + pd.Timedelta(seconds=run) for run in runs for _ in range(2)],
            "protocol": ["udp"] * 6,
            "family": [4] * 6,
        }
    )
    return recording(hops, seconds=3)


def test_a_path_is_shown_from_a_recording() -> None:
    async def work() -> None:
        panel = LivePath(netlab.replay(path(), speed=5)).start()
        await until(lambda: panel.state is State.STOPPED)
        panel.raise_if_failed()
        assert "<td>192.0.2.9</td>" in panel._hops.value
        assert "3 rounds · 1 path ·" in panel._courses.value
        assert "<svg" in panel._picture.value
        panel.close()

    run(work())


def test_options_beside_a_recording_are_refused() -> None:
    with pytest.raises(BadInput, match="port"):
        LivePath(netlab.replay(path()), port=443)


def seconds(*offsets: float) -> list[pd.Timestamp]:
    return [T0 + pd.Timedelta(seconds=offset) for offset in offsets]


def test_requests_are_shown_from_a_recording_once_they_are_over() -> None:
    frame = REQUESTS.frame(
        {
            "protocol": ["http"] * 2,
            "operation": ["GET"] * 2,
            "resource": ["/a", "/b"],
            "status": ["200", "503"],
            "error": [None, "Service Unavailable"],
            "outcome": ["answered"] * 2,
            "requested_at": seconds(0, 0),
            "duration_ms": [100.0, 1500.0],
        }
    )

    async def work() -> None:
        past = netlab.replay(recording(frame, seconds=2), speed=4)
        past.seek(1.0)
        assert past.requests("http")["resource"].tolist() == ["/a"]
        panel = LiveRequests(past).start()
        await until(lambda: panel.state is State.STOPPED)
        panel.raise_if_failed()
        assert [row["cells"][2] for row in panel.table.view["rows"]] == ["/b", "/a"]
        panel.close()

    run(work())


def test_lookups_are_shown_from_a_recording() -> None:
    frame = DNS.frame(
        {
            "name": ["shop.example", HOSTILE],
            "type": ["A"] * 2,
            "rcode": ["NOERROR", "timeout"],
            "asked_at": seconds(0, 1),
            "latency_ms": [20.0, None],
        }
    )

    async def work() -> None:
        panel = LiveDNS(netlab.replay(recording(frame, seconds=2), speed=8)).start()
        await until(lambda: panel.state is State.STOPPED)
        panel.raise_if_failed()
        cells = [row["cells"][1] for row in panel.table.view["rows"]]
        assert cells == [r"<script>\u202egpj.example", "shop.example"]
        panel.close()

    run(work())


def test_translations_are_shown_from_a_recording() -> None:
    frame = NAT.frame({"protocol": ["tcp"], "src": ["10.0.0.2"], "kind": ["snat"], "timeout_s": [60]})

    async def work() -> None:
        panel = LiveConntrack(netlab.replay(recording(frame, seconds=1), speed=4)).start()
        await until(lambda: panel.state is State.STOPPED)
        panel.raise_if_failed()
        assert panel.table.view["total"] == 1
        panel.close()
        without = LiveConntrack(netlab.replay(recording(frame, seconds=1)), translated=False)
        with pytest.raises(CaptureError, match="has no conntrack"):
            without.start()
        without.close()

    run(work())


def test_a_namespace_beside_a_recording_of_translations_is_refused() -> None:
    with pytest.raises(BadInput, match="'netns' comes with a recording"):
        LiveConntrack(netlab.replay(connections()), netns="all")
