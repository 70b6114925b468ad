"""What `make test` does about tests that fail."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from overheard import until

AGAIN = Path(__file__).parent / "support" / "again.py"
TEST = """
from pathlib import Path

def test_it():
    runs = Path(__file__ + ".runs")
    runs.write_text(runs.read_text() + "x" if runs.exists() else "x")
    assert len(runs.read_text()) not in {failing}

def test_another():
    pass
"""

LONG = """
import time, pytest
from pathlib import Path

@pytest.fixture
def made():
    yield
    time.sleep(1)
    Path("removed").touch()

def test_it(made):
    Path("begun").touch()
    time.sleep(600)
"""


@pytest.mark.parametrize(
    ("failing", "files", "code", "runs"),
    [
        pytest.param([], 1, 0, 1, id="none fails"),
        pytest.param([1], 8, 0, 3, id="few fail once"),
        pytest.param([1], 9, 1, 1, id="many fail"),
        pytest.param([1, 2], 1, 1, 2, id="one fails again"),
        pytest.param([1, 3], 1, 1, 3, id="one fails the last time"),
    ],
)
def test_what_fails_has_to_pass_twice_by_itself(
    failing: list[int], files: int, code: int, runs: int, tmp_path: Path
) -> None:
    for number in range(files):
        (tmp_path / f"test_{number}.py").write_text(TEST.format(failing=failing), encoding="utf-8")

    run = subprocess.run(
        [sys.executable, AGAIN, "-p", "xdist", "--", "-n", "2", "."],
        cwd=tmp_path,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},  # which take seconds to import
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert run.returncode == code, run.stdout + run.stderr
    assert run.stdout.count("FAILED ONCE") == (files if failing and not code else 0)
    assert {len(one.read_text(encoding="utf-8")) for one in tmp_path.glob("*.runs")} == {runs}


def test_an_interrupt_ends_it_when_what_the_tests_made_is_removed(tmp_path: Path) -> None:
    (tmp_path / "test_long.py").write_text(LONG, encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, AGAIN, "--", "."], cwd=tmp_path, stdout=subprocess.DEVNULL, start_new_session=True
    ) as run:
        until((tmp_path / "begun").exists)
        os.killpg(run.pid, signal.SIGINT)

        assert run.wait(60) == pytest.ExitCode.INTERRUPTED
    assert (tmp_path / "removed").exists()
