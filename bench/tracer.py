"""What a capture costs those it watches, with tcplife beside it."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import netlab
from bench.pairs import Watch, interleaved

CONNECTIONS, STREAM_BYTES, ROUNDS = 4_000, 1 << 30, 9
# It needs tracefs, which not every host has mounted; its own mount namespace leaves the host as it was.
_TCPLIFE = "mount -t tracefs tracefs /sys/kernel/tracing && exec $0"


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


def _compared(
    what: str, work: Callable[[int], None], watch: Watch, watcher: str, note: str
) -> list[tuple[str, float, str]]:
    """Compare the time and the CPU time of the work: both of its ends are in this process."""

    def seconds() -> tuple[float, float]:
        start, spent = time.perf_counter(), time.process_time()
        work(port)
        return time.perf_counter() - start, time.process_time() - spent

    with server() as port:
        pairs = interleaved(seconds, watch, ROUNDS)
    return [
        (f"{what}, {kind}: with {watcher} / alone", watched / alone, f"{watched:.2f} / {alone:.2f} s; {note}")
        for kind, watched, alone in zip(("time", "CPU time"), pairs.watched, pairs.alone, strict=True)
    ]


@contextlib.contextmanager
def tcplife(output: Path = Path("/dev/null")) -> Iterator[None]:
    """Run tcplife of libbpf-tools, which prints a line for each closed connection."""
    tool = shutil.which("tcplife", path="/usr/sbin:/usr/bin")
    assert tool, "run: apt-get install libbpf-tools"
    with output.open("w", encoding="utf-8") as lines:
        process = subprocess.Popen(["unshare", "--mount", "sh", "-c", _TCPLIFE, tool], stdout=lines)
        time.sleep(1.5)
        assert process.poll() is None, "tcplife did not start"
        try:
            yield
        finally:
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            process.wait(10)


def measure() -> list[tuple[str, float, str]]:
    many, much = f"{CONNECTIONS} connections by a Python client", f"{STREAM_BYTES >> 30} GiB over loopback"
    return [
        *_compared(
            "connect and close", connect_and_close, netlab.capture, "netlab.capture()", f"{many}; target 1.05"
        ),
        *_compared("connect and close", connect_and_close, tcplife, "tcplife", many),
        *_compared("bulk stream", stream, netlab.capture, "netlab.capture()", f"{much}; target 1.01"),
        *_compared("bulk stream", stream, tcplife, "tcplife", much),
    ]


if __name__ == "__main__":
    print(*measure(), sep="\n")
