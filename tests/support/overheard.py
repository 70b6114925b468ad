"""Conversations of real peers over loopback, as somebody between them hears them."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeAlias

from loopback import LOOPBACK

from netlab.protocols.dialog import Dialog, Exchange, Side

Heard: TypeAlias = list[tuple[Side, bytes, int]]

NGINX = """
daemon off; master_process off; pid {place}/pid; error_log {place}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log {place}/access.log; client_body_temp_path {place}/body; proxy_temp_path {place}/proxy;
    fastcgi_temp_path {place}/fastcgi; uwsgi_temp_path {place}/uwsgi; scgi_temp_path {place}/scgi;
    gzip on; gzip_http_version 1.0; gzip_min_length 1; gzip_types *; keepalive_requests 100000; {secured}
    types {{ text/plain txt; }}
    server {{
        listen 127.0.0.1:{port} {protocol}; listen [::1]:{port} {protocol}; listen unix:{place}/plain;
        root {place}; client_max_body_size 1m;
        location /trailed.txt {{ add_trailer X-Trail yes; }}
        location /deep/ {{ return 200 "deep"; }}
        location /empty {{ return 204; }}
        location /broken {{ return 500 "broken"; }}
        location /busy {{ return 503; }}
        location /moved {{ return 302 /plain.txt; }}
        location /upload {{ proxy_pass http://unix:{place}/plain:/plain.txt; proxy_method GET; }}
    }}
}}
"""


@dataclass
class Overheard:
    """A relay in front of a server, and what went over each of its connections."""

    port: int
    alter: Callable[[Side, bytes], bytes] = lambda _, data: data  # what is passed on, and heard
    conversations: list[Heard] = field(default_factory=list)
    ends: list[threading.Thread] = field(default_factory=list)

    def whole(self, number: int) -> list[Heard]:
        """Return the first *number* conversations when they are over."""
        until(lambda: len(self.ends) >= 2 * number)
        for end in self.ends[: 2 * number]:
            end.join(30)
            assert not end.is_alive()
        return self.conversations[:number]


def until(true: Callable[[], object], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(
    command: Sequence[str], port: int, place: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server in *place* until it is no longer needed; it is there when its *port* is open."""
    server = subprocess.Popen(command, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: _open(port))
        yield server
    finally:
        server.kill()
        server.wait()


def _open(port: int) -> bool:
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


@contextlib.contextmanager
def nginx(place: Path, protocol: str = "", certified: tuple[Path, Path] | None = None) -> Iterator[int]:
    """Run nginx on a port of its own, with files of *place*; for TLS it needs a certificate and its key."""
    port = free_port()
    config = place / "nginx.conf"
    secured = "ssl_certificate {}; ssl_certificate_key {};".format(*certified) if certified else ""
    config.write_text(
        NGINX.format(place=place, port=port, protocol=protocol, secured=secured), encoding="utf-8"
    )
    for name in ("plain.txt", "trailed.txt"):
        (place / name).write_text("plain text " * 400, encoding="utf-8")
    with running(("nginx", "-p", str(place), "-c", str(config)), port):
        yield port


@contextlib.contextmanager
def upgrading(web: int) -> Iterator[int]:
    """Run nghttpx in front of nginx at port *web*: it goes on in HTTP/2 where it is asked to."""
    port = free_port()
    listening = [f"--frontend={address},{port};no-tls" for address in LOOPBACK.values()]
    command = ["nghttpx", "--conf=/dev/null", *listening, f"--backend=127.0.0.1,{web}", "--workers=1"]
    with running(command, port):
        yield port


@contextlib.contextmanager
def overhearing(port: int, *, family: int = 4, own_address: bool = False) -> Iterator[Overheard]:
    """Stand between clients, which come over IPv4 or IPv6 (*family*), and the server at *port*.

    A server that tells its clients where it is (*own_address*: as 127.0.0.1 and four bytes of port) is heard
    to tell our address instead.
    """
    kind = socket.AF_INET6 if family == 6 else socket.AF_INET
    with socket.create_server((LOOPBACK[family], 0), family=kind) as listener:
        heard = Overheard(listener.getsockname()[1])
        if own_address:
            heard.alter = announcing(port, b"[0:0::01]" if family == 6 else b"127.0.0.1", heard.port)
        accepting = threading.Thread(target=_accept, args=(listener, port, heard))
        accepting.start()
        yield heard
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join()
        for end in heard.ends:
            end.join(30)
            assert not end.is_alive()


def announcing(server: int, host: bytes, port: int) -> Callable[[Side, bytes], bytes]:
    """Return what has the *server* say that it is at another *host*, of the same length, and *port*."""
    here, there = host + port.to_bytes(4, "big"), b"127.0.0.1" + server.to_bytes(4, "big")
    return lambda side, data: data.replace(there, here) if side is Side.SERVER else data


def _accept(listener: socket.socket, port: int, heard: Overheard) -> None:
    with contextlib.suppress(OSError):
        while True:
            client, _ = listener.accept()
            server = socket.create_connection(("127.0.0.1", port))
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            conversation: Heard = []
            both = threading.Barrier(2)
            heard.conversations.append(conversation)
            ways = ((Side.CLIENT, client, server), (Side.SERVER, server, client))
            hear = partial(_hear, conversation, heard.alter)
            ends = [threading.Thread(target=_pass, args=(*way, hear, both)) for way in ways]
            for end in ends:
                end.start()
            heard.ends.extend(ends)


def _hear(heard: Heard, alter: Callable[[Side, bytes], bytes], side: Side, data: bytes) -> bytes:
    data = alter(side, data)
    heard.append((side, data, time.monotonic_ns()))
    return data


def _pass(
    side: Side,
    source: socket.socket,
    sink: socket.socket,
    hear: Callable[[Side, bytes], bytes],
    both: threading.Barrier,
) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(hear(side, data))
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
    both.wait(30)  # neither socket is closed while the other way uses it
    source.close()


def read(dialog: Dialog, heard: Heard, *, ended: bool = True) -> list[Exchange]:
    """Return the exchanges of a conversation in the order of their requests."""
    found = [exchange for side, data, at in heard for exchange in dialog.said(side, data, at)]
    if ended:
        found += dialog.ended(heard[-1][2])
    return sorted(found, key=lambda exchange: exchange.requested_ns)


def cut(heard: Heard, sizes: Sequence[int]) -> Heard:
    """Return the conversation in pieces of *sizes*, over and over."""
    pieces: Heard = []
    count = 0
    for side, data, at in heard:
        place = 0
        while place < len(data):
            size = sizes[count % len(sizes)]
            pieces.append((side, data[place : place + size], at))
            place, count = place + size, count + 1
    return pieces
