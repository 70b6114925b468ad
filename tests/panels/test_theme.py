"""The panels' colours are those of the pictures."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from netlab.views.theme import DARK, LIGHT, Theme

CSS = (files("netlab.panels") / "panels.css").read_text(encoding="utf-8")
ROLES = {
    "text": "text",
    "muted": "muted",
    "grid": "grid",
    "main": "main",
    "bad": "bad",
    "paper": "background",
}


@pytest.mark.parametrize(("theme", "place"), [(LIGHT, 0), (DARK, 1)], ids=["light", "dark"])
@pytest.mark.parametrize("role", ROLES)
def test_a_colour_of_the_panels_is_that_of_the_pictures(theme: Theme, place: int, role: str) -> None:
    assert re.findall(rf"--netlab-{role}: (#\w+);", CSS)[place] == getattr(theme, ROLES[role])
