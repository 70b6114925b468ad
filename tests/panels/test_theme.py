"""The panels' colours are those of the pictures."""

from __future__ import annotations

import re
from dataclasses import fields
from importlib.resources import files

import pytest

from netlab.views.theme import DARK, LIGHT, Theme

CSS = (files("netlab.panels") / "panels.css").read_text(encoding="utf-8")
ROLES = [field.name for field in fields(Theme)]


@pytest.mark.parametrize(("theme", "place"), [(LIGHT, 0), (DARK, 1)], ids=["light", "dark"])
@pytest.mark.parametrize("role", ROLES)
def test_a_colour_of_the_panels_is_that_of_the_pictures(theme: Theme, place: int, role: str) -> None:
    assert re.findall(rf"--netlab-{role}: (#\w+);", CSS)[place] == getattr(theme, role)
