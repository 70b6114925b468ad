"""What a notebook shows of an error that netlab raises."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

NETLAB = re.compile(r"^File \S*netlab/", re.MULTILINE)
SHELL = """
import sys
from IPython.core.interactiveshell import InteractiveShell

for cell in ("import netlab", *sys.argv[1:]):
    InteractiveShell.instance().run_cell(cell)
"""


def shown(*cells: str) -> str:
    """Run *cells* in a shell of their own, as a notebook does: nothing was raised, handled or set before."""
    command = [sys.executable, "-c", SHELL, *cells]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return re.sub(r"\x1b\[[0-9;]*m", "", said.stdout + said.stderr)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("netlab.capture(port=70000)", "BadInput: port 70000 is not a whole number from 1 to 65535."),
        ("netlab.conntrack(netns='nowhere')", "BadInput: there is no network namespace 'nowhere'."),
        ("netlab.load('nowhere.netlab')", "BundleError: there is no file nowhere.netlab. Check the path"),
    ],
)
def test_an_error_is_the_cells_own_line_and_what_to_do(cell: str, message: str) -> None:
    text = shown(f"def ask():\n    {cell}\n\nask()")

    assert f"----> 2     {cell}" in text
    assert "----> 4 ask()" in text
    assert message in text
    assert not NETLAB.search(text)
    assert len(text.splitlines()) < 20


def test_the_way_through_netlab_is_shown_to_who_asks_for_it() -> None:
    text = shown("%xmode Verbose", "netlab.load('nowhere.netlab')")

    assert NETLAB.search(text)
    assert "FileNotFoundError" in text
