"""with_gateway(): 10,000 connections to 1,000 destinations, against ip(8) and pyroute2 on the 1,000 alone.

The routes are in a network namespace of this benchmark's own; ip and pyroute2 only ask, and join nothing.
Needs root.
"""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pandas as pd
from pyroute2 import IPRoute

import netlab
from netlab.kernel import netns
from netlab.schemas import CONNECTIONS

SPACE = "netlab-bench-gw"
ROWS, DESTINATIONS, ROUTES, RUNS = 10_000, 1_000, 20_000, 7
REMOTES = [f"10.9.{place // 250}.{place % 250 + 1}" for place in range(DESTINATIONS)]


def measure() -> list[tuple[str, float, str]]:
    with routed():
        frame = connections()
        with netlab.route_cache() as known:
            tasks: dict[str, Callable[[], object]] = {
                "with_gateway()": lambda: netlab.with_gateway(frame),
                "with a cache": lambda: netlab.with_gateway(frame, known=known),
                "ip -batch": ip_batch,
                "pyroute2": pyroute2,
                "routes()": lambda: netlab.routes(netns=SPACE),
                "ip -j route": lambda: ip("-j", "route", "show", "table", "all"),
            }
            times = timed(tasks)
    asked = "10,000 connections, 1,000 destinations"
    return [
        row(asked, times, "with_gateway()", "ip -batch", "ip answers the 1,000 and joins nothing"),
        row(asked, times, "pyroute2", "with_gateway()", "pyroute2 answers the 1,000 and joins nothing"),
        row(asked, times, "with a cache", "with_gateway()", "nothing changed in between"),
        row("20,000 routes", times, "routes()", "ip -j route", "to a DataFrame / to JSON"),
    ]


def row(what: str, times: dict[str, list[float]], one: str, other: str, note: str) -> tuple[str, float, str]:
    ratio = statistics.median(first / second for first, second in zip(times[one], times[other], strict=True))
    first, second = (1000 * statistics.median(times[name]) for name in (one, other))
    return f"{what}: {one} / {other}", ratio, f"{first:.0f} ms / {second:.0f} ms; {note}"


def timed(tasks: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Run every task in turn, RUNS times after one to warm up, and return the seconds it took."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for run in range(RUNS + 1):
        for name, task in tasks.items():
            start = time.perf_counter()
            task()
            if run:
                times[name].append(time.perf_counter() - start)
    return times


def ip(*arguments: str, text: str = "") -> str:
    command = ["ip", "-n", SPACE, *arguments]
    return subprocess.run(command, input=text, text=True, check=True, capture_output=True).stdout


def ip_batch() -> None:
    told = ip("-batch", "-", text="\n".join(f"route get {remote} from 10.9.255.1" for remote in REMOTES))
    assert told.count("via 10.9.255.2") == DESTINATIONS


def pyroute2() -> None:
    with netns.entered(SPACE):
        kernel = IPRoute()
    with kernel:
        found = [kernel.route("get", dst=remote, src="10.9.255.1")[0] for remote in REMOTES]
    assert len(found) == DESTINATIONS


def connections() -> pd.DataFrame:
    columns = {
        "protocol": ["tcp"] * ROWS,
        "netns": [netns.inode(SPACE)] * ROWS,
        "local_address": ["10.9.255.1"] * ROWS,
        "local_port": range(20_000, 20_000 + ROWS),
        "remote_address": [REMOTES[place % DESTINATIONS] for place in range(ROWS)],
        "remote_port": [443] * ROWS,
    }
    return CONNECTIONS.frame({name: list(values) for name, values in columns.items()})


@contextmanager
def routed() -> Iterator[None]:
    """Make a namespace with many routes, all by one bridge."""
    subprocess.run(["ip", "netns", "add", SPACE], check=True)
    try:
        ip("link", "add", "out", "type", "bridge")
        ip("link", "set", "out", "up")
        ip("address", "add", "10.9.255.1/24", "dev", "out")
        networks = ["10.9.0.0/17", *(f"11.{place // 250}.{place % 250}.0/24" for place in range(ROUTES))]
        ip("-batch", "-", text="\n".join(f"route add {network} via 10.9.255.2" for network in networks))
        yield
    finally:
        subprocess.run(["ip", "netns", "del", SPACE], check=True)
