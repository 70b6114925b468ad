"""New UDP flows at a steady rate, each from a port and address of its own: `python storm.py FLOWS RATE`.

Run inside the network namespace that shall track them.
"""

from __future__ import annotations

import socket
import sys
import time

PORTS = 50_000  # for each of the addresses 127.0.1.1, 127.0.1.2 …


def target(number: int) -> tuple[str, int]:
    """Return where flow *number* goes."""
    return f"127.0.1.{1 + number // PORTS}", 10_000 + number % PORTS


def main(flows: int, rate: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("127.0.0.1", 9))
        start = time.monotonic()
        for number in range(flows):
            sender.sendto(b"x", target(number))
            if number % 100 == 99:
                time.sleep(max(0.0, start + (number + 1) / rate - time.monotonic()))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
