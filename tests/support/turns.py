"""Several TLS sessions over one connection, one after the other."""

from __future__ import annotations

import socket
import ssl
from concurrent import futures
from pathlib import Path

from certificates import trusting

SAID = {"/a": 200, "/b": 404, "/c": 503}  # what each session asks for, and the status that answers it


def speak_in_turn(port: int, files: tuple[Path, Path], kept: list[object] | None = None) -> int:
    """Open a session for each of SAID, the server at *port* in this process, too; return the client's port.

    The sessions of both ends go into *kept*, if it is given, so that nobody frees them.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)

    def keep(sealed: ssl.SSLSocket) -> None:
        if kept is not None:
            kept.append(sealed._sslobj)  # type: ignore[attr-defined]

    def serve(listener: socket.socket) -> None:
        plain, _ = listener.accept()
        for status in SAID.values():
            sealed = context.wrap_socket(plain, server_side=True)
            keep(sealed)
            sealed.recv(4096)
            sealed.sendall(b"HTTP/1.1 %d Word\r\nContent-Length: 0\r\n\r\n" % status)
            plain = sealed.unwrap()
        plain.close()

    with (
        socket.create_server(("127.0.0.1", port)) as listener,
        futures.ThreadPoolExecutor(1) as serving,
    ):
        served = serving.submit(serve, listener)
        plain = socket.create_connection(listener.getsockname())
        own_port: int = plain.getsockname()[1]
        for path in SAID:
            sealed = trusting().wrap_socket(plain)
            keep(sealed)
            sealed.sendall(f"GET {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
            sealed.recv(4096)
            plain = sealed.unwrap()
        plain.close()
        served.result(30)
    return own_port
