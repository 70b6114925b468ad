"""What all tests share: privileged tests are skipped by name and reason, for ordinary users only."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack

import pytest
import witness
from hypothesis import settings

# How long an example takes says how busy the machine is.
settings.register_profile("netlab", deadline=None)
settings.load_profile("netlab")

# Else gRPC's handlers run in the child of each fork, which is one of many threads there: it dies now and then
# before it is the program that it was made for.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

SEEN_BY = pytest.StashKey[witness.Witness]()


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


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    if os.geteuid() != 0 or not item.get_closest_marker("privileged"):
        return None
    if SEEN_BY not in item.config.stash:
        held = ExitStack()
        item.config.add_cleanup(held.close)
        item.config.stash[SEEN_BY] = held.enter_context(witness.witness())
    witness.run(item, nextitem, item.config.stash[SEEN_BY])
    return True


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    return (witness.AGAIN, "A", "AGAIN") if report.outcome == witness.AGAIN else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for report in terminalreporter.stats.get(witness.AGAIN, []):
        terminalreporter.write_line(f"run again, the kernel had left programs out: {report.nodeid}")
