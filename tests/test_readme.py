"""The README's first screen is true: its code gives its output."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert found
    return found[1]


@pytest.mark.privileged
@pytest.mark.alone  # it shows all that connects to port 9, in every network namespace
def test_the_code_prints_what_the_readme_shows() -> None:
    run = subprocess.run(
        [sys.executable, "-c", block("python")], capture_output=True, text=True, check=True, timeout=60
    )

    assert run.stdout == block("text")


def test_the_commands_are_targets_of_the_makefile() -> None:
    makefile = (Path(__file__).parent.parent / "Makefile").read_text(encoding="utf-8")
    commands = re.findall(r"^make (\w+)", block("console"), re.MULTILINE)

    assert commands
    assert all(f"\n{command}:" in makefile for command in commands)
