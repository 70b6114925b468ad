"""Colours that can be told apart by everyone, on light and on dark paper.

The hues are those of Okabe and Ito, "Color Universal Design" (2008), darkened or lightened until text
has the contrast of WCAG 2.1 level AA (4.5:1) and marks that of its graphical objects (3:1).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import matplotlib as mpl
from matplotlib.colors import to_hex, to_rgb

from netlab.checks import choice


@dataclass(frozen=True, slots=True)
class Theme:
    """The colours of one picture, by what they say."""

    background: str
    text: str
    muted: str  # secondary text
    grid: str
    main: str  # measured values
    second: str  # the other tone of `main`: a phase, a range
    bad: str  # failures and losses, as marks and as text
    good: str  # the destination


LIGHT = Theme(
    background="#ffffff",
    text="#1a1a1a",
    muted="#595959",
    grid="#dedede",
    main="#0072b2",
    second="#4a9fd0",
    bad="#b34a00",
    good="#007a59",
)
DARK = Theme(
    background="#111111",
    text="#f0f0f0",
    muted="#b4b4b4",
    grid="#3a3a3a",
    main="#56b4e9",
    second="#2d7fb3",
    bad="#f58a4b",
    good="#2fc49a",
)
_THEMES = {"light": LIGHT, "dark": DARK}


def theme_named(name: str | None) -> Theme:
    """Return the theme *name*, or the one that suits matplotlib's present background when it is None."""
    if name is not None:
        return _THEMES[choice("theme", name, _THEMES)]
    paper = mpl.rcParams["axes.facecolor"]
    if paper == "none":
        paper = "white"
    base = LIGHT if contrast(paper, "black") > contrast(paper, "white") else DARK
    legible = contrast(paper, base.muted) >= 4.5 and contrast(paper, base.bad) >= 4.5
    return replace(base, background=to_hex(paper)) if legible else base


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours, 1 to 21 (WCAG 2.1, "contrast ratio")."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    """Return the relative luminance of *colour*, 0 to 1 (WCAG 2.1, "relative luminance")."""
    red, green, blue = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
