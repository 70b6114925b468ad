"""Real clients and servers on loopback, for captures to watch."""

from __future__ import annotations

import ctypes
import os
import socket
import threading
from dataclasses import dataclass

import pandas as pd

REQUESTS = int(os.environ.get("NETLAB_REQUESTS", "100"))  # of each protocol and family; the issue says 10000
LINGER_0 = b"\1\0\0\0\0\0\0\0"  # struct linger: close by reset
AF = {4: socket.AF_INET, 6: socket.AF_INET6}
LOOPBACK = {4: "127.0.0.1", 6: "::1"}


@dataclass
class Echo:
    """A server that answers what it received, once the client has finished, and what it counted."""

    port: int
    received: list[int]

    def connect(self, family: int) -> socket.socket:
        return socket.create_connection((LOOPBACK[family], self.port), timeout=10)

    def talk(self, family: int, size: int) -> tuple[int, int]:
        """Send *size* bytes and read the answer; return its length and the socket's cookie."""
        with self.connect(family) as client:
            client.sendall(bytes(size))
            return finish(client), cookie(client)


def finish(client: socket.socket) -> int:
    client.shutdown(socket.SHUT_WR)
    answered = 0
    while chunk := client.recv(65536):
        answered += len(chunk)
    return answered


def disconnect(client: socket.socket) -> None:
    """Dissolve the association: connect(2) with AF_UNSPEC, which Python's socket has no call for."""
    libc = ctypes.CDLL(None, use_errno=True)
    unspecified = bytes(16)  # struct sockaddr with sa_family 0
    assert libc.connect(client.fileno(), unspecified, len(unspecified)) == 0


def cookie(client: socket.socket) -> int:
    so_cookie = 57  # include/uapi/asm-generic/socket.h
    return int.from_bytes(client.getsockopt(socket.SOL_SOCKET, so_cookie, 8), "little")


def serve(listener: socket.socket, received: list[int]) -> None:
    def answer(connection: socket.socket) -> None:
        with connection:
            size = 0
            while chunk := connection.recv(65536):
                size += len(chunk)
                connection.sendall(chunk)
            received.append(size)

    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=answer, args=(connection,), daemon=True).start()


def outgoing(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["direction"] == "outgoing"]
