"""What all tests share: privileged tests are skipped by name and reason, for ordinary users only."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import settings

# How long an example takes says how busy the machine is.
settings.register_profile("netlab", deadline=None)
settings.load_profile("netlab")

# Else gRPC's handlers run in the child of each fork, which is one of many threads there: it dies now and then
# before it is the program that it was made for.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"


def pytest_configure() -> None:
    """Let SIGINT interrupt, here and in what the tests start: a shell's background jobs ignore it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    skip = pytest.mark.skip(reason="privileged: run the tests as root to include it")
    for item in items:
        if item.get_closest_marker("privileged"):
            item.add_marker(skip)
