"""Servers for captures to watch."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
from loopback import Echo, serve


@pytest.fixture
def echo() -> Iterator[Echo]:
    listener = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=4096)
    server = Echo(listener.getsockname()[1], [])
    thread = threading.Thread(target=serve, args=(listener, server.received), daemon=True)
    thread.start()
    yield server
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


@pytest.fixture
def closed_port() -> int:
    """A port of loopback where nothing listens: bound and released just now."""
    with socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::", 0))
        return int(probe.getsockname()[1])
