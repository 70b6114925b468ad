"""Many clients at once: each is told every byte once, whatever the others ask for meanwhile."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

import netlab

pytestmark = pytest.mark.privileged
CLIENTS = int(os.environ.get("NETLAB_CLIENTS", "16"))
CONNECTIONS = 300


@pytest.fixture
def server() -> Iterator[int]:
    """Yield the port of a server that reads to the end of each connection."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:

        def serve() -> None:
            for _ in range(CONNECTIONS):
                accepted, _ = listener.accept()
                with accepted:
                    while accepted.recv(1 << 16):
                        pass

        serving = threading.Thread(target=serve)
        serving.start()
        yield listener.getsockname()[1]
        serving.join()


def send(port: int) -> int:
    """Send something over each of the connections; return how many bytes they were."""
    dice, total = random.Random(7), 0
    for _ in range(CONNECTIONS):
        with socket.create_connection(("127.0.0.1", port)) as client:
            for _ in range(2):
                total += client.send(bytes(dice.randrange(1, 1000)))
    return total


def told(agent: Path, name: str, port: int, ready: threading.Barrier) -> tuple[int, int, int]:
    """Ask until every connection was told as closed; return how many were, how many twice, and bytes."""
    dice, seen = random.Random(name), []
    with netlab.connect(agent) as host:
        host.register(name)
        ready.wait(60)
        until_s = time.monotonic() + 120
        while time.monotonic() < until_s:
            if dice.random() < 1 / 4:  # an answer gets lost on its way
                host.frame("/connections", client=name, after=host._answers[name])
            delta = host.delta(name)
            seen.append(delta[(delta["remote_port"] == port) & (delta["direction"] == "outgoing")])
            rows = pd.concat(seen)
            closed = rows[rows["closed_at"].notna()]
            if len(closed) >= CONNECTIONS:
                break
            time.sleep(dice.uniform(0, CLIENTS / 50))
    return len(closed), int(closed["cookie"].duplicated().sum()), int(rows["delta_bytes_sent"].sum())


def test_each_of_many_clients_is_told_every_connection_and_every_byte_once(agent: Path, server: int) -> None:
    ready = threading.Barrier(CLIENTS + 1)
    with ThreadPoolExecutor(CLIENTS) as pool:
        asked = [pool.submit(told, agent, f"client {n}", server, ready) for n in range(CLIENTS)]
        ready.wait(60)
        sent = send(server)
        answers = {one.result() for one in asked}

    assert answers == {(CONNECTIONS, 0, sent)}
