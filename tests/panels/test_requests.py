"""`LiveRequests` on real requests of a practice network, in an event loop as a notebook's kernel has one."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest
from loops import run, until

import netlab
from netlab.errors import BadInput
from netlab.lab.network import PracticeNetwork
from netlab.panels import LiveRequests
from netlab.panels.live import State

HOSTILE = "/<script>/\N{RIGHT-TO-LEFT OVERRIDE}"


@pytest.fixture(scope="module")
def net() -> Iterator[PracticeNetwork]:
    with netlab.lab.practice() as network:
        yield network


def asked(net: PracticeNetwork, *paths: str) -> None:
    for path in paths:
        with (
            net.client.entered(),
            socket.create_connection((net.web.address4, net.ports.http), timeout=30) as client,
        ):
            request = f"GET {path} HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n"
            client.sendall(request.encode())
            while client.recv(65536):
                pass


def rows_of(panel: LiveRequests) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = panel.table.view["rows"]
    return rows


@pytest.mark.privileged
def test_failed_requests_come_first_and_hostile_paths_are_masked(net: PracticeNetwork) -> None:
    async def work() -> None:
        panel = LiveRequests(protocols=("http",), netns=net.client.netns).start()
        asked(net, "/status/503", "/bytes/5000", HOSTILE)
        await until(lambda: panel.table.view["total"] == 3)
        first, *others = rows_of(panel)
        assert first["bad"]
        assert first["cells"][:3] == ["503 Service Unavailable", "GET", "/status/*"]
        assert not any(row["bad"] for row in others)
        assert {row["cells"][2] for row in others} == {"/bytes/*", "/*/*"}
        assert ">failed" in panel._head.value
        panel.close()

    run(work())


@pytest.mark.privileged
def test_a_capture_that_runs_is_followed_and_goes_on_after_the_panel(net: PracticeNetwork) -> None:
    async def work() -> None:
        with netlab.capture(protocols=("http",), netns=net.client.netns) as capture:
            panel = LiveRequests(capture).start()
            asked(net, "/status/200")
            await until(lambda: panel.table.view["total"] == 1)
            panel.stop()
            assert (panel.state, capture.state) == (State.STOPPED, "running")
            panel.close()
        assert isinstance(capture.requests(), pd.DataFrame)

    run(work())


def test_options_and_a_source_do_not_go_together() -> None:
    with pytest.raises(BadInput, match="'port' comes with a source"):
        LiveRequests(object(), port=80)  # type: ignore[arg-type]


def test_what_has_no_requests_is_refused() -> None:
    with pytest.raises(BadInput, match="cannot follow object"):
        LiveRequests(object())  # type: ignore[arg-type]
