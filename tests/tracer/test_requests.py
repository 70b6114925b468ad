"""HTTP requests read from packets, against what curl and nginx themselves say of them."""

from __future__ import annotations

import contextlib
import functools
import gc
import http.client
import http.server
import json
import os
import secrets
import socket
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from certificates import certify, trusting
from loopback import LOOPBACK

import netlab
from netlab.tracer import budgets, conversations, payload
from netlab.tracer.layout import CONVERSATION, PASSAGE, PIECE
from netlab.tracer.session import Capture

pytestmark = pytest.mark.privileged

ADDRESSES = ("127.0.0.1", "[::1]")
PATHS = {"/": 200, "/missing": 404, "/broken": 500, "/large": 200}
LARGE_BYTES = 300_000
ROUNDS = 25
PLACE_SHARERS = ("/left", "/right")
CONFIG = """
daemon off; master_process off; pid {home}/pid; error_log stderr crit;
events {{ worker_connections 512; }}
http {{
    access_log off; client_body_temp_path {home}/body; client_body_buffer_size 1m; keepalive_requests 100000;
    server {{
        listen 127.0.0.1:{port}; listen [::1]:{port} deferred; root {home};
        location = / {{ return 200 "hello"; }}
        location = /broken {{ return 500; }}
        location /echo {{ return 200 "$http_x_secret"; }}
    }}
}}
"""

Log = dict[str, object]


