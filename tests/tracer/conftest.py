"""Servers for captures to watch, which the tests of a module find at the same ports.

A filter's port is in the text of the programs, so that another port means to compile them again.
"""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Iterator

import pytest
from loopback import Echo, serve


@pytest.fixture(scope="module")
def ports() -> tuple[int, int]:
    """Return two ports that are nobody's, below those that the kernel gives to clients."""
    free: list[int] = []
    while len(free) < 2:
        with contextlib.suppress(OSError), listening(random.randrange(10_000, 30_000)) as listener:
            free.append(listener.getsockname()[1])
    return free[0], free[1]


def listening(port: int) -> socket.socket:
    return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=4096)


@pytest.fixture
def echo(ports: tuple[int, int]) -> Iterator[Echo]:
    listener = listening(ports[0])
    server = Echo(ports[0], [])
    thread = threading.Thread(target=serve, args=(listener, server.received), daemon=True)
    thread.start()
    yield server
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


@pytest.fixture
def closed_port(ports: tuple[int, int]) -> int:
    """Return a port of loopback where nothing listens."""
    return ports[1]
