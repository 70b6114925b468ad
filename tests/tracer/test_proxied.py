"""Connections that a load balancer introduces by the PROXY protocol, to a server that expects it."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest
from loopback import LOOPBACK
from overheard import free_port, running, until

import netlab

pytestmark = pytest.mark.privileged

CONFIG = """
daemon off; master_process off; pid {place}/pid; error_log {place}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log {place}/access.log; client_body_temp_path {place}/body; proxy_temp_path {place}/proxy;
    fastcgi_temp_path {place}/fastcgi; uwsgi_temp_path {place}/uwsgi; scgi_temp_path {place}/scgi;
    server {{
        listen 127.0.0.1:{port} proxy_protocol; listen [::1]:{port} proxy_protocol;
        location /busy {{ return 503; }}
        location / {{ return 200 "ok"; }}
    }}
}}
"""
FROM, TO = "203.0.113.7", "198.51.100.2"
BINARY = b"\r\n\r\n\0\r\nQUIT\n"
ENDS = socket.inet_aton(FROM) + socket.inet_aton(TO) + struct.pack("!HH", 45678, 80)
NOOP = b"\x04\0\x40" + bytes(64)  # a PP2_TYPE_NOOP field, as balancers pad with
HEADERS = (
    f"PROXY TCP4 {FROM} {TO} 45678 80\r\n".encode(),
    BINARY + b"\x21\x11" + struct.pack("!H", len(ENDS)) + ENDS,
    BINARY + b"\x21\x11" + struct.pack("!H", len(ENDS + NOOP)) + ENDS + NOOP,
    BINARY + b"\x20\0\0\0",  # the balancer's own check
)
REQUEST = b"GET /first HTTP/1.1\r\nHost: shop\r\n\r\n"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    place, free = tmp_path_factory.mktemp("proxied"), free_port()
    (place / "nginx.conf").write_text(CONFIG.format(place=place, port=free), encoding="utf-8")
    with running(("nginx", "-p", str(place), "-c", str(place / "nginx.conf")), free):
        yield free


@pytest.mark.parametrize("family", LOOPBACK)
def test_requests_behind_a_header_are_rows_from_the_first_on(port: int, family: int) -> None:
    with netlab.capture(protocols="http", port=port) as cap:
        for header in HEADERS:
            _ask(LOOPBACK[family], port, header, REQUEST)
            _ask(LOOPBACK[family], port, header + REQUEST)
        until(lambda: len(cap.requests()) >= 8 * len(HEADERS))
        rows = cap.requests()

    for direction in ("outgoing", "incoming"):
        mine = rows[rows["direction"] == direction]
        told = list(zip(mine["resource"], mine["status"], strict=True))
        assert told == [("/first", "200"), ("/busy", "503")] * 2 * len(HEADERS)
    assert netlab.coverage(rows).empty


def _ask(address: str, port: int, *said: bytes) -> None:
    with socket.create_connection((address, port), timeout=30) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for one in said:
            client.sendall(one)
        assert client.recv(4096).startswith(b"HTTP/1.1 200")
        client.sendall(b"GET /busy HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 503")
