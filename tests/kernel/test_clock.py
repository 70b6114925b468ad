"""The kernel's clock, and UTC."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from netlab.kernel import clock, processes


def test_utc_is_what_the_system_says() -> None:
    assert abs(clock.now_ns() + clock.to_utc_ns() - time.time_ns()) < 1_000_000_000


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