@dataclass(frozen=True, slots=True)
class Web:
    """A web server on both loopback addresses."""

    port: int

    def ask(self, *paths: str, address: str = "127.0.0.1", options: str = "") -> list[Log]:
        """Fetch *paths* over one connection, and return what curl says of each."""
        url, output = f"http://{address}:{self.port}", 'output = "/dev/null"'
        wanted = options + "".join(f'url = "{url}{path}"\n{output}\n' for path in paths)
        command = ["curl", "--silent", "--write-out", "%{json}\n", "--config", "-"]
        run = subprocess.run(command, input=wanted, capture_output=True, text=True, check=True, timeout=60)
        return [json.loads(line) for line in run.stdout.splitlines()]


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    home = tmp_path_factory.mktemp("web")
    (home / "large").write_bytes(bytes(LARGE_BYTES))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (home / "nginx.conf").write_text(CONFIG.format(home=home, port=port))
    command = ["nginx", "-c", str(home / "nginx.conf"), "-e", "stderr"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        _until(lambda: _answers(port))
        yield Web(port)
        server.terminate()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _until(done: object, limit_s: float = 30) -> None:
    deadline = time.monotonic() + limit_s
    while not done():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


@dataclass(frozen=True, slots=True)
class Seen:
    """What curl logged, and what netlab has of it."""

    log: list[Log]
    requests: pd.DataFrame
    capture: Capture


@pytest.fixture(scope="module")
def seen(web: Web) -> Seen:
    paths = list(PATHS) * ROUNDS
    with netlab.capture(protocols="http", port=web.port) as capture:
        log = [one for address in ADDRESSES for one in web.ask(*paths, address=address)]
        _until(lambda: (capture.requests()["outcome"] == "answered").sum() >= 2 * len(log))
    return Seen(log, capture.requests(), capture)


@pytest.mark.parametrize("direction", ["incoming", "outgoing"])
def test_of_one_direction_there_is_one_end(web: Web, direction: str) -> None:
    with netlab.capture(protocols="http", port=web.port, direction=direction, nat=False) as capture:
        web.ask("/", "/missing")
        _until(lambda: (capture.requests()["outcome"] == "answered").sum() >= 2)

    assert capture.requests()["direction"].tolist() == [direction] * 2


def test_both_ends_have_every_request_that_the_client_made(seen: Seen) -> None:
    made = Counter((str(one["url_effective"]).split("/", 3)[2], one["response_code"]) for one in seen.log)

    for direction in ("outgoing", "incoming"):
        rows = seen.requests[seen.requests["direction"] == direction]
        assert Counter(zip(rows["host"], rows["status"].astype(int), strict=True)) == made
    assert len(seen.requests) == 2 * len(seen.log)
    assert set(seen.requests["outcome"]) == {"answered"}


def test_bytes_and_latency_are_those_of_the_client(seen: Seen) -> None:
    rows = seen.requests[seen.requests["direction"] == "outgoing"].reset_index(drop=True)
    log = pd.DataFrame(seen.log)

    assert rows["request_bytes"].tolist() == log["size_request"].tolist()
    assert rows["response_bytes"].tolist() == (log["size_header"] + log["size_download"]).tolist()
    waited_ms = (log["time_starttransfer"] - log["time_pretransfer"]) * 1e3
    assert (waited_ms - rows["latency_ms"]).abs().median() < 1  # curl itself may be kept waiting
    assert (rows["latency_ms"] <= log["time_total"] * 1e3 + 0.001).all()  # curl counts in microseconds


def test_requests_have_the_owner_and_ends_of_their_connection(seen: Seen, web: Web) -> None:
    rows, connections = seen.requests, seen.capture.connections().set_index("cookie")

    assert set(rows.loc[rows["direction"] == "outgoing", "process"]) == {"curl"}
    assert set(rows.loc[rows["direction"] == "incoming", "process"]) == {"nginx"}
    theirs = connections.loc[rows["cookie"]]
    for name in ("pid", "netns", "local_address", "local_port", "remote_address", "remote_port", "direction"):
        assert rows[name].tolist() == theirs[name].tolist()
    assert set(rows.loc[rows["direction"] == "outgoing", "remote_port"]) == {web.port}


def test_failures_have_their_names_and_paths_no_query(seen: Seen) -> None:
    rows = seen.requests
    assert set(rows.loc[rows["resource"] == "/broken", "error"]) == {"Internal Server Error"}
    assert rows.loc[rows["resource"] == "/", "error"].isna().all()


def test_what_a_full_ring_loses_is_counted(web: Web) -> None:
    capture = netlab.capture(protocols="http", port=web.port)
    few = replace(capture._options.limits, piece_pages=8)
    capture._options = replace(capture._options, limits=few)

    with capture:
        log = web.ask(*["/large"] * 300)
    requests = capture.requests()

    lost = _said_of(requests, "ring buffer")
    answered = int((requests["outcome"] == "answered").sum())
    assert lost > 0
    assert 2 * len(log) - answered <= lost
    assert set(requests["status"].dropna()) <= {"200"}


def test_a_connection_older_than_the_capture_is_read_from_its_next_request(web: Web) -> None:
    with socket.create_connection(("127.0.0.1", web.port)) as client:
        _exchange(client, "/before")
        with netlab.capture(protocols="http", port=web.port) as capture:
            _exchange(client, "/missing")
            _until(lambda: len(capture.requests()) >= 2)
    requests = capture.requests()

    assert requests["resource"].tolist() == ["/missing"] * 2
    assert set(requests["direction"]) == {"outgoing", "incoming"}
    assert _said_of(requests, "not followed from their first byte") == 2


def test_in_the_middle_of_a_body_the_next_request_is_waited_for() -> None:
    with _pair() as (client, server):
        client.sendall(b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 2000\r\n\r\n" + b"." * 1000)
        server.recv(65536)
        with netlab.capture(protocols="http") as capture:
            client.sendall(b"." * 1000)
            server.recv(65536)
            server.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            client.recv(65536)
            client.sendall(b"GET /next HTTP/1.1\r\nHost: here\r\n\r\n")
            server.recv(65536)
            server.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            client.recv(65536)
            port = server.getsockname()[1]
            _until(lambda: (_on(capture.requests(), port)["status"] == "404").sum() == 2)
        requests = _on(capture.requests(), port)

    assert requests["resource"].tolist() == ["/next"] * 2


def _on(requests: pd.DataFrame, port: int) -> pd.DataFrame:
    return requests[(requests["local_port"] == port) | (requests["remote_port"] == port)]


def _exchange(client: socket.socket, path: str) -> None:
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
    assert b"404" in client.recv(65536)


def test_secrets_in_bodies_headers_and_queries_are_not_kept(web: Web) -> None:
    secret = secrets.token_hex(16)
    options = f'data = "password={secret}"\nheader = "X-Secret: {secret}"\n'

    with netlab.capture(protocols="http", port=web.port) as capture:
        web.ask(f"/echo?token={secret}", options=options)
        _until(lambda: (capture.requests()["outcome"] == "answered").sum() == 2)
        assert not any(secret.encode() in text for text in _texts_in(capture))

    requests = capture.requests()
    assert requests["operation"].tolist() == ["POST", "POST"]
    assert secret not in requests.to_csv()
    assert not any(secret.encode() in text for text in _texts_in(capture))


def _texts_in(root: object) -> Iterator[bytes]:
    """Return everything that *root* holds on to: text, bytes and pieces of payload."""
    met: set[int] = set()
    waiting = [root]
    while waiting:
        one = waiting.pop()
        if id(one) in met or isinstance(one, type) or type(one).__name__ in {"module", "function"}:
            continue
        met.add(id(one))
        if isinstance(one, str | bytes):
            yield one.encode(errors="replace") if isinstance(one, str) else one
        elif isinstance(one, np.ndarray) and one.dtype == PIECE:
            yield one.tobytes()
        waiting += gc.get_referents(one)


def test_a_connection_that_speaks_something_else_is_handed_up_no_more() -> None:
    with netlab.capture(protocols="http") as capture, _pair() as (client, server):
        for _ in range(2):
            client.sendall(b"\x7fnobody's protocol\x80" * 50)
            server.recv(65536)
        _until(lambda: _said_of(capture.requests(), "spoke something else") >= 2)
        ends = {one.getsockname()[1] for one in (client, server)}
        budgets = capture._watch.program.map("netlab_conversations", "u8", CONVERSATION).items()[1]
        assert (budgets["budget"][np.isin(budgets["local_port"], list(ends))] == 0).all()
    assert not set(capture.requests()["local_port"]) & ends


def test_the_middle_of_a_long_body_is_not_handed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    size, handed, take = 1 << 25, list[int](), conversations.Conversations.take
    monkeypatch.setattr(
        conversations.Conversations,
        "take",
        lambda self, pieces, **how: (handed.append(int(pieces["bytes"].sum())), take(self, pieces, **how)),
    )
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size
    with netlab.capture(protocols="http") as capture, _pair() as (client, server):
        ends = {one.getsockname()[1] for one in (client, server)}
        said = lambda: (rows := capture.requests())[rows["local_port"].isin(ends)]  # noqa: E731
        passages = capture._watch.program.map("netlab_passages", "u8", PASSAGE)
        with futures.ThreadPoolExecutor(1) as serving:
            client.sendall(b"GET /long HTTP/1.1\r\nHost: here\r\n\r\n")
            server.recv(65536)
            served = serving.submit(server.sendall, answer + bytes(1 << 16))
            client.recv(len(answer) + (1 << 16), socket.MSG_WAITALL)
            served.result()
            _until(lambda: len(passages.items()[0]) == 2)
            before = sum(handed)
            served = serving.submit(server.sendall, bytes(size - (1 << 16)))
            client.recv(size - (1 << 16), socket.MSG_WAITALL)
            served.result()
        client.sendall(b"GET /next HTTP/1.1\r\nHost: here\r\n\r\n")
        server.recv(65536)
        server.sendall(b"HTTP/1.1 404 None\r\nContent-Length: 0\r\n\r\n")
        _until(lambda: sum(said()["status"] == "404") == 2)
        assert sum(handed) - before < 1 << 21
        assert list(said()["response_bytes"].dropna().unique()) == [len(answer) + size, 40]


def test_behind_a_handshake_nothing_is_handed_up(tmp_path: Path) -> None:
    trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trusted.load_cert_chain(*certify(tmp_path))
    with netlab.capture(protocols="tls") as capture, _pair() as (client, server):
        ends = {one.getsockname()[1] for one in (client, server)}
        with futures.ThreadPoolExecutor(1) as serving:
            served = serving.submit(trusted.wrap_socket, server, server_side=True)
            asked = trusting().wrap_socket(client)
        with asked, served.result() as answering:
            answering.sendall(b"there")
            asked.recv(5)
        _until(lambda: sum(capture.tls()["local_port"].isin(ends)) == 2)
        budgets = capture._watch.program.map("netlab_conversations", "u8", CONVERSATION).items()[1]
        assert (budgets["budget"][np.isin(budgets["local_port"], list(ends))] == 0).all()


def test_connections_that_take_turns_in_the_table_of_judgements_keep_their_own_ends(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (budgets, payload):
        monkeypatch.setattr(module, "JUDGED", 1)
    with contextlib.ExitStack() as stack:
        capture = stack.enter_context(netlab.capture(protocols="http", port=web.port))
        clients = [
            stack.enter_context(socket.create_connection(("127.0.0.1", web.port))) for _ in PLACE_SHARERS
        ]
        for _ in range(5):
            for client, path in zip(clients, PLACE_SHARERS, strict=True):
                _exchange(client, path)
            capture.requests()  # reads, and says that they go on
        rows = capture.requests()
        ports = [client.getsockname()[1] for client in clients]

    theirs = rows["local_port"].where(rows["direction"] == "outgoing", rows["remote_port"])
    assert Counter(zip(theirs, rows["resource"], strict=True)) == dict.fromkeys(
        zip(ports, PLACE_SHARERS, strict=True), 2 * 5
    )
    assert (rows["outcome"] == "answered").all()


def test_an_answer_of_small_chunks_that_fills_a_packet_is_read_to_its_end() -> None:
    said = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"3\r\nabc\r\n" * 6000 + b"0\r\n\r\n"
    with _pair() as (client, server), netlab.capture(protocols="http") as capture:
        for _ in range(5):
            client.sendall(b"GET /rows HTTP/1.1\r\nHost: shop\r\n\r\n")
            assert server.recv(4096)
            server.sendall(said)
            assert len(client.recv(len(said), socket.MSG_WAITALL)) == len(said)
        port = client.getsockname()[1]
        _until(lambda: (_of(port, capture)["outcome"] == "answered").sum() == 2 * 5)
        rows = _of(port, capture)

    assert rows["response_bytes"].tolist() == [len(said)] * 10
    assert rows["duration_ms"].notna().all()


def _of(port: int, capture: Capture) -> pd.DataFrame:
    """Return what was said by and to the client at *port*."""
    rows = capture.requests()
    return rows[(rows["local_port"] == port) | (rows["remote_port"] == port)]


@contextlib.contextmanager
def _pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
        listener.accept()[0] as server,
    ):
        yield client, server


def _said_of(requests: pd.DataFrame, words: str) -> int:
    coverage = netlab.coverage(requests)
    return int(coverage.loc[coverage["detail"].str.contains(words), "count"].sum())


@pytest.mark.kernels
@pytest.mark.parametrize("family", LOOPBACK)
def test_requests_of_python_to_itself_are_rows_at_both_ends(tmp_path: Path, family: int) -> None:
    kind = type(
        "Server",
        (http.server.HTTPServer,),
        {"address_family": socket.AF_INET6 if family == 6 else socket.AF_INET},
    )
    (tmp_path / "here").write_text("hello")
    handler = functools.partial(_QuietHandler, directory=str(tmp_path))
    with (
        kind((LOOPBACK[family], 0), handler) as server,
        netlab.capture(protocols="http", port=server.server_port) as cap,
    ):
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        client = http.client.HTTPConnection(LOOPBACK[family], server.server_port, timeout=60)
        for path in ("/here", "/missing"):
            client.request("GET", path)
            with client.getresponse() as answer:
                answer.read()
        client.close()
        server.shutdown()
        serving.join()
        _until(lambda: (cap.requests()["outcome"] == "answered").sum() == 4, limit_s=120)
        requests = cap.requests()

    for direction in ("outgoing", "incoming"):
        rows = requests[requests["direction"] == direction]
        assert list(zip(rows["resource"], rows["status"], strict=True)) == [
            ("/here", "200"),
            ("/missing", "404"),
        ]
        assert set(rows["pid"]) == {os.getpid()}
    assert netlab.coverage(requests).empty


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_what_may_be_http_3_is_counted() -> None:
    initial = b"\xc3\0\0\0\1\x08" + bytes(1194)  # the head of QUIC's first packet (RFC 9000 section 17.2.2)
    with (
        netlab.capture(protocols=("http", "redis"), remote="127.0.0.77") as capture,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
    ):
        server.bind(("127.0.0.77", 443))
        client.sendto(initial, server.getsockname())
        _until(lambda: _said_of(capture.requests(), "HTTP/3") == 1)
        of_redis = capture.requests("redis")

    assert _said_of(of_redis, "HTTP/3") == 0


def test_without_protocols_nothing_reads_payload(web: Web) -> None:
    with netlab.capture(port=web.port) as capture:
        names = set(capture.cost()["program"])

    assert "netlab_datagram_sent" in names
    assert not names & {"netlab_segment_sent", "netlab_message_sent", "netlab_pieces"}


def test_what_cannot_be_read_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(netlab.BadInput, match="Did you mean 'http'"):
        netlab.capture(protocols=("htp",))
    with pytest.raises(netlab.BadInput, match="needs eBPF"):
        netlab.capture(protocols="http", mode="poll")
