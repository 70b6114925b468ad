"""Requests over a network that loses, doubles and reorders packets: rows are still what the client did."""

from __future__ import annotations

import http.client
import http.server
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import pandas as pd
import pytest
from adversity import Way, bad_way
from loopback import LOOPBACK
from overheard import until

import netlab

pytestmark = pytest.mark.privileged

COUNT = 8  # of each family
# Some twenty packets: also with those sent again less than is read of a connection that nobody knows yet.
LONG = 30_000  # bytes
STATUSES = {"/fine": 200, "/none": 404, "/busy": 503}


class _Answering(http.server.BaseHTTPRequestHandler):
    """Answers as many bytes as it was sent, with the status of the path."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(STATUSES[self.path])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


Did: TypeAlias = tuple[str, str, int]  # path, status, bytes of the answer's body


@dataclass(frozen=True)
class Seen:
    """What the client did, and the rows."""

    log: list[Did]
    requests: pd.DataFrame
    connections: pd.DataFrame
    fates: dict[str, int]


@pytest.fixture(scope="module")
def seen() -> Iterator[Seen]:
    log: list[Did] = []
    with bad_way(seed=7) as way, netlab.capture(protocols="http", netns=[way.client, way.server]) as capture:
        for family in LOOPBACK:
            log += _talk(way, family)
        until(lambda: (capture.requests()["outcome"] == "answered").sum() >= 2 * len(log))
        yield Seen(log, capture.requests(), capture.connections(), dict(way.fates))


def _talk(way: Way, family: int) -> list[Did]:
    log = []
    with way.listener(family) as listener:
        port = listener.getsockname()[1]
        serving = threading.Thread(target=_serve_one, args=(listener,))
        serving.start()
        client = http.client.HTTPConnection("server.test", port)
        client.sock = way.connect(family, port)
        for number in range(COUNT):
            path = list(STATUSES)[number % len(STATUSES)]
            client.request("POST", path, bytes(LONG if number % 2 else 10))
            with client.getresponse() as answer:
                log.append((path, str(answer.status), len(answer.read())))
        client.close()
        serving.join()
    return log


def _serve_one(listener: socket.socket) -> None:
    connection, peer = listener.accept()
    with connection:
        _Answering(connection, peer, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("direction", ["outgoing", "incoming"])
def test_rows_are_what_the_client_did(seen: Seen, direction: str) -> None:
    rows = seen.requests[seen.requests["direction"] == direction]

    assert list(zip(rows["resource"], rows["status"], strict=True)) == [did[:2] for did in seen.log]
    assert set(rows["outcome"]) == {"answered"}
    heads = rows["response_bytes"].to_numpy() - [size for *_, size in seen.log]
    assert ((heads > 0) & (heads < 200)).all()


def test_packets_were_lost_doubled_and_late_and_nothing_is_missing_for_it(seen: Seen) -> None:
    assert min(seen.fates.values()) > 0
    assert seen.connections["retransmits"].sum() > 0
    assert netlab.coverage(seen.requests).empty
