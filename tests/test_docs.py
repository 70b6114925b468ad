"""The site's pages are true: every how-to runs as it stands, and the reference leaves nothing public out."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import ordinary
import pages
import pytest

import netlab
from netlab import errors
from netlab.tracer.session import Capture

DOCS = Path(__file__).parent.parent / "docs"
HOWTOS = sorted(DOCS.glob("howto/*.md"))
PAGES = [DOCS.parent / "README.md", *sorted(DOCS.rglob("*.md"))]
NO_PRIVILEGES = "without-root"


@pytest.mark.parametrize("page", HOWTOS, ids=lambda page: page.stem)
def test_every_howto_has_code_that_shows_what_it_prints(page: Path) -> None:
    assert any(said for _, said in pages.blocks(page))


@pytest.mark.privileged
@pytest.mark.parametrize(
    "page", [page for page in HOWTOS if page.stem != NO_PRIVILEGES], ids=lambda page: page.stem
)
def test_the_code_of_a_howto_does_what_the_page_says(page: Path, tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, pages.__file__, str(page)],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip

    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.privileged
def test_the_howto_without_root_is_true_for_an_ordinary_user(tmp_path: Path) -> None:
    page = DOCS / "howto" / f"{NO_PRIVILEGES}.md"

    run = ordinary.run([sys.executable, pages.__file__, str(page)], tmp_path, timeout_s=120)

    assert run.returncode == 0, run.stdout


def test_the_reference_has_every_public_name() -> None:
    reference = "".join(page.read_text(encoding="utf-8") for page in DOCS.glob("reference/*.md"))
    elsewhere = {*vars(errors), "fleet", "lab", "panels", "path", "schemas"}
    wanted = [f"netlab.{name}" for name in netlab.__all__ if name not in elsewhere]
    rooms = (netlab.fleet, netlab.lab, netlab.path, netlab.panels)
    wanted += [f"{room.__name__}.{name}" for room in rooms for name in room.__all__]

    assert [name for name in wanted if f":: {name}\n" not in reference] == []
    assert ":: netlab.errors\n   :members:" in reference


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_call_that_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    public = re.findall(r"(?<![.\w])netlab((?:\.\w+)+)\(", text)
    captured = re.findall(r"\bcap\.(\w+)\(", text)

    assert [name for name in public if not resolves(name[1:].split("."))] == []
    assert [name for name in captured if not hasattr(Capture, name)] == []


def resolves(names: list[str]) -> bool:
    found: object = netlab
    for name in names:
        found = getattr(found, name, None)
    return found is not None


def test_every_page_is_on_the_front_page() -> None:
    front = (DOCS / "index.md").read_text(encoding="utf-8")
    listed = [
        page.relative_to(DOCS).with_suffix("").as_posix()
        for page in DOCS.rglob("*.md")
        if page.stem != "index"
    ]

    assert [name for name in listed if f"\n{name}\n" not in front] == []
