"""Runs pytest; the few tests that fail are run twice more, by themselves, and have to pass both times.

    python tests/support/again.py OPTIONS OF EACH RUN -- WHAT ONLY THE FIRST RUN IS GIVEN

The tests talk to real servers, timers and kernels on a machine that is busy and may stop for milliseconds:
of thousands one fails now and then for a cause that has nothing to do with what it tests. What failed once is
shown in full and named at the end, so that somebody looks for the cause; what fails again is a failure.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

MOST_FILES = 8  # more than these do not fail by chance
TIMES = 2


def run(each: Sequence[str], first: Sequence[str]) -> int:
    """Run pytest with the options *each*, at first with *first*, too; return the exit code of the whole."""
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, "-m", "pytest", "-o", f"cache_dir={cache}", *each]
        code = _ended([*command, *first])
        if code != pytest.ExitCode.TESTS_FAILED:
            return code
        failed = json.loads(Path(cache, "v/cache/lastfailed").read_text(encoding="utf-8"))
        again = sorted({_whole(test) for test in failed})
        if len({_file(test) for test in failed}) > MOST_FILES:
            return code
        if any(_ended([*command, *again]) for _ in range(TIMES)):
            return code
    for test in again:
        print(f"FAILED ONCE, passed {TIMES} times by itself; look for the cause: {test}", flush=True)  # noqa: T201
    return 0


def _ended(command: Sequence[str]) -> int:
    """Run a command and return its exit code; Ctrl-C is its to answer: it has what tests made to remove."""
    with subprocess.Popen(command) as process:
        while True:
            with contextlib.suppress(KeyboardInterrupt):
                return process.wait()


def _file(test: str) -> str:
    return test.partition("::")[0]


def _whole(test: str) -> str:
    """Return what has to run again for *test*: a cell needs those above it."""
    return _file(test) if _file(test).endswith(".ipynb") else test


if __name__ == "__main__":
    words = sys.argv[1:]
    end = words.index("--")
    sys.exit(run(words[:end], words[end + 1 :]))
