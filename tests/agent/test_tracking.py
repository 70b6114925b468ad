"""Connection tracking through the agent: what is heard of it as it happens, and the panel that shows it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import UnixStreamServer

import pytest

import netlab
from netlab.agent.client import Host
from netlab.agent.holding import Holding
from netlab.agent.listeners import Listeners
from netlab.agent.problems import RefusedError
from netlab.errors import DecodeError
from netlab.lab.network import PracticeNetwork
from netlab.panels import LiveConntrack
from tests.support.programs import wait_until

pytestmark = pytest.mark.privileged


@pytest.fixture(scope="module")
def net() -> Iterator[PracticeNetwork]:
    """Yield a network whose gateway translates."""
    with netlab.lab.practice() as network:
        yield network


def refused(net: PracticeNetwork) -> int:
    """Have a connection refused behind the gateway; return its port."""
    with net.client.entered():
        client = socket.socket()
    with client, contextlib.suppress(ConnectionRefusedError):
        client.bind(("", 0))
        port = int(client.getsockname()[1])
        client.connect((net.web.address4, net.ports.refuses))
    return port


def test_what_the_agent_hears_is_what_is_heard_here(host: Host, net: PracticeNetwork) -> None:
    with (
        netlab.conntrack_events(netns=net.gateway.netns) as here,
        host.conntrack_events(netns=net.gateway.netns) as there,
    ):
        assert there.namespaces == here.namespaces == {net.gateway.inode}
        port = refused(net)

    told = there.entries()
    assert told.loc[told["sport"] == port, "reply_dst"].tolist() == [net.nat_address4]
    assert told["sport"].tolist() == here.entries()["sport"].tolist()
    assert told.attrs["coverage"] == here.entries().attrs["coverage"]
    assert there.events()["event"].tolist() == here.events()["event"].tolist()
    assert there.table().columns.tolist() == here.table().columns.tolist()


def test_what_did_not_fit_is_counted_afar_too(host: Host, net: PracticeNetwork) -> None:
    with host.conntrack_events(netns=net.gateway.netns, most_bytes=1) as events:
        refused(net)

    gaps = netlab.coverage(events.entries())
    assert gaps.loc[gaps["detail"].str.contains("most_bytes= says"), "count"].item() > 0


def test_a_listener_that_was_deleted_is_not_there(host: Host, net: PracticeNetwork) -> None:
    with host.conntrack_events(netns=net.gateway.netns) as events:
        place = events._place
        host.ask("DELETE", place)

        with pytest.raises(netlab.CaptureError, match="there is no listener"):
            events.entries()
        with pytest.raises(netlab.CaptureError, match="there is no capture"):
            host.ask("GET", f"/captures/{place.rpartition('/')[2]}")
        events._is_closed = True  # there is nothing left to stop


def test_listeners_that_nobody_asks_end_and_there_are_only_so_many(net: PracticeNetwork) -> None:
    with Holding(idle_s=1) as holding:
        listeners = Listeners(holding, most=1)
        held = listeners.create({"netns": net.gateway.netns})
        with pytest.raises(RefusedError, match="1 listeners run already"):
            listeners.create({"netns": net.gateway.netns})
        wait_until(lambda: holding.expired)

        assert held.is_closed
        assert holding.is_empty()


def test_how_full_the_table_is_comes_as_here(host: Host, net: PracticeNetwork) -> None:
    levels, missing = host.conntrack_fill(netns=net.gateway.netns)

    assert [level.netns for level in levels] == [net.gateway.inode]
    assert levels[0].most > 0
    assert missing == []


class Newer(BaseHTTPRequestHandler):
    """An agent whose coverage has a kind of gap that this netlab does not know."""

    def do_GET(self) -> None:
        gap = {"what": "levels", "kind": "of tomorrow", "count": 1, "detail": "", "cause": None}
        body = json.dumps({"levels": [], "coverage": [gap]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return ""

    def log_message(self, *_: object) -> None:
        pass


def test_a_gap_of_a_kind_that_only_a_newer_agent_knows_is_refused_by_its_name(tmp_path: Path) -> None:
    with UnixStreamServer(str(tmp_path / "agent.sock"), Newer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with netlab.connect(tmp_path / "agent.sock") as host, pytest.raises(DecodeError, match="of tomorrow"):
            host.conntrack_fill()
        server.shutdown()
        thread.join()


def test_a_packet_is_translated_as_here(host: Host, net: PracticeNetwork) -> None:
    with net.client.entered():
        client = socket.create_connection((net.web.address4, net.ports.http))
    with client:
        tuple_ = ("tcp", *client.getsockname(), *client.getpeername())
        found = host.translate(*tuple_, netns=net.gateway.netns)
        known = netlab.translate(*tuple_, netns=net.gateway.netns)

    assert found is not None
    assert found == known
    assert found.src != tuple_[1]
    assert host.translate("icmp", net.client.address4, 7, net.web.address4, netns=net.gateway.netns) is None


def test_the_panel_shows_the_tables_of_a_host(host: Host, net: PracticeNetwork) -> None:
    async def shown() -> None:
        panel = LiveConntrack(host, netns=net.gateway.netns).start()
        for _ in range(300):
            panel.raise_if_failed()
            if panel.table.view["total"]:
                break
            await asyncio.sleep(0.1)
        assert "masquerade" in panel.table.view["rows"][0]["cells"]
        assert f"namespace {net.gateway.inode}" in panel._head.value
        panel.close()

    with net.client.entered():
        client = socket.create_connection((net.web.address4, net.ports.http))
    with client:
        asyncio.run(shown())


def test_a_file_that_is_no_namespace_is_refused_by_its_name(host: Host, tmp_path: Path) -> None:
    with pytest.raises(netlab.BadInput, match="cannot open the network namespace"):
        host.conntrack_events(netns=str(tmp_path))
