"""What a capture costs traffic that flows: one TCP stream and small UDP packets, by iperf3 in a namespace."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import netlab
from bench.pairs import Pairs, interleaved

PAIRS, SECONDS = 7, 3
PAYLOAD_BYTES = 64
_SPACE = "netlab-bench-iperf"


@contextmanager
def server() -> Iterator[None]:
    """Run the iperf3 server in a network namespace of its own."""
    assert shutil.which("iperf3"), "run: apt-get install iperf3"
    subprocess.run(["ip", "netns", "add", _SPACE], check=True)
    try:
        subprocess.run(["ip", "-n", _SPACE, "link", "set", "lo", "up"], check=True)
        command = ["ip", "netns", "exec", _SPACE, "iperf3", "--server", "--forceflush"]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stdout
            try:
                next(line for line in process.stdout if "listening" in line)
                process.stdout.close()
                yield
            finally:
                process.terminate()
    finally:
        subprocess.run(["ip", "netns", "del", _SPACE], check=True)


def _iperf3(*options: str) -> Any:
    """Return what the client says at the end of its run."""
    client = ["iperf3", "--client", "127.0.0.1", "--time", str(SECONDS), "--interval", "0", "--json"]
    run = subprocess.run(
        ["ip", "netns", "exec", _SPACE, *client, *options], check=True, stdout=subprocess.PIPE
    )
    return json.loads(run.stdout)["end"]


def bits() -> tuple[float, float]:
    """Send one TCP stream as fast as it goes; return the bits in a second, and in a second of CPU time."""
    end = _iperf3()
    rate = float(end["sum_received"]["bits_per_second"])
    return rate, rate / _cpus(end)


def packets() -> tuple[float, float]:
    """Send UDP packets as fast as it goes; return how many in a second, and in a second of CPU time."""
    end = _iperf3("--udp", "--bitrate", "0", "--length", str(PAYLOAD_BYTES))
    rate = float(end["sum"]["packets"] / end["sum"]["seconds"])
    return rate, rate / _cpus(end)


def _cpus(end: Any) -> float:
    """Return how many CPUs the client and the server kept busy: others on the machine do not change it."""
    used = end["cpu_utilization_percent"]
    return float(used["host_total"] + used["remote_total"]) / 100


def measure() -> list[tuple[str, float, str]]:
    with server():
        stream = interleaved(bits, netlab.capture, PAIRS)
        small = interleaved(packets, netlab.capture, PAIRS)
    return [
        *_rows("iperf3 TCP stream", stream, 1e9, "Gbit", "; target 1.01"),
        *_rows(f"iperf3 UDP, {PAYLOAD_BYTES} bytes", small, 1e3, "thousand packets", "; aim 1.10"),
    ]


def _rows(what: str, pairs: Pairs, unit: float, name: str, target: str = "") -> list[tuple[str, float, str]]:
    per = ("second", "second of CPU time")
    return [
        (
            f"{what}, per {time}: alone / with netlab.capture()",
            alone / watched,
            f"{alone / unit:.1f} / {watched / unit:.1f} {name}; {PAIRS} pairs of {SECONDS} s{target}",
        )
        for time, alone, watched in zip(per, pairs.alone, pairs.watched, strict=True)
    ]


if __name__ == "__main__":
    print(*measure(), sep="\n")
