"""Many connections: how many of them are rows, or counted, with tcplife beside us in the same run."""

from __future__ import annotations

import contextlib
import resource
import socket
import tempfile
from pathlib import Path

import pandas as pd

import netlab
from bench.programs import SERVER, python
from bench.tracer import tcplife

WORKERS, EACH = 4, 25_000
HELD_OPEN = 8_000

_CLIENT = """
    import socket, sys
    port, count, worker = map(int, sys.argv[1:])
    for number in range(count):
        client = socket.create_connection((f"127.0.{worker}.{number % 250 + 1}", port))
        client.recv(1)
        client.close()
"""


def _lost(frame: pd.DataFrame) -> int:
    gaps = netlab.coverage(frame)
    return int(gaps[(gaps["what"] == "connections") & (gaps["kind"] == "lost")]["count"].sum())


def short() -> list[tuple[str, float, str]]:
    """Open and close as fast as the machine can, in four processes."""
    server = python(SERVER)
    assert server.stdout
    port = int(server.stdout.readline())
    made = 2 * WORKERS * EACH
    with tempfile.TemporaryDirectory() as directory:
        lines = Path(directory) / "tcplife"
        with netlab.capture(port=port) as capture, tcplife(lines):
            workers = [python(_CLIENT, port, EACH, worker) for worker in range(WORKERS)]
            assert [worker.wait() for worker in workers] == [0] * WORKERS
        ours, theirs = capture.connections(), _lines(lines, port)
    server.communicate("done")
    detail = f"{len(ours)} rows + {_lost(ours)} counted as lost of {made} sockets, {WORKERS} workers"
    return [
        (
            "100,000 short connections: rows + counted losses / sockets",
            (len(ours) + _lost(ours)) / made,
            detail,
        ),
        ("100,000 short connections: lines of tcplife / sockets", theirs / made, "for comparison"),
    ]


def _lines(output: Path, port: int) -> int:
    return sum(str(port) in line.split() for line in output.read_text(encoding="utf-8").splitlines())


def open_at_once() -> list[tuple[str, float, str]]:
    """Hold 16,000 sockets open: all are rows while they are and after, also twice what the map holds."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    made, rows = 2 * HELD_OPEN, []
    for limit in (65_536, made // 2):
        with (
            tempfile.TemporaryDirectory() as directory,
            socket.create_server(("127.0.0.1", 0), backlog=4096) as listener,
        ):
            port, lines = listener.getsockname()[1], Path(directory) / "tcplife"
            with netlab.capture(port=port, max_open=limit) as capture, tcplife(lines):
                with contextlib.ExitStack() as opened:
                    for _ in range(HELD_OPEN):
                        opened.enter_context(socket.create_connection(listener.getsockname()))
                        opened.enter_context(listener.accept()[0])
                    during = capture.connections()
                after = capture.connections()
            theirs = _lines(lines, port)
        gaps = netlab.coverage(after)
        overflow = int(gaps[gaps["what"].str.startswith("connect_ms")]["count"].sum())
        what = f"{made} sockets open at once, {limit} fit into the map"
        rows += [
            (f"{what}: rows while open", len(during) / made, f"{len(during)} rows"),
            (f"{what}: rows after", len(after) / made, f"{len(after)} rows"),
            (f"{what}: lines of tcplife", theirs / made, f"{theirs} lines, for comparison"),
            (f"{what}: counted beyond the map", overflow / max(1, made - limit), f"{overflow} counted"),
        ]
    return rows


def measure() -> list[tuple[str, float, str]]:
    return [*short(), *open_at_once()]


if __name__ == "__main__":
    print(*measure(), sep="\n")
