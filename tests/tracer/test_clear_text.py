"""Requests inside TLS, read from the libraries of real clients and servers, against their own logs."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPSConnection

import pandas as pd
import pytest
from overheard import free_port, running, until

import netlab
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


@dataclass(frozen=True)
class Servers:
    """Where servers listen that speak TLS, and a capture that sees them."""

    web: int
    redis: int
    cap: Capture

    def requests(self, port: int, end: str = "remote_port") -> pd.DataFrame:
        rows = self.cap.requests()
        return rows[rows[end] == port]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    place = tmp_path_factory.mktemp("servers")
    made = (
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=localhost",
    )
    out = ("-keyout", place / "key.pem", "-out", place / "cert.pem")
    subprocess.run(["openssl", "req", *made, *out], check=True, capture_output=True)
    web, store = free_port(), free_port()
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
        netlab.capture(protocols=("http", "http2", "redis"), clear_text=True, port=[web, store]) as cap,
    ):
        yield Servers(web, store, cap)


def _trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _fetch(port: int, host: str = "127.0.0.1") -> list[tuple[str, int]]:
    """Ask over one connection, by http.client: SSL_write_ex on a socket."""
    connection = HTTPSConnection(host, port, context=_trusting())
    log = []
    for _ in range(ROUNDS):
        for path, (masked, _) in PATHS.items():
            connection.request("GET", path, headers={"Authorization": "SESAME"})
            answer = connection.getresponse()
            answer.read()
            log.append((masked, answer.status))
    connection.close()
    return log


def _rows(requests: pd.DataFrame) -> list[tuple[str, int]]:
    assert set(requests["outcome"]) == {"answered"}
    assert set(requests["seen"]) == {"tls"}
    return list(zip(requests["resource"], requests["status"].astype(int), strict=True))


def test_both_ends_of_http_in_tls_have_the_rows_that_the_client_logged(servers: Servers) -> None:
    log = _fetch(servers.web) + _fetch(servers.web, "::1")
    mine = lambda end: servers.requests(servers.web, end).query("protocol == 'http'")  # noqa: E731
    until(lambda: len(mine("remote_port")) >= len(log) <= len(mine("local_port")))
    asked, answered = mine("remote_port"), mine("local_port")
    assert _rows(asked) == _rows(answered) == log
    assert set(asked["pid"]) == {os.getpid()}
    assert set(answered["process"]) == {"nginx"}
    assert set(asked["remote_address"]) == {"127.0.0.1", "::1"}


async def _ask_by_memory(port: int) -> list[tuple[str, int]]:
    """Ask by asyncio, whose library seals into memory: SSL_write_ex and SSL_read_ex on BIO_s_mem()."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=_trusting())
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
