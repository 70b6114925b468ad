"""connections(): 16,000 TCP sockets to a DataFrame, against ss(8) and pyroute2.

The sockets are both ends of loopback connections in a network namespace of this benchmark's own. Each run
measures all in turn, and a ratio is the median over the runs. Needs root.
"""

from __future__ import annotations

import resource
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from pyroute2 import DiagSocket

import netlab
from netlab.kernel import netns
from netlab.schemas import CONNECTIONS
from netlab.tracer import sockets

SOCKETS = 16_000
LISTENERS = 8
RUNS = 7
INFO = 1 << 1  # INET_DIAG_INFO as a bit
CONNECTED = 0xFFF & ~(1 << 10)  # every TCP state but LISTEN


def measure() -> list[tuple[str, float, str]]:
    with connected("netlab-bench-sock"):
        times = timed(
            {"DataFrame": dataframe, "ss -tni": ss, "connections()": connections, "ss -tnip": ss_owners}
        )
        times |= timed({"pyroute2 DiagSocket": pyroute2})  # apart: its garbage slows down what follows
    return [
        row(times, "DataFrame", "ss -tni", "no owners in either; target at most 1"),
        row(times, "pyroute2 DiagSocket", "DataFrame", "target at least 10"),
        row(times, "connections()", "ss -tnip", "owners in both"),
    ]


def row(times: dict[str, list[float]], one: str, other: str, note: str) -> tuple[str, float, str]:
    """Compare two tasks run by run: a slow moment of the machine then counts for both."""
    ratio = statistics.median(first / second for first, second in zip(times[one], times[other], strict=True))
    first, second = (1000 * statistics.median(times[name]) for name in (one, other))
    return f"16,000 TCP sockets: {one} / {other}", ratio, f"{first:.0f} ms / {second:.0f} ms; {note}"


def timed(tasks: dict[str, Callable[[], int]]) -> dict[str, list[float]]:
    """Run every task in turn, RUNS times after one to warm up, and return the seconds it took."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for run in range(RUNS + 1):
        for name, task in tasks.items():
            start = time.perf_counter()
            found = task()
            elapsed = time.perf_counter() - start
            assert found == SOCKETS, (name, found)
            if run:
                times[name].append(elapsed)
    return times


def dataframe() -> int:
    """Do what connections() does, but for asking who holds the sockets."""
    found = sockets.snapshot(protocol="tcp")
    return len(CONNECTIONS.frame(sockets.columns(found))) - LISTENERS


def connections() -> int:
    return len(netlab.connections(protocol="tcp"))


def ss() -> int:
    return printed("-Htni") // 2  # two lines for each socket


def ss_owners() -> int:
    return printed("-Htnip") // 2


def printed(options: str) -> int:
    return subprocess.run(["ss", options], check=True, stdout=subprocess.PIPE).stdout.count(b"\n")


def pyroute2() -> int:
    with DiagSocket() as kernel:
        kernel.bind()
        return len(kernel.get_sock_stats(family=socket.AF_INET, states=CONNECTED, extensions=INFO))


@contextmanager
def connected(space: str) -> Iterator[None]:
    """Run the block inside a new network namespace that has the connected sockets, and their listeners."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    subprocess.run(["ip", "netns", "add", space], check=True)
    try:
        subprocess.run(["ip", "-n", space, "link", "set", "lo", "up"], check=True)
        with netns.entered(space), ExitStack() as held:
            listeners = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(LISTENERS)]
            for number in range(SOCKETS // 2):
                listener = listeners[number % LISTENERS]
                held.enter_context(socket.create_connection(listener.getsockname()))
                held.enter_context(listener.accept()[0])
            yield
    finally:
        subprocess.run(["ip", "netns", "del", space], check=True)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


if __name__ == "__main__":
    for what, ratio, detail in measure():
        print(f"{what:<68} {ratio:8.2f}  {detail}")
