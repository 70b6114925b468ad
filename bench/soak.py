"""A capture left running: what its process holds, minute by minute, idle or under steady load.

`python -m bench soak --minutes 10 --rate 1000`, or `python -m bench soak --minutes 60 --idle`. Needs root.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import netlab
from bench.programs import SERVER, python

KEPT = 100_000  # closed attempts: full after a minute of 1,000 connections a second, each of two ends
READ_EVERY_S = 1.0
WARM_UP_MINUTES = 2
MB = 1e6

# Many addresses: one has not enough ports for what waits in TIME_WAIT.
_CLIENT = """
    import itertools, socket, sys, time
    port, rate = map(int, sys.argv[1:])
    start = time.monotonic()
    for number in itertools.count():
        client = socket.create_connection((f"127.0.7.{number % 250 + 1}", port))
        client.recv(1)
        client.close()
        time.sleep(max(0, start + number / rate - time.monotonic()))
"""


@dataclass(frozen=True, slots=True)
class Holding:
    """What a process holds at one moment."""

    resident_bytes: int
    descriptors: int
    threads: int

    @classmethod
    def now(cls) -> Holding:
        """Return what this process holds."""
        home = Path("/proc/self")
        pages = int((home / "statm").read_text(encoding="ascii").split()[1])
        threads = len(list((home / "task").iterdir()))
        descriptors = len(list((home / "fd").iterdir())) - 1  # one is that of this very list
        return cls(pages * os.sysconf("SC_PAGE_SIZE"), descriptors, threads)


@contextlib.contextmanager
def load(rate: int) -> Iterator[int]:
    """Open and close *rate* connections a second to the port returned, in two other processes.

    At rate 0 it is a port that nobody uses: what else the host does is then not in the capture.
    """
    if not rate:
        with socket.create_server(("127.0.0.1", 0)) as unused:
            yield unused.getsockname()[1]
        return
    with python(SERVER) as server:
        assert server.stdout
        port = int(server.stdout.readline())
        with python(_CLIENT, port, rate) as client:
            try:
                yield port
            finally:
                client.terminate()
                server.terminate()


def soak(minutes: int, rate: int) -> list[Holding]:
    """Print what the process holds in each minute, and return the medians.

    "at once" is the most rows that one look had: when the machine stalls, the next look has more to hold.
    """
    held = []
    print("minute   RSS MB  descriptors  threads   rows/s  at once  CPU %")
    with load(rate) as port, netlab.capture(port=port, max_closed=KEPT) as capture:
        capture.register("soak")
        for minute in range(1, minutes + 1):
            told, samples = [], []
            spent, start = time.process_time(), time.monotonic()
            while time.monotonic() < start + 60:
                time.sleep(READ_EVERY_S)
                told.append(len(capture.delta("soak")))
                samples.append(Holding.now())
            held.append(_middle(samples))
            cpu, elapsed = 100 * (time.process_time() - spent) / 60, time.monotonic() - start
            one = held[-1]
            print(
                f"{minute:>6} {one.resident_bytes / MB:>8.1f} {one.descriptors:>12} {one.threads:>8} "
                f"{sum(told) / elapsed:>8.0f} {max(told):>8} {cpu:>6.1f}",
                flush=True,
            )
    return held


def _middle(samples: Sequence[Holding]) -> Holding:
    """Return the median memory, and the most descriptors and threads."""
    return Holding(
        round(statistics.median(sample.resident_bytes for sample in samples)),
        max(sample.descriptors for sample in samples),
        max(sample.threads for sample in samples),
    )


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench soak", description=__doc__)
    parser.add_argument("--minutes", type=int, default=10)
    parser.add_argument("--rate", type=int, default=1_000, help="connections per second")
    parser.add_argument("--idle", action="store_true", help="no connections but the host's own")
    options = parser.parse_args(arguments)
    if options.minutes < WARM_UP_MINUTES + 2:
        parser.error(f"a slope takes {WARM_UP_MINUTES + 2} minutes at least")
    held = soak(options.minutes, 0 if options.idle else options.rate)
    warm = held[WARM_UP_MINUTES:]
    first, last = warm[0], warm[-1]
    slope = statistics.linear_regression(range(len(warm)), [one.resident_bytes / MB for one in warm]).slope
    print(f"RSS at the end / after warm-up: {last.resident_bytes / first.resident_bytes:.3f}")
    print(f"slope after warm-up: {slope:+.2f} MB a minute")
    for what in ("descriptors", "threads"):
        print(f"{what} after warm-up and at the end: {getattr(first, what)}, {getattr(last, what)}")


if __name__ == "__main__":
    main(sys.argv[1:])
