"""The command line, as a shell has it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import netlab

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


def test_what_the_terminal_has_no_letter_for_is_printed_as_an_escape() -> None:
    told = "from netlab.cli import _say; _say('\\xfcn\\u2026')"
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii:strict"}

    run = subprocess.run(
        [sys.executable, "-c", told], env=ascii_only, capture_output=True, text=True, check=False, timeout=60
    )

    assert (run.stdout, run.stderr) == ("\\xfcn\\u2026\n", "")


@pytest.mark.parametrize(("columns", "width"), [("1", 40), ("60", 60), ("300", 100)])
def test_the_doctor_fits_the_terminal_and_leaves_commands_whole(columns: str, width: int) -> None:
    run = ran("doctor", before=["env", f"COLUMNS={columns}"])
    lines = run.stdout.splitlines()
    findings = netlab.doctor()

    assert [line.split(maxsplit=1)[1] for line in lines if line[0] != " "] == findings["capability"].tolist()
    assert {line.split("fix: ")[1] for line in lines if "fix: " in line} == set(findings["fix"].dropna())
    reasons = [line for line in lines if line[0] == " " and "fix: " not in line]
    assert width - 20 < max(map(len, reasons)) <= width


def test_an_answer_that_cannot_be_written_is_told() -> None:
    with Path("/dev/full").open("w") as full:
        run = subprocess.run(
            [*MAIN, "doctor"], stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60
        )

    assert (run.returncode, run.stderr) == (
        2,
        "netlab: the answer cannot be written: No space left on device\n",
    )


def test_without_a_standard_output_there_is_no_traceback() -> None:
    run = ran("doctor", before=["sh", "-c", 'exec "$@" >&-', "sh"])

    assert (run.returncode, run.stderr) == (0, "")


def test_the_interpreter_finds_the_command_line_and_its_version() -> None:
    command = [sys.executable, "-m", "netlab", "--version"]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)

    assert run.stdout == f"netlab {netlab.__version__}\n"


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
