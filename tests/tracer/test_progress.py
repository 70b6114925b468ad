"""What is shown while a capture's time runs."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import IO

import nbclient
import nbformat
import pytest

CAPTURE = "import netlab\nwith netlab.capture(protocol='tcp', duration_s=2.5): pass"


@pytest.mark.privileged
def test_seconds_have_one_digit_behind_the_point() -> None:
    run = subprocess.run(
        [sys.executable, "-c", CAPTURE], stderr=subprocess.PIPE, text=True, check=True, timeout=400
    )

    shown = re.findall(r"\| (\S+) of 2.5 s", run.stderr)
    assert shown
    assert all(re.fullmatch(r"\d\.\d", seconds) for seconds in shown)


def test_the_bar_shows_the_time_that_has_passed_also_where_it_came_to_show_it_late() -> None:
    script = "import netlab\nwith netlab.capture(mode='poll', duration_s=60): pass"
    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE) as late:
        assert late.stderr
        values = seconds(late.stderr)
        shown = [next(values)]
        late.send_signal(signal.SIGSTOP)
        time.sleep(2)
        late.send_signal(signal.SIGCONT)
        for now in values:
            shown.append(now)
            if now > 2:
                break
        late.kill()

    assert max(now - before for before, now in itertools.pairwise(shown)) > 1.5


def seconds(shown: IO[bytes]) -> Iterator[float]:
    """Yield what a bar shows."""
    words = b""
    while part := os.read(shown.fileno(), 4096):
        words += part
        *told, words = re.split(rb"(?<= s)\r?", words)
        for each in told:
            if found := re.search(rb"\| (\S+) of 60", each):
                yield float(found[1])


def test_a_saved_notebook_does_not_say_that_nothing_was_captured() -> None:
    cell = nbformat.v4.new_code_cell(CAPTURE.replace("protocol='tcp'", "mode='poll'"))
    book = nbformat.v4.new_notebook(cells=[cell])
    nbclient.NotebookClient(book, kernel_name="python3").execute()

    assert [output["data"] for output in cell["outputs"]] == [{"text/plain": ""}]


def test_a_saved_notebook_has_a_bar_that_stays_as_it_was_at_the_end() -> None:
    code = "import netlab; hops = netlab.traceroute('127.0.0.1', runs=3, progress=True)"
    cell = nbformat.v4.new_code_cell(code)
    nbclient.NotebookClient(nbformat.v4.new_notebook(cells=[cell]), kernel_name="python3").execute()

    assert [set(output["data"]) for output in cell["outputs"]] == [{"text/plain"}]
    assert "100%" in cell["outputs"][0]["data"]["text/plain"]
