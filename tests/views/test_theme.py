from __future__ import annotations

import matplotlib as mpl
import pytest
from matplotlib import style

from netlab.errors import BadInput
from netlab.views.theme import DARK, LIGHT, Theme, contrast, theme_named

BOTH = pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])


@BOTH
@pytest.mark.parametrize("part", ["text", "muted", "bad"])
def test_text_has_the_contrast_that_wcag_asks_of_text(theme: Theme, part: str) -> None:
    assert contrast(theme.background, getattr(theme, part)) >= 4.5


@BOTH
@pytest.mark.parametrize("part", ["main", "good", "bad"])
def test_marks_have_the_contrast_that_wcag_asks_of_graphics(theme: Theme, part: str) -> None:
    assert contrast(theme.background, getattr(theme, part)) >= 3


@BOTH
def test_the_phases_of_a_bar_differ_in_lightness_and_not_only_in_hue(theme: Theme) -> None:
    assert contrast(theme.main, theme.second) >= 1.5


def test_contrast_is_that_of_the_wcag_examples() -> None:
    assert contrast("#ffffff", "#000000") == 21
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_without_a_name_the_theme_follows_matplotlib() -> None:
    assert theme_named(None) == LIGHT
    with style.context("dark_background"):
        assert theme_named(None).text == DARK.text
        assert theme_named(None).background == "#000000"


def test_a_background_on_which_text_would_be_illegible_is_not_followed() -> None:
    with mpl.rc_context({"axes.facecolor": "#808080"}):
        theme = theme_named(None)

    assert contrast(theme.background, theme.muted) >= 4.5


def test_a_transparent_background_is_taken_as_paper() -> None:
    with mpl.rc_context({"axes.facecolor": "none"}):
        assert theme_named(None) == LIGHT


def test_a_named_theme_is_used_whatever_matplotlib_is_set_to() -> None:
    with style.context("dark_background"):
        assert theme_named("light") == LIGHT


def test_an_unknown_theme_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(BadInput, match="Did you mean 'dark'"):
        theme_named("drak")
