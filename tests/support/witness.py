"""Has a test run again where the kernel left eBPF programs out while it ran, which another tracer saw.

Kernels of some virtual machines run no tracing program (raw tracepoint, tracepoint, perf event) in place of a
thread of process 1, the machine's own agent: a connection that a timer ends just then ends unseen. ftrace is
not left out, and says which process was there.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol

_EVENT = "events/sock/inet_sock_set_state"
_CLOSED = "newstate == 7"  # TCP_CLOSE
_IN_PLACE_OF = re.compile(r"^.{16}-(\d+) ", re.MULTILINE)
_AGENT = Path("/proc/1/task")

AGAIN = "run again"


class Witness:
    """Counts the connections that ended in place of a thread of process 1; see `witness()`."""

    def __init__(self, trace: Path) -> None:
        self._trace = trace
        self._module: object = None

    def begin(self, item: pytest.Item) -> None:
        """Count from here on, if *item* is of another module than the last one."""
        module = item.getparent(pytest.Module)
        if module is not self._module:
            self._module = module
            self._trace.write_text("\n", encoding="ascii")

    def left_out(self) -> int:
        """Return how many ends no program can have seen."""
        agent = {thread.name for thread in _AGENT.iterdir()}
        changes = self._trace.read_text(encoding="utf-8", errors="replace")
        return sum(thread in agent for thread in _IN_PLACE_OF.findall(changes))


@contextmanager
def witness() -> Iterator[Witness]:
    """Have ftrace follow how connections end, as long as the block lasts."""
    with tempfile.TemporaryDirectory() as place, ExitStack() as held:
        subprocess.run(["mount", "-t", "tracefs", "nodev", place], check=True)
        held.callback(subprocess.run, ["umount", place], check=True)
        instance = Path(place, "instances", Path(place).name)
        instance.mkdir()
        held.callback(instance.rmdir)
        (instance / _EVENT / "filter").write_text(_CLOSED, encoding="ascii")
        (instance / _EVENT / "enable").write_text("1", encoding="ascii")
        yield Witness(instance / "trace")


def run(item: pytest.Item, nextitem: pytest.Item | None, seen_by: Witness) -> None:
    """Run a test; once more, with new fixtures, if it fails and ends were left out since its module began."""
    seen_by.begin(item)
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = runtestprotocol(item, nextitem=nextitem, log=False)
    if any(report.failed for report in reports) and seen_by.left_out():
        for report in reports:
            if report.failed:
                report.outcome = AGAIN  # type: ignore[assignment]
                item.ihook.pytest_runtest_logreport(report=report)
        item.session._setupstate.teardown_exact(None)
        item._initrequest()  # type: ignore[attr-defined]
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
