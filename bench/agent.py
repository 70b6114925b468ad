"""The agent: what changed by its socket as Arrow and as JSON, and how soon a capture of its runs.

The agent is a process of its own, as `netlab agent` runs it; what changed are connections on loopback, made
and closed between two calls. Needs root.
"""

from __future__ import annotations

import contextlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

import netlab
from bench import load
from netlab.agent.client import Host

ROWS = 50_000  # each connection is one of the client's and one of the server's
RUNS = 5
COMMAND = [sys.executable, "-c", "from netlab.cli import main; raise SystemExit(main())", "agent"]


def measure() -> list[tuple[str, float, str]]:
    with _agent() as path, netlab.connect(path) as host:
        first = _started(host)
        return [*_formats(host, path), *_starts(host, first)]


def _formats(host: Host, path: Path) -> list[tuple[str, float, str]]:
    seconds: dict[str, list[float]] = {"Arrow": [], "JSON": []}
    with load.server() as port, _web(path) as web:
        host.register("arrow")
        host.register("json")
        for _ in range(RUNS):
            for _ in range(-(-ROWS // 2 // load.CONNECTIONS)):
                load.connect_and_close(port)
            time.sleep(0.2)  # the last ones' close is reported a moment later
            begun_s = time.perf_counter()
            rows = len(host.delta("arrow"))
            seconds["Arrow"].append(time.perf_counter() - begun_s)
            begun_s = time.perf_counter()
            told = web.get("/connections", params={"client": "json"}).json()
            seconds["JSON"].append(time.perf_counter() - begun_s)
            assert min(rows, len(told["rows"])) >= ROWS, (rows, len(told["rows"]))
    arrow, json = (statistics.median(seconds[kind]) for kind in ("Arrow", "JSON"))
    ratio = statistics.median(two / one for one, two in zip(seconds["Arrow"], seconds["JSON"], strict=True))
    return [
        (f"/connections, {ROWS} rows: Arrow into a DataFrame / its target of 0.3 s", arrow / 0.3, _ms(arrow)),
        (f"/connections, {ROWS} rows: JSON into dicts / Arrow into a DataFrame", ratio, _ms(json)),
    ]


def _starts(host: Host, first_s: float) -> list[tuple[str, float, str]]:
    again_s = statistics.median(_started(host) for _ in range(RUNS))
    return [
        ("capture through the agent: first start / the target of 1.0 s", first_s, _ms(first_s)),
        ("capture through the agent: warm start / its target of 50 ms", again_s / 0.05, _ms(again_s)),
    ]


def _started(host: Host) -> float:
    begun_s = time.perf_counter()
    with host.capture(port=443):
        return time.perf_counter() - begun_s


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms; median of {RUNS}"


@contextlib.contextmanager
def _agent() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "agent.sock"
        process = subprocess.Popen([*COMMAND, "--socket", str(path)], stderr=subprocess.DEVNULL)
        try:
            while not path.exists():
                time.sleep(0.05)
            yield path
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def _web(path: Path) -> httpx.Client:
    return httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://agent", timeout=120)


if __name__ == "__main__":
    for what, ratio, detail in measure():
        print(f"{what:<78} {ratio:8.2f}  {detail}")
