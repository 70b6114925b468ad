"""A connection that is clicked: its way, where its path leads, and the path inside the panel."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import ipywidgets
import pandas as pd
import pytest
from loops import run, until

import netlab
from netlab.errors import BadInput
from netlab.kernel import netns
from netlab.lab.network import PracticeNetwork
from netlab.panels import LiveConnections
from netlab.panels.inquiry import Inquiry, destination
from netlab.panels.live import State
from netlab.schemas import CONNECTIONS

ENDS: dict[str, Any] = {"protocol": "tcp", "netns": 1, "remote_address": "192.0.2.1", "remote_port": 443}
TRANSLATED = {"nat_remote_address": "2001:db8::1", "nat_remote_port": 8443}


def row_of(**values: Any) -> pd.Series[Any]:
    return CONNECTIONS.frame({name: [value] for name, value in values.items()}).iloc[0]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (ENDS, "192.0.2.1:443 (tcp)"),
        (ENDS | TRANSLATED, "[2001:db8::1]:8443 (tcp)"),
        (ENDS | {"nat_local_address": "198.51.100.1"}, "192.0.2.1:443 (tcp)"),
        (ENDS | {"remote_address": None}, "None"),
        (ENDS | {"netns": None}, "None"),
    ],
    ids=["as it is", "translated", "its source is translated", "no peer", "no namespace"],
)
def test_the_path_to_trace_ends_behind_the_translation(values: dict[str, Any], told: str) -> None:
    assert str(destination(row_of(**values))) == told


def test_without_a_peer_there_is_no_button_and_no_path() -> None:
    inquiry = Inquiry()
    inquiry.ask(row_of(protocol="tcp", netns=1))

    assert inquiry._trace.layout.display == "none"
    with pytest.raises(BadInput, match="no path to trace"):
        inquiry.trace_path()


def test_a_namespace_that_is_gone_is_said_where_the_path_was_asked_for() -> None:
    inquiry = Inquiry()
    inquiry.ask(row_of(**ENDS))
    inquiry._trace.click()

    assert "network namespace 1 has no process" in inquiry._fault.value
    assert inquiry.path is None


def test_a_path_without_a_way_is_an_error_in_the_panel() -> None:
    inquiry = Inquiry()
    inquiry.ask(row_of(**ENDS | {"netns": netns.inode(), "remote_address": "fe80::1"}))
    inquiry._trace.click()

    assert "netlab-error" in inquiry._fault.value
    assert inquiry.path is None


async def clicked(panel: LiveConnections) -> None:
    """Click the first row, as the browser does."""
    await until(lambda: panel.table.view["rows"])
    panel.table.asked = {**panel.table.asked, "selected": panel.table.view["rows"][0]["key"]}
    await until(lambda: panel.inquiry.way.value)


@pytest.mark.privileged
def test_a_click_tells_the_way_and_the_path_behind_the_translation_is_traced_and_closed() -> None:
    async def work(net: PracticeNetwork) -> None:
        panel = LiveConnections(netns=net.client.netns, nat=net.gateway.netns).start()
        with net.client.entered():
            sock = socket.create_connection((net.gateway.address4, net.ports.forwarded))
        with sock:
            await clicked(panel)
            assert net.client.netns in panel.inquiry.way.value  # explain() names the namespaces
            assert panel.inquiry._trace.description == f"Trace the path to {net.web.address4}:80 (tcp)"

            path = panel.trace_path()
            await until(lambda: net.web.address4 in path._hops.value)
            for address in net.path4("web"):
                assert address in path._hops.value
            panel.inquiry._close.click()
            assert path.feed is not None
            assert path.feed.state == "stopped"
            assert panel.inquiry.path is None
        panel.close()

    with netlab.lab.practice() as net:
        run(work(net))


@pytest.mark.privileged
def test_closing_the_panel_ends_the_path_inside() -> None:
    async def work() -> None:
        before = set(ipywidgets.widget._instances)
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            panel = LiveConnections(mode="poll", poll_every_s=0.1, port=port).start()
            with socket.create_connection(("127.0.0.1", port)):
                await clicked(panel)
                path = panel.trace_path()
                await until(lambda: path.state is State.RUNNING)
                panel.close()
        assert path.feed is not None
        assert path.feed.state == "stopped"
        assert set(ipywidgets.widget._instances) == before
        await until(lambda: not [one for one in threading.enumerate() if "netlab" in one.name])

    run(work())


@pytest.mark.privileged
def test_a_panel_closed_while_it_starts_leaves_no_capture_behind() -> None:
    async def work() -> None:
        panel = LiveConnections(port=9)
        panel.start_soon()
        await until(lambda: panel.state is State.STARTING)
        await asyncio.sleep(0)
        panel.close()
        await until(lambda: panel.feed is not None)
        assert panel.feed is not None
        await until(lambda: panel.feed.state == "stopped")

    run(work())
