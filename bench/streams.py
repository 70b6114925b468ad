"""What a capture costs traffic that flows: one TCP stream and small UDP packets, by iperf3 in a namespace."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import netlab
from bench.pairs import interleaved

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
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
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


def bits_per_second() -> float:
    """Send one TCP stream as fast as it goes."""
    return float(_iperf3()["sum_received"]["bits_per_second"])


def packets_per_second() -> float:
    """Send UDP packets as fast as it goes; on loopback the sender does the receiver's work too."""
    sent = _iperf3("--udp", "--bitrate", "0", "--length", str(PAYLOAD_BYTES))["sum"]
    return float(sent["packets"] / sent["seconds"])


def measure() -> list[tuple[str, float, str]]:
    with server():
        stream = interleaved(bits_per_second, netlab.capture, PAIRS)
        packets = interleaved(packets_per_second, netlab.capture, PAIRS)
    ran = f"medians of {PAIRS} pairs of {SECONDS} s"
    return [
        (
            "iperf3 TCP stream: throughput alone / with netlab.capture()",
            stream.alone / stream.watched,
            f"{stream.alone / 1e9:.1f} / {stream.watched / 1e9:.1f} Gbit/s; {ran}; target 1.01",
        ),
        (
            f"iperf3 UDP, {PAYLOAD_BYTES} bytes: packet rate alone / with netlab.capture()",
            packets.alone / packets.watched,
            f"{packets.alone / 1e3:.0f} / {packets.watched / 1e3:.0f} thousand a second; {ran}",
        ),
    ]


if __name__ == "__main__":
    print(*measure(), sep="\n")
