"""The kernel's clock, and UTC."""

from __future__ import annotations

import subprocess
import sys
import time
from itertools import accumulate
from types import SimpleNamespace

import pytest

from netlab.kernel import clock, processes

_UTC_NS = 10_000_000_000  # at the boot of the clocks that stop


def test_utc_is_what_the_system_says() -> None:
    assert abs(clock.now_ns() + clock.to_utc_ns() - time.time_ns()) < 1_000_000_000


@pytest.mark.parametrize("pause", range(8))
def test_a_machine_that_stops_between_two_readings_moves_utc_by_nothing(
    pause: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = accumulate(5_000_000 if reading == pause else 100 for reading in range(9))
    clocks = SimpleNamespace(monotonic_ns=lambda: next(moments), time_ns=lambda: next(moments) + _UTC_NS)
    monkeypatch.setattr(clock, "time", clocks)

    assert abs(clock.to_utc_ns() - _UTC_NS) <= 100


@pytest.mark.privileged
def test_a_time_namespace_does_not_move_the_clock_of_programs() -> None:
    ask = "from netlab.kernel import clock; import time; print(clock.now_ns(), time.monotonic_ns())"
    inside = ["unshare", "--time", "--fork", "--monotonic", "100000", sys.executable, "-c", ask]
    before = clock.now_ns()
    moved = subprocess.run(inside, capture_output=True, text=True, check=True)
    programs, namespace = map(int, moved.stdout.split())
    assert before <= programs <= clock.now_ns()
    assert namespace - programs > 99_000 * 1_000_000_000


@pytest.mark.privileged
def test_a_time_namespace_does_not_move_the_start_of_processes() -> None:
    ask = "from netlab.kernel import processes; print(processes.describe([1])[1].started_ns)"
    inside = ["unshare", "--time", "--fork", "--boottime", "100000", sys.executable, "-c", ask]
    moved = subprocess.run(inside, capture_output=True, text=True, check=True)
    assert int(moved.stdout) == processes.describe([1])[1].started_ns
