"""The command line, as a shell has it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

MAIN = [sys.executable, "-c", "import sys; from netlab.cli import main; sys.exit(main())"]


def ran(*words: str, before: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*before, *MAIN, *words], capture_output=True, text=True, check=False, timeout=60)


def test_who_reads_no_further_gets_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)

    run = subprocess.run(
        [*MAIN, "doctor"], stdout=writer, stderr=subprocess.PIPE, text=True, check=False, timeout=60
    )

    os.close(writer)
    assert (run.returncode, run.stderr) == (0, "")


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_captured(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    run = ran("demo", "--here", "--duration-s", "3600", "--output", str(tmp_path / "file/inside"))

    assert run.returncode == 2
    assert run.stderr.startswith("netlab: cannot write to ")
    assert "Give another --output" in run.stderr


def test_options_of_this_host_are_refused_without_it() -> None:
    run = ran("demo", "--target", "192.0.2.1")

    assert run.returncode == 2
    assert "Give --here, too" in run.stderr


@pytest.mark.privileged
def test_a_trace_says_what_it_lacks() -> None:
    run = ran("traceroute", "127.0.0.1", before=["setpriv", "--bounding-set=-all", "--inh-caps=-all"])

    assert "127.0.0.1" in run.stdout
    assert "netlab: unavailable: " in run.stderr
