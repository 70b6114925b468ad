"""The servers of the practice network: run by path in a namespace, `python servers.py http:80 tcp-echo:5432`.

Only the standard library is imported, so that the processes start fast. "ready" is printed when every
socket listens. The processes end when their standard input does: that is a pipe held by the owner, so they
go with it, by SIGKILL too. (PR_SET_PDEATHSIG would follow the *thread* that started them, prctl(2).)
"""

from __future__ import annotations

import socket
import socketserver
import sys
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from threading import Thread
from typing import ClassVar

_CHUNK = bytes(65536)
_MOST_BYTES = 1 << 30


class _DualStack(socketserver.ThreadingMixIn):
    """Answer IPv4 and IPv6 on one socket, each request in its own thread."""

    address_family: int = socket.AF_INET6
    request_queue_size = 4096  # a scan's SYNs overflow the usual 5, and each then waits a second
    allow_reuse_address = True
    daemon_threads = True
    socket: socket.socket

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()  # type: ignore[misc]

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that hang up."""


class _TcpServer(_DualStack, socketserver.TCPServer):
    pass


class _UdpServer(_DualStack, socketserver.UDPServer):
    pass


class Http(BaseHTTPRequestHandler):
    """Answer /peer (the client's address as seen here), /bytes/N, /status/N, and a greeting elsewhere."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    delay_s: ClassVar[float] = 0.0

    def do_GET(self) -> None:
        """Answer after the delay."""
        time.sleep(self.delay_s)
        kind, _, value = self.path.strip("/").partition("/")
        if kind == "bytes" and value.isdecimal() and int(value) <= _MOST_BYTES:
            self._answer(HTTPStatus.OK, int(value))
        elif kind == "status" and value.isdecimal() and 200 <= int(value) <= 599:
            self._answer(int(value))
        elif kind == "peer":
            self._answer(HTTPStatus.OK, text=f"{self._peer()}\n")
        else:
            self._answer(HTTPStatus.OK, text="the practice network's web server\n")

    def _answer(self, status: int, size: int = 0, *, text: str = "") -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(size or len(body)))
        self.end_headers()
        self.wfile.write(body)
        for start in range(0, size, len(_CHUNK)):
            self.wfile.write(_CHUNK[: size - start])

    def _peer(self) -> str:
        return str(self.client_address[0]).removeprefix("::ffff:")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the overridden signature
        """Say nothing: standard error belongs to whoever built the network."""


class _TcpEcho(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(len(_CHUNK)):
            self.request.sendall(data)


class _UdpEcho(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        data, server = self.request
        server.sendto(data, self.client_address)


def _listen(services: list[str]) -> None:
    """Start each service, given as kind:port or kind:port:delay_s."""
    for service in services:
        kind, port, *delay = service.split(":")
        place = ("::", int(port))
        server: socketserver.BaseServer
        match kind:
            case "http":
                handler = type("DelayedHttp", (Http,), {"delay_s": float(delay[0]) if delay else 0.0})
                server = _TcpServer(place, handler)
            case "tcp-echo":
                server = _TcpServer(place, _TcpEcho)
            case "udp-echo":
                server = _UdpServer(place, _UdpEcho)
            case _:
                sys.exit(f"no service is called {kind!r}")
        Thread(target=server.serve_forever, daemon=True).start()


if __name__ == "__main__":
    _listen(sys.argv[1:])
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()
