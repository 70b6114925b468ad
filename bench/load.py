"""A load on loopback, in a process of its own: a line names a work, its time and CPU time are the answer.

`python -m bench.load 0 1` has the server on one core and the client on another, as two hosts have; left alone
the scheduler puts them together or apart, and a connection takes 30 or 70 µs.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator

CONNECTIONS, STREAM_BYTES = 4_000, 1 << 30


@contextlib.contextmanager
def server() -> Iterator[int]:
    """Accept and close on loopback, reading whatever comes."""
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        threading.Thread(target=_accept, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket) -> None:
    space = bytearray(1 << 20)
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection, contextlib.suppress(ConnectionError):
            while connection.recv_into(space):
                pass


def connect_and_close(port: int) -> None:
    for _ in range(CONNECTIONS):
        socket.create_connection(("127.0.0.1", port)).close()


def stream(port: int) -> None:
    block = bytes(1 << 20)
    with socket.create_connection(("127.0.0.1", port)) as client:
        for _ in range(STREAM_BYTES // len(block)):
            client.sendall(block)
        client.shutdown(socket.SHUT_WR)
        client.recv(1)


WORK = {"connect and close": connect_and_close, "bulk stream": stream}


def main(*cores: int) -> None:
    if cores:
        os.sched_setaffinity(0, cores[:1])  # the server's thread has it from this one
    with server() as port:
        if cores:
            os.sched_setaffinity(0, cores[1:])
        for line in sys.stdin:
            start, spent = time.perf_counter(), time.process_time()
            WORK[line.strip()](port)
            print(time.perf_counter() - start, time.process_time() - spent, flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
