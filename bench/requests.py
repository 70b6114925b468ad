"""What reading HTTP costs the server that is read: nginx at a fixed rate, alone and with a capture, in turn.

`python -m bench.requests 60` keeps the first load up for a minute. The client is beyond a wire, and not read.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import pandas as pd

import netlab
from netlab.frames import Cause

PAIRS, SECONDS = 5, 3.0
RATE_PER_S, CLIENTS = 5_000, 50
PAGE, LEAST = "index.html", "least"  # a page from disk, logged, as Debian's nginx is set up; the least work
PAGE_BYTES = 612
_SPACE, _CLIENTS = "netlab-bench-http", "netlab-bench-asks"
_ADDRESS, _THEIRS, _PORT = "192.0.2.1", "192.0.2.2", 8080
_CONFIG = """
daemon off; worker_processes 1; pid {place}/pid; error_log stderr crit;
events {{ worker_connections 512; }}
http {{
    access_log {place}/access; keepalive_requests 100000000;
    server {{
        listen {address}:{port}; root {place};
        location = /least {{ access_log off; return 200 "hello"; }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What the client and the kernel say of one load."""

    made: int
    per_s: float
    median_us: float  # from a request to its answer
    server_us: float  # CPU time of the server, for each request


@dataclass(frozen=True, slots=True)
class Watched:
    """A load with a capture beside it, and what the capture has of it."""

    load: Load
    cpu_us: float  # of netlab, for each request
    grown_bytes: int
    rows: int
    dropped: int  # rows that made room for others
    lost: int  # packets


@dataclass(frozen=True, slots=True)
class Server:
    """An nginx that has one worker, in a network namespace of its own."""

    worker: int
    place: Path

    def load(self, seconds: float, path: str = LEAST, *, fixed: bool) -> Load:
        """Make requests at the fixed rate for so many *seconds*, or five times as many as fast as it goes."""
        count, log = int(RATE_PER_S * seconds) * (1 if fixed else 5), self.place / "log"
        log.unlink(missing_ok=True)
        rate = (f"--rps={RATE_PER_S / CLIENTS}", "-r5", "--rate-period=1ms") if fixed else ()
        sizes = (f"--clients={CLIENTS}", f"--requests={count}", f"--log-file={log}")
        command = ["h2load", "--h1", *sizes, *rate, f"http://{_ADDRESS}:{_PORT}/{path}"]
        before_ns = self._ran_ns()
        run = subprocess.run(_inside(command, _CLIENTS), check=True, stdout=subprocess.PIPE, text=True)
        ran_ns = self._ran_ns() - before_ns
        made, per_s = _number(r"(\d+) succeeded", run.stdout), _number(r"([\d.]+) req/s", run.stdout)
        took_us = [int(line.split("\t")[2]) for line in log.read_text(encoding="ascii").splitlines()]
        return Load(int(made), per_s, median(took_us), ran_ns / 1e3 / made)

    def _ran_ns(self) -> int:
        return int(Path(f"/proc/{self.worker}/schedstat").read_text(encoding="ascii").split()[0])


def _number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    assert found, f"h2load said: {text}"
    return float(found[1])


def _inside(command: list[str], space: str = _SPACE) -> list[str]:
    return ["ip", "netns", "exec", space, *command]


@contextmanager
def _wire() -> Iterator[None]:
    """Make the two namespaces, with a wire between them."""
    ends = {_SPACE: ("serves", _ADDRESS), _CLIENTS: ("asks", _THEIRS)}
    (one, (here, _)), (other, (there, _)) = ends.items()
    made = []
    try:
        for space in ends:
            subprocess.run(["ip", "netns", "add", space], check=True)
            made.append(space)
        wire = ["type", "veth", "peer", "name", there, "netns", other]
        subprocess.run(["ip", "-n", one, "link", "add", here, *wire], check=True)
        for space, (link, address) in ends.items():
            subprocess.run(["ip", "-n", space, "addr", "add", f"{address}/24", "dev", link], check=True)
            subprocess.run(["ip", "-n", space, "link", "set", link, "up"], check=True)
        yield
    finally:
        for space in made:
            subprocess.run(["ip", "netns", "del", space], check=True)


@contextmanager
def server() -> Iterator[Server]:
    """Run the server."""
    for program, package in (("nginx", "nginx-light"), ("h2load", "nghttp2-client")):
        assert shutil.which(program), f"run: apt-get install {package}"
    with _wire(), tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)  # its worker is another user
        (place / PAGE).write_text("x" * PAGE_BYTES, encoding="ascii")
        config = place / "nginx.conf"
        config.write_text(_CONFIG.format(place=place, address=_ADDRESS, port=_PORT), encoding="utf-8")
        with subprocess.Popen(_inside(["nginx", "-c", str(config), "-e", "stderr"])) as master:
            try:
                yield Server(_worker(master.pid), place)
            finally:
                master.terminate()


def _worker(master: int) -> int:
    children = Path(f"/proc/{master}/task/{master}/children")
    deadline = time.monotonic() + 30
    while not (found := children.read_text(encoding="ascii").split()):
        assert time.monotonic() < deadline, "nginx did not start"
        time.sleep(0.01)
    return int(found[0])


def watched(web: Server, seconds: float, path: str, *, fixed: bool) -> Watched:
    """Load the server while a capture reads it."""
    before_bytes = _resident_bytes()
    with netlab.capture(protocols="http", netns=_SPACE) as capture:
        before_s = time.process_time()
        load = web.load(seconds, path, fixed=fixed)
        cpu_s = time.process_time() - before_s
        grown_bytes = _resident_bytes() - before_bytes
    rows = capture.requests("http")
    return Watched(load, cpu_s * 1e6 / load.made, grown_bytes, len(rows), _dropped(rows), _lost(rows))


def _dropped(rows: pd.DataFrame) -> int:
    return _missing(rows, Cause.LET_GO)


def _lost(rows: pd.DataFrame) -> int:
    return _missing(rows, Cause.RING_FULL)


def _missing(rows: pd.DataFrame, cause: Cause) -> int:
    """Return how much the coverage says is missing by *cause*."""
    return sum(gap["count"] for gap in rows.attrs["coverage"] if gap["cause"] == cause)


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096


def _pairs(web: Server, seconds: float, path: str, *, fixed: bool) -> tuple[list[Load], list[Watched]]:
    alone, read = [], []
    watched(web, 1, path, fixed=fixed)
    for _ in range(PAIRS if seconds < 60 else 1):
        alone.append(web.load(seconds, path, fixed=fixed))
        read.append(watched(web, seconds, path, fixed=fixed))
    return alone, read


def measure(seconds: float = SECONDS) -> list[tuple[str, float, str]]:
    with server() as web:
        page = _pairs(web, seconds, PAGE, fixed=True)
        least = _pairs(web, SECONDS, LEAST, fixed=True)
        fast = _pairs(web, SECONDS, PAGE, fixed=False)
    return [
        *_rows(f"nginx, a page at {RATE_PER_S:,}/s", *page),
        *_rows(f"nginx, the least at {RATE_PER_S:,}/s", *least),
        *_rows("nginx, a page at full speed", *fast),
    ]


def _rows(what: str, alone: list[Load], read: list[Watched]) -> list[tuple[str, float, str]]:
    pairs = f"{len(alone)} pairs of {alone[0].made:,} requests"
    theirs = [one.load for one in read]
    made = sum(one.made for one in theirs)
    rows, dropped, lost = (sum(getattr(one, name) for one in read) for name in ("rows", "dropped", "lost"))
    per_s, own_us = median(one.per_s for one in theirs), median(one.cpu_us for one in read)
    grown = max(one.grown_bytes for one in read) / 2**20
    compared = [
        _compared(f"{what}: {name}, with a capture / alone", alone, theirs, field, f"{pairs}{target}")
        for name, field, target in (
            ("its CPU time per request", "server_us", "; target 1.05"),
            ("median time of a request", "median_us", ""),
        )
    ]
    return [
        *compared,
        (f"{what}: requests/s, alone / with", median(one.per_s for one in alone) / per_s, pairs),
        (
            f"{what}: CPUs that netlab takes",
            own_us * per_s / 1e6,
            f"{own_us:.1f} µs per request; at most {grown:.0f} MiB more than before",
        ),
        (
            f"{what}: rows kept and dropped / requests",
            (rows + dropped) / made,
            f"{rows:,} + {dropped:,} / {made:,}; {lost:,} packets lost and counted",
        ),
    ]


def _compared(
    what: str, alone: list[Load], theirs: list[Load], field: str, note: str
) -> tuple[str, float, str]:
    """Return the median of the pairs' ratios."""
    pairs = [(getattr(one, field), getattr(other, field)) for one, other in zip(alone, theirs, strict=True)]
    before, after = (median(values) for values in zip(*pairs, strict=True))
    return what, median(after / before for before, after in pairs), f"{after:.1f} / {before:.1f} µs; {note}"


if __name__ == "__main__":
    print(*measure(*map(float, sys.argv[1:])), sep="\n")
