"""What a capture costs those it watches, with tcplife beside it."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self, TypeAlias

import netlab
from bench.load import CONNECTIONS, STREAM_BYTES
from bench.pairs import Watch, interleaved

ROUNDS, PINNED_ROUNDS = 9, 31
Cores: TypeAlias = tuple[int, ...]
# It needs tracefs, which not every host has mounted; its own mount namespace leaves the host as it was.
_TCPLIFE = "mount -t tracefs tracefs /sys/kernel/tracing && exec $0"


class Load:
    """A server and its client in a process apart from the capture: what that costs is theirs alone.

    *cores* are the server's and the client's.
    """

    def __init__(self, *cores: int) -> None:
        self._cores = cores

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "bench.load", *map(str, self._cores)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def seconds(self, work: str) -> tuple[float, float]:
        """Return the time and the CPU time that *work* takes."""
        assert self._process.stdin
        assert self._process.stdout
        print(work, file=self._process.stdin, flush=True)
        time_s, cpu_s = map(float, self._process.stdout.readline().split())
        return time_s, cpu_s


def _compared(
    work: str,
    watch: Watch,
    watcher: str,
    note: str,
    *,
    rounds: int = ROUNDS,
    where: str = "",
    cores: Cores = (),
) -> list[tuple[str, float, str]]:
    """Compare the time and the CPU time of the work, both of its ends together."""
    with Load(*cores) as load:
        pairs = interleaved(lambda: load.seconds(work), watch, rounds)
    return [
        (
            f"{work}{where}, {kind}: with {watcher} / alone",
            watched / alone,
            f"{watched:.2f} / {alone:.2f} s; {note}",
        )
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


def _programs(work: str) -> list[tuple[str, float, str]]:
    """Tell what the programs themselves take of each connection; to time a run takes most of a short one."""
    with Load() as load, netlab.capture(cost=True) as capture:
        load.seconds(work)
        before = capture.cost().set_index("program")[["runs", "run_ms"]]
        load.seconds(work)
        used = (capture.cost().set_index("program")[["runs", "run_ms"]] - before).dropna()
    used = used[used["runs"] > 0].astype(float)
    ns = used["run_ms"] * 1e6 / CONNECTIONS
    whole = (f"{work}: programs' ns per connection, both ends", ns.sum(), f"{len(used)} programs that ran")
    each = [
        (
            f"{work}: {name} / all programs",
            ns[name] / ns.sum(),
            f"{row.runs / CONNECTIONS:.1f} runs of {row.run_ms * 1e6 / row.runs:.0f} ns",
        )
        for name, row in used.iterrows()
    ]
    return [whole, *each]


def measure() -> list[tuple[str, float, str]]:
    cores = os.sched_getaffinity(0)
    first, last = min(cores), max(cores)
    many, much = f"{CONNECTIONS} connections by a Python client", f"{STREAM_BYTES >> 30} GiB over loopback"
    return [
        *_compared("connect and close", netlab.capture, "netlab.capture()", f"{many}; target 1.05"),
        *itertools.chain.from_iterable(
            _compared(
                "connect and close",
                netlab.capture,
                "netlab.capture()",
                f"{many}; target 1.05; {PINNED_ROUNDS} pairs",
                rounds=PINNED_ROUNDS,
                where=where,
                cores=pinned,
            )
            for where, pinned in ((" on one core", (last, last)), (" on a core each", (first, last)))
        ),
        *_compared("connect and close", tcplife, "tcplife", many),
        *_programs("connect and close"),
        *_compared("bulk stream", netlab.capture, "netlab.capture()", f"{much}; target 1.01"),
        *_compared("bulk stream", tcplife, "tcplife", much),
    ]


if __name__ == "__main__":
    print(*measure(), sep="\n")
