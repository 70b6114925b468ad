"""Requests inside TLS, read from the libraries of real clients and servers, against their own logs."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPSConnection
from pathlib import Path

import pandas as pd
import playwright
import pytest
import redis
from certificates import certify, trusting
from overheard import free_port, running, until
from turns import speak_in_turn

import netlab
from netlab.errors import BadInput
from netlab.tracer.session import Capture

pytestmark = pytest.mark.privileged

ROUNDS = 25
PATHS = {"/ok/77?token=SESAME": ("/ok/*", 200), "/none": ("/none", 404), "/busy": ("/busy", 503)}
NGINX = """
daemon off; master_process off; pid {place}/pid; error_log {place}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off; client_body_temp_path {place}/body; proxy_temp_path {place}/proxy;
    fastcgi_temp_path {place}/fastcgi; uwsgi_temp_path {place}/uwsgi; scgi_temp_path {place}/scgi;
    ssl_certificate {place}/cert.pem; ssl_certificate_key {place}/key.pem;
    server {{
        listen 127.0.0.1:{port} ssl http2; listen [::1]:{port} ssl http2; root {place};
        location /ok/ {{ return 200 "SESAME"; }}
        location /busy {{ return 503; }}
    }}
}}
"""

NODE = """
const https = require('https'), fs = require('fs'), [place, port, does] = process.argv.slice(2);
const agent = new https.Agent({keepAlive: true, maxSockets: 1, rejectUnauthorized: false});
const get = path => new Promise(done => https.get({port, path, agent, host: '127.0.0.1'}, answer => {
    answer.resume(); answer.on('end', done);
}));
async function ask(rounds) {
    for (let round = 0; round < rounds; round++) { await get('/ok'); await get('/busy'); }
    agent.destroy();
}
const read = name => fs.readFileSync(`${place}/${name}.pem`);
if (does == 'ask') ask(ROUNDS);
else https.createServer({key: read('key'), cert: read('cert')}, (request, answer) => {
    answer.statusCode = request.url == '/busy' ? 503 : 200;
    answer.end('SESAME'.repeat(100));
}).listen(port, '127.0.0.1');
""".replace("ROUNDS", str(ROUNDS))


@dataclass(frozen=True)
class Servers:
    """Where servers listen that speak TLS, and a capture that sees them."""

    web: int
    redis: int
    other: int
    cap: Capture
    older: HTTPSConnection  # opened before the capture
    place: Path

    def requests(self, port: int, end: str = "remote_port") -> pd.DataFrame:
        """Return what was asked of the server at *port*, in TLS, as seen at one end."""
        rows = self.cap.requests().query("protocol != 'tls'")
        return rows[rows[end] == port]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    place = tmp_path_factory.mktemp("servers")
    certify(place)
    web, store, other = free_port(), free_port(), free_port()
    (place / "nginx.conf").write_text(NGINX.format(place=place, port=web), encoding="utf-8")
    secured = (
        "--tls-port",
        str(store),
        "--tls-cert-file",
        place / "cert.pem",
        "--tls-key-file",
        place / "key.pem",
    )
    options = ("--port", "0", "--save", "", "--tls-auth-clients", "no", "--dir", place)
    with (
        running(("nginx", "-p", str(place), "-c", str(place / "nginx.conf")), web),
        running(("redis-server", *map(str, secured + options)), store),
        closing(HTTPSConnection("127.0.0.1", web, context=trusting())) as older,
    ):
        _get(older, "/ok/before")
        wanted = ("http", "http2", "redis", "tls")
        with netlab.capture(protocols=wanted, clear_text=True, port=[web, store, other]) as cap:
            yield Servers(web, store, other, cap, older, place)


def _fetch(port: int, host: str = "127.0.0.1") -> list[tuple[str, int]]:
    """Ask over one connection, by http.client: SSL_write_ex on a socket."""
    with closing(HTTPSConnection(host, port, context=trusting())) as connection:
        return [
            (masked, _get(connection, path)) for _ in range(ROUNDS) for path, (masked, _) in PATHS.items()
        ]


def _get(connection: HTTPSConnection, path: str) -> int:
    connection.request("GET", path, headers={"Authorization": "SESAME"})
    answer = connection.getresponse()
    answer.read()
    return answer.status


def _rows(requests: pd.DataFrame) -> list[tuple[str, int]]:
    assert set(requests["outcome"]) == {"answered"}
    assert set(requests["seen"]) == {"tls"}
    return list(zip(requests["resource"], requests["status"].astype(int), strict=True))


@pytest.mark.kernels
def test_both_ends_of_http_in_tls_have_the_rows_that_the_client_logged(servers: Servers) -> None:
    log = _fetch(servers.web) + _fetch(servers.web, "::1")
    mine = lambda end: servers.requests(servers.web, end).query("protocol == 'http'")  # noqa: E731
    until(lambda: len(mine("remote_port")) >= len(log) <= len(mine("local_port")))
    asked, answered = mine("remote_port"), mine("local_port")
    assert _rows(asked) == _rows(answered) == log
    assert set(asked["pid"]) == {os.getpid()}
    assert set(answered["process"]) == {"nginx"}
    assert set(asked["remote_address"]) == {"127.0.0.1", "::1"}


def test_a_request_takes_no_longer_than_its_client_waits_and_its_server_no_longer_than_that(
    servers: Servers,
) -> None:
    waited_ms = []
    with closing(HTTPSConnection("127.0.0.1", servers.web, context=trusting())) as connection:
        connection.connect()
        local = connection.sock.getsockname()[1]
        for _ in range(ROUNDS):
            begun_ns = time.monotonic_ns()
            _get(connection, "/ok/timed")
            waited_ms.append((time.monotonic_ns() - begun_ns) / 1e6)
    until(lambda: min(len(servers.requests(local, end)) for end in ("local_port", "remote_port")) == ROUNDS)
    client_ms, server_ms = (
        servers.requests(local, end)["duration_ms"].to_numpy() for end in ("local_port", "remote_port")
    )
    assert (server_ms < client_ms).all()
    assert (client_ms < waited_ms).all()


async def _ask_by_memory(port: int) -> list[tuple[str, int]]:
    """Ask by asyncio, whose library seals into memory: SSL_write_ex and SSL_read_ex on BIO_s_mem()."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting())
    log = []
    for _ in range(ROUNDS):
        for path, (masked, status) in PATHS.items():
            writer.write(f"GET {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
            await reader.readexactly(int(length.split(b":")[1]))
            log.append((masked, int(head.split()[1])))
            assert log[-1][1] == status
    writer.close()
    await writer.wait_closed()
    return log


def test_what_asyncio_seals_in_memory_is_of_the_connection_that_it_is_sent_over(servers: Servers) -> None:
    before = len(servers.requests(servers.web))

    async def together() -> list[list[tuple[str, int]]]:
        return await asyncio.gather(*(_ask_by_memory(servers.web) for _ in range(3)))

    logs = asyncio.run(together())
    until(lambda: len(servers.requests(servers.web)) >= before + sum(map(len, logs)))
    mine = servers.requests(servers.web)[before:]
    assert [_rows(rows) for _, rows in mine.groupby("local_port")] == logs


def test_threads_each_have_their_own_sessions(servers: Servers) -> None:
    before = len(servers.requests(servers.web))
    with futures.ThreadPoolExecutor(2) as threads:
        logs = list(threads.map(lambda _: _fetch(servers.web), range(2)))
    until(lambda: len(servers.requests(servers.web)) >= before + sum(map(len, logs)))
    mine = servers.requests(servers.web)[before:]
    assert [_rows(rows) for _, rows in mine.groupby("local_port")] == logs


@pytest.mark.parametrize(
    ("command", "protocol"),
    [
        (("wget", "-qO-", "--no-check-certificate"), "http"),  # GnuTLS
        (("curl", "-sk", "--http1.1"), "http"),
        (("curl", "-sk", "--http2"), "http2"),
    ],
    ids=["wget", "curl", "curl-http2"],
)
def test_a_program_started_later_is_read(servers: Servers, command: tuple[str, ...], protocol: str) -> None:
    before = len(servers.requests(servers.web))
    url = f"https://127.0.0.1:{servers.web}/ok/1"
    process = subprocess.Popen((*command, url), stdout=subprocess.DEVNULL)
    assert process.wait(30) == 0
    until(lambda: len(servers.requests(servers.web)) > before)
    (row,) = servers.requests(servers.web)[before:].to_dict("records")
    assert (row["protocol"], row["operation"], row["resource"]) == (protocol, "GET", "/ok/*")
    assert (row["status"], row["outcome"], row["seen"]) == ("200", "answered", "tls")
    assert (row["pid"], row["process"]) == (process.pid, command[0])
    connections = servers.cap.connections().query("pid == @process.pid")
    assert list(connections["protocol_stack"]) == [f"tls+{protocol}"]


def test_commands_to_redis_in_tls_are_read_at_both_ends(servers: Servers) -> None:
    with redis.Redis(port=servers.redis, ssl=True, ssl_cert_reqs="none", ssl_check_hostname=False) as client:
        for number in range(ROUNDS):
            client.set(f"user:{number}", "SESAME")
    for end in ("remote_port", "local_port"):
        sets = lambda: servers.requests(servers.redis, end).query("operation == 'SET'")  # noqa: B023, E731
        until(lambda: len(sets()) == ROUNDS)  # noqa: B023
        assert set(sets()["resource"]) == {"user:*"}
        assert set(sets()["outcome"]) == {"answered"}


def test_a_session_older_than_the_capture_is_read_from_its_next_request_on(servers: Servers) -> None:
    local = servers.older.sock.getsockname()[1]
    for _ in range(3):
        _get(servers.older, "/ok/after")
    for end in ("local_port", "remote_port"):
        mine = lambda: servers.requests(local, end)  # noqa: B023, E731
        until(lambda: len(mine()) == 3)  # noqa: B023
        assert _rows(mine()) == [("/ok/after", 200)] * 3
        assert len(set(mine()["cookie"])) == 1
    coverage = netlab.coverage(servers.cap.requests())
    assert coverage["detail"].str.startswith("connections were not followed from their first byte").any()


def test_sessions_that_follow_each_other_on_one_connection_are_all_read(servers: Servers) -> None:
    speak_in_turn(servers.other, (servers.place / "cert.pem", servers.place / "key.pem"))

    for end in ("remote_port", "local_port"):
        mine = lambda: servers.requests(servers.other, end)  # noqa: B023, E731
        until(lambda: len(mine()) == 3)  # noqa: B023
        assert _rows(mine()) == [("/a", 200), ("/b", 404), ("/c", 503)]
        assert len(set(mine()["cookie"])) == 1


def test_secrets_in_tls_are_in_no_row(servers: Servers) -> None:
    _fetch(servers.web)
    until(lambda: len(servers.requests(servers.web)))
    for frame in (servers.cap.requests(), servers.cap.connections()):
        assert "SESAME" not in frame.to_csv()


def test_a_library_that_nobody_had_is_found_and_what_was_said_before_is_missing(
    servers: Servers, tmp_path: Path
) -> None:
    found = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    for name in ("libssl.so.3", "libcrypto.so.3"):
        place = next(line.split()[-1] for line in found.splitlines() if line.split()[:1] == [name])
        (tmp_path / name).write_bytes(Path(place).read_bytes())
    own = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    url = f"https://127.0.0.1:{servers.web}/ok/1"
    command = ["curl", "-sk", "--http1.1", "--rate", "600/m", f"{url}?[1-500]"]
    with subprocess.Popen(command, env=own, stdout=subprocess.DEVNULL) as curl:
        mine = lambda: (rows := servers.requests(servers.web))[rows["pid"] == curl.pid]  # noqa: E731
        until(lambda: "answered" in set(mine()["outcome"]))
        curl.terminate()
    seen = mine().query("outcome == 'answered'")
    answered = servers.requests(servers.web, "local_port")
    assert 0 < len(seen) < sum(answered["remote_port"] == seen["local_port"].iloc[0])
    assert set(_rows(seen)) == {("/ok/*", 200)}


def test_a_program_that_has_openssl_in_it_is_read_at_both_ends(servers: Servers, tmp_path: Path) -> None:
    node, port = Path(playwright.__file__).parent / "driver" / "node", free_port()
    (tmp_path / "web.js").write_text(NODE, encoding="utf-8")
    command = (str(node), str(tmp_path / "web.js"), str(servers.place), str(port))
    with (
        running((*command, "serve"), port),
        netlab.capture(protocols=("http", "http2"), clear_text=True, port=port) as cap,
    ):
        subprocess.run((*command, "ask"), check=True, timeout=60)
        until(lambda: sum(cap.requests()["outcome"] == "answered") >= 2 * 2 * ROUNDS)
        rows = cap.requests()

    for direction in ("outgoing", "incoming"):
        mine = rows[rows["direction"] == direction]
        assert _rows(mine) == [("/ok", 200), ("/busy", 503)] * ROUNDS
        assert mine["process"].str.startswith("node").all()
    assert netlab.coverage(rows)["detail"].str.contains("clear text was not seen").sum() == 0


def test_connections_whose_clear_text_is_not_seen_are_counted(servers: Servers) -> None:
    def not_seen() -> int:
        gaps = netlab.coverage(servers.cap.requests()).set_index("detail")["count"]
        return int(gaps[gaps.index.str.startswith("connections spoke TLS")].sum())

    before = not_seen()
    files = ("-key", "key.pem", "-cert", "cert.pem")
    server = ("openssl", "s_server", "-WWW", "-quiet", *files, "-accept", str(servers.other))
    with running(server, servers.other, place=servers.place):
        ask = ("curl", "-sk", f"https://127.0.0.1:{servers.other}/cert.pem")
        subprocess.run(ask, check=True, capture_output=True)
        until(lambda: not_seen() == before + 1)
    # curl's row alone: s_server has OpenSSL itself call what SSL_read() and SSL_write() call.
    assert list(servers.requests(servers.other)["resource"])[-1] == "/cert.pem"
    assert "/cert.pem" not in set(servers.requests(servers.other, "local_port")["resource"])
    shakes = servers.cap.tls()
    assert len(shakes[shakes["local_port"] == servers.other])


def test_clear_text_of_no_protocol_is_refused() -> None:
    with pytest.raises(BadInput, match="none is asked for"):
        netlab.capture(protocols="tls", clear_text=True)
    with pytest.raises(BadInput, match="eBPF"):
        netlab.capture(protocols="http", clear_text=True, mode="poll")
