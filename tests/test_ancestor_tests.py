"""docs/ancestor_tests.md names tests that are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
ROWS = [
    [cell.strip() for cell in line.strip("| ").split(" | ")]
    for line in (TOP / "docs/ancestor_tests.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| ancestor")
]
NAMED = sorted({test for row in ROWS for test in re.findall(r"`(tests/[^`]+::\w+)`", " ".join(row))})


def test_the_table_was_read() -> None:
    assert len(ROWS) > 50
    assert len(NAMED) > 40


@pytest.mark.parametrize("test", NAMED)
def test_a_named_test_exists(test: str) -> None:
    file, name = test.split("::")
    tree = ast.parse((TOP / file).read_text(encoding="utf-8"))

    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_an_ancestors_test_has_a_counterpart_or_a_reason(row: list[str]) -> None:
    assert row[1].startswith("`tests/") or (row[1] == "none" and len(row) == 3 and row[2])
