"""What applications say, read by the agent: for everybody, and in captures of clients' own."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import dns.message
import dns.rcode
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

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


def spoken_of(host: Host) -> Counter[tuple[str, ...]]:
    """Return the counters of the capture that reads for everybody, by name and other labels."""
    samples = [
        sample
        for family in text_string_to_metric_families(host.ask("GET", "/metrics").text)
        for sample in family.samples
        if sample.labels.get("capture") == "speaking"
    ]
    return Counter(
        {(one.name, *(one.labels[name] for name in sorted(one.labels)[1:])): one.value for one in samples}
    )


def ask_for(name: str) -> None:
    """Look a name up at a server on loopback that does not know it."""
    with socket.socket(type=socket.SOCK_DGRAM) as server, socket.socket(type=socket.SOCK_DGRAM) as client:
        server.bind(("127.0.0.77", 53))
        client.connect(server.getsockname())
        client.send(dns.message.make_query(name, "A").to_wire())
        asked, sender = server.recvfrom(512)
        answer = dns.message.make_response(dns.message.from_wire(asked))
        answer.set_rcode(dns.rcode.NXDOMAIN)
        server.sendto(answer.to_wire(), sender)
        client.recv(512)


def test_every_protocol_is_counted_for_prometheus_and_in_one_table(host: Host, teapot: int) -> None:
    host.dns()  # begins to read
    before = spoken_of(host)
    for _ in range(3):
        httpx.get(f"http://127.0.0.1:{teapot}/milk")
    ask_for("no-such-host.example")

    def counted(*key: str) -> float:
        return spoken_of(host)[key] - before[key]

    wait_until(lambda: counted("netlab_protocol_requests_total", "answered", "http") >= 6)  # at both ends
    wait_until(lambda: counted("netlab_dns_queries_total", "NXDOMAIN") >= 2)
    assert counted("netlab_protocol_errors_total", "http") >= 6
    assert {key[1] for key in spoken_of(host) if key[0] == "netlab_payload_missed_total"} == {
        "packets", "bytes", "unread bytes", "requests", "connections"
    }  # fmt: skip
    assert "no-such-host" not in host.ask("GET", "/metrics").text  # a label for each name would be too many

    stats = host.protocol_stats().set_index("resource")  # counts once what both ends told
    columns = ["protocol", "operation", "status_class", "requests", "errors", "statuses"]
    assert stats.loc["/milk", columns].tolist() == ["http", "GET", "4xx", 3, 3, "418: 3"]
    assert stats.loc["no-such-host.example", columns].tolist() == ["dns", "A", "error", 1, 1, "NXDOMAIN: 1"]
