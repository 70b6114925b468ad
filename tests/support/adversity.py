"""Two network namespaces, and a way between them on which packets get lost, doubled and overtaken."""

from __future__ import annotations

import contextlib
import heapq
import os
import random
import select
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from netlab.kernel import netns
from netlab.lab.internet.device import NAME, open_tun

HOSTS = {4: ("10.77.0.1", "10.77.0.2"), 6: ("fd77::1", "fd77::2")}  # client, server
_LINK = {4: 24, 6: 64}
_LOST, _DOUBLED, _LATE = 0.03, 0.03, 0.2  # shares of packets
_MOST_LATE_S = 0.004  # some ten packets overtake


@dataclass
class Way:
    """The namespaces, and what happened between them."""

    client: str
    server: str
    fates: dict[str, int] = field(default_factory=lambda: {"lost": 0, "doubled": 0, "late": 0, "passed": 0})

    def connect(self, family: int, port: int) -> socket.socket:
        """Return a socket of the client's namespace that is connected to the server's."""
        with netns.entered(self.client):
            one = socket.socket(socket.AF_INET6 if family == 6 else socket.AF_INET)
        one.settimeout(60)
        one.connect((HOSTS[family][1], port))
        return one

    def listener(self, family: int) -> socket.socket:
        """Return a socket of the server's namespace that listens."""
        with netns.entered(self.server):
            one = socket.socket(socket.AF_INET6 if family == 6 else socket.AF_INET)
        one.bind((HOSTS[family][1], 0))
        one.listen()
        return one


@contextlib.contextmanager
def bad_way(seed: int) -> Iterator[Way]:
    """Make the namespaces and carry their packets as long as the block lasts."""
    way = Way(*(f"netlab-test-{end}-{os.getpid()}" for end in ("client", "server")))
    tuns = []
    stop, stopped = os.pipe()
    try:
        for end, name in enumerate((way.client, way.server)):
            subprocess.run(["ip", "netns", "add", name], check=True)
            with netns.entered(name):
                tuns.append(open_tun())
            for family, hosts in HOSTS.items():
                where = ["address", "add", f"{hosts[end]}/{_LINK[family]}", "dev", NAME]
                subprocess.run(["ip", "-n", name, *where, *(["nodad"] * (family == 6))], check=True)
            subprocess.run(["ip", "-n", name, "link", "set", NAME, "up"], check=True)
        carrier = threading.Thread(target=_carry, args=(tuns, stop, random.Random(seed), way.fates))
        carrier.start()
        try:
            yield way
        finally:
            os.write(stopped, b"x")
            carrier.join()
    finally:
        for descriptor in (*tuns, stop, stopped):
            os.close(descriptor)
        for name in (way.client, way.server):
            subprocess.run(["ip", "netns", "del", name], check=False)


def _carry(tuns: list[int], stop: int, chance: random.Random, fates: dict[str, int]) -> None:
    late: list[tuple[float, int, int, bytes]] = []  # when it is due, a number, to whom, the packet
    number = 0
    while True:
        wait = max(0, late[0][0] - time.monotonic()) if late else None
        ready, _, _ = select.select([*tuns, stop], [], [], wait)
        if stop in ready:
            return
        while late and late[0][0] <= time.monotonic():
            _, _, target, packet = heapq.heappop(late)
            os.write(target, packet)
        for source in ready:
            packet, target = os.read(source, 65536), tuns[1 - tuns.index(source)]
            number += 1
            drawn = chance.random()
            if drawn < _LOST:
                fates["lost"] += 1
            elif drawn < _LOST + _LATE:
                fates["late"] += 1
                due = time.monotonic() + chance.uniform(0, _MOST_LATE_S)
                heapq.heappush(late, (due, number, target, packet))
            else:
                is_doubled = drawn > 1 - _DOUBLED
                fates["doubled" if is_doubled else "passed"] += 1
                for _ in range(1 + is_doubled):
                    os.write(target, packet)
