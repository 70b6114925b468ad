"""The notebooks: both halves agree, outputs are whole, links lead somewhere, and nbval notices changes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import jupytext
import nbformat
import pytest
from jupytext.config import load_jupytext_config

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAGES = [*NOTEBOOKS, *ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]

each = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)


def read(notebook: Path) -> Any:
    return nbformat.read(notebook, as_version=4)


@each
def test_both_halves_have_the_same_cells(notebook: Path) -> None:
    python = notebook.with_suffix(".py")
    halves = [read(notebook), jupytext.read(python, config=load_jupytext_config(str(python)))]

    first, second = (
        [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in half.cells]
        for half in halves
    )

    assert first == second, "run: make notebooks"


def test_there_is_no_half_without_the_other() -> None:
    assert [path.stem for path in NOTEBOOKS] == sorted(
        path.stem for path in (ROOT / "notebooks").glob("*_*.py")
    )


@each
def test_it_was_executed_once_from_beginning_to_end(notebook: Path) -> None:
    counts = [cell.execution_count for cell in read(notebook).cells if cell.cell_type == "code"]

    assert counts == list(range(1, len(counts) + 1))


@each
def test_it_shows_neither_errors_nor_warnings_nor_paths_of_the_machine_it_ran_on(notebook: Path) -> None:
    shown = [output for cell in read(notebook).cells for output in cell.get("outputs", [])]

    assert shown
    assert {output.output_type for output in shown} <= {"execute_result", "display_data", "stream"}
    assert all(output.name == "stdout" for output in shown if output.output_type == "stream")
    assert str(ROOT) not in notebook.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_within_the_repository_lead_to_a_file(page: Path) -> None:
    for link in links(page):
        assert (page.parent / link).exists(), link


def links(page: Path) -> Iterator[str]:
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb":
        text = "\n".join(cell.source for cell in read(page).cells if cell.cell_type == "markdown")
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        if "://" not in target and not target.startswith("#"):
            yield target.partition("#")[0]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[bool]]:
    """Have nbval run the notebooks, and a copy of one with another number in an output, as on Binder.

    Returns which code cells of each notebook passed.
    """
    books = tmp_path_factory.mktemp("unprivileged") / "notebooks"
    shutil.copytree(ROOT / "notebooks", books, ignore=shutil.ignore_patterns("__pycache__"))
    with_another_number(books / "02_slow_path.ipynb", books / "changed.ipynb")
    report = books / "report.xml"
    unprivileged = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
    pytest_ = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={report}", str(books)]
    nbval = ["--nbval", "--nbval-current-env", f"--nbval-sanitize-with={books}/sanitize.cfg"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    del environment["PYTEST_CURRENT_TEST"]
    run = subprocess.run(
        [*unprivileged, *pytest_, *nbval],
        cwd=books,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert run.returncode in {0, 1}, run.stdout + run.stderr
    passed: dict[str, list[bool]] = {}
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 - we have just written it
        passed.setdefault(case.attrib["classname"].split(".")[-2], []).append(len(case) == 0)
    return passed


def with_another_number(notebook: Path, copy: Path) -> None:
    """Write *copy*: the notebook up to its first table, whose last digit is another one."""
    book = read(notebook)
    tables = (
        (place, output.data)
        for place, cell in enumerate(book.cells)
        for output in cell.get("outputs", [])
        if output.output_type == "execute_result" and "text/html" in output.data
    )
    place, table = next(tables)
    *rest, digit = table["text/plain"]
    table["text/plain"] = "".join(rest) + str((int(digit) + 1) % 10)
    del book.cells[place + 1 :]
    nbformat.write(book, copy)


@pytest.mark.privileged
@each
def test_without_any_privilege_it_gives_the_same_outputs_from_its_recording(
    notebook: Path, outcomes: dict[str, list[bool]]
) -> None:
    cells = [cell for cell in read(notebook).cells if cell.cell_type == "code"]

    assert outcomes[notebook.stem] == [True] * len(cells)


@pytest.mark.privileged
def test_nbval_notices_that_one_number_is_another(outcomes: dict[str, list[bool]]) -> None:
    *before, changed = outcomes["changed"]

    assert all(before)
    assert not changed
