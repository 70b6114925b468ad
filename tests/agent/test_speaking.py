"""What applications say, read by the agent: for everybody, and in captures of clients' own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from netlab.agent.client import Host
from netlab.errors import BadInput, CaptureError
from tests.support.programs import wait_until

pytestmark = pytest.mark.privileged


class Teapot(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(418)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def teapot() -> Iterator[int]:
    """Yield the port of a server that refuses to brew coffee."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Teapot) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_a_capture_of_ones_own_reads_what_it_was_asked_to(host: Host, teapot: int) -> None:
    with host.capture(protocols=["http"], port=teapot) as capture:
        httpx.get(f"http://127.0.0.1:{teapot}/coffee?sugar=2")
        wait_until(lambda: len(capture.requests()) == 2)
        requests = capture.requests("http")
        with pytest.raises(CaptureError, match="did not read dns"):
            capture.dns()

    assert set(requests["direction"]) == {"outgoing", "incoming"}
    assert requests[["resource", "status"]].drop_duplicates().values.tolist() == [["/coffee", "418"]]


def test_everybody_is_told_what_was_said_since_somebody_first_asked(host: Host, teapot: int) -> None:
    before = host.requests("http")
    httpx.get(f"http://127.0.0.1:{teapot}/tea")

    wait_until(lambda: (host.requests("http")["resource"] == "/tea").sum() == 2)
    assert not (before["resource"] == "/tea").any()
    assert host.dns().attrs["schema"] == "dns"
    assert host.requests("tls").attrs["schema"] == "tls"


def test_what_everybody_shares_is_nobodys_to_stop(host: Host) -> None:
    host.dns()

    with pytest.raises(CaptureError, match="this capture is everybody's"):
        host.ask("POST", "/captures/speaking/stop")


def test_a_protocol_that_is_not_read_is_refused(host: Host) -> None:
    with pytest.raises(BadInput, match="http2"):
        host.requests("gopher")
