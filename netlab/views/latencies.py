"""Rows of latencies: who was asked, what was answered, and how long that took, a dot per answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from netlab.views.axis import time_axis
from netlab.views.picture import LINE_IN, MARGIN_IN, SMALL_PT, TITLE_PT, Picture, text_width_in
from netlab.views.text import milliseconds
from netlab.views.theme import Theme

MOST_DOTS = 200  # of one row; of more answers the quantiles are drawn
_PLOT_IN, _GUTTER_IN, _FIGURE_IN = 4.4, 0.14, 0.85
_ROW_IN, _AXIS_IN = 0.27, 0.55


@dataclass(frozen=True, slots=True)
class Row:
    """What one of them answered in one way, or left unanswered."""

    asked: str  # empty where the row above says it
    kind: str
    times_ms: npt.NDArray[np.float64]  # sorted
    count: int
    note: str  # in place of dots
    is_bad: bool


@dataclass(frozen=True, slots=True)
class Words:
    """What is written around the rows."""

    title: str
    note: str
    footnote: str
    asked: str  # over the first column
    counted: str  # over the last one
    key: str  # under the axis


def draw(theme: Theme, rows: list[Row], words: Words) -> Picture:
    """Draw *rows* in their order."""
    asked_in = max(text_width_in([row.asked for row in rows], weight="bold"), text_width_in([words.asked]))
    kind_in = text_width_in([row.kind for row in rows])
    left = MARGIN_IN + asked_in + _GUTTER_IN + kind_in + _GUTTER_IN
    heads = max(text_width_in([words.title], TITLE_PT, "bold"), text_width_in([words.note, words.footnote]))
    width = max(left + _PLOT_IN + 3 * _FIGURE_IN, heads + MARGIN_IN) + MARGIN_IN
    first = MARGIN_IN + 3.8 * LINE_IN
    height = first + len(rows) * _ROW_IN + _AXIS_IN + MARGIN_IN + LINE_IN * bool(words.footnote)
    picture = Picture(theme, width_in=width, height_in=height)
    picture.head(MARGIN_IN, words.title, [words.note])
    plot_in = width - left - 3 * _FIGURE_IN - MARGIN_IN
    figures = [left + plot_in + (place + 1) * _FIGURE_IN for place in range(3)]
    heading: dict[str, Any] = {"fontsize": SMALL_PT, "color": theme.muted}
    picture.write(MARGIN_IN, first - LINE_IN / 2, words.asked, **heading)
    for x, word in zip(figures, ("median", "95 %", words.counted), strict=True):
        picture.write(x, first - LINE_IN / 2, word, ha="right", **heading)
    for place, row in enumerate(rows):
        at = first + (place + 0.5) * _ROW_IN
        _write(picture, row, at, left - _GUTTER_IN, figures)
    axes = picture.plot_area(left, first, plot_in, len(rows) * _ROW_IN)
    _draw_times(axes, rows, words.key, theme)
    if words.footnote:
        picture.write(MARGIN_IN, height - MARGIN_IN, words.footnote, fontsize=SMALL_PT, color=theme.bad)
    return picture


def _write(picture: Picture, row: Row, at: float, kind_x: float, figures: list[float]) -> None:
    theme = picture.theme
    colour = theme.bad if row.is_bad else theme.text
    picture.write(MARGIN_IN, at, row.asked, weight="bold")
    picture.write(kind_x, at, row.kind, ha="right", color=colour)
    told = np.quantile(row.times_ms, [0.5, 0.95]) if len(row.times_ms) else [np.nan, np.nan]
    for x, text in zip(figures, [*map(milliseconds, told), str(row.count)], strict=True):
        picture.write(x, at, text, ha="right", color=colour)


def _draw_times(axes: Axes, rows: list[Row], key: str, theme: Theme) -> None:
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks([])
    axes.hlines(range(len(rows)), 0, 1, transform=axes.get_yaxis_transform(), color=theme.grid, lw=0.6)
    for place, row in enumerate(rows):
        colour = theme.bad if row.is_bad else theme.main
        if row.note:
            where: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "center"}
            paper: dict[str, Any] = {"facecolor": theme.background, "edgecolor": "none", "pad": 1.5}
            axes.text(0.99, place, f"✕ {row.note}", color=colour, fontsize=SMALL_PT, bbox=paper, **where)
        if len(row.times_ms):
            dots = _few(row.times_ms)
            axes.hlines(place, dots[0], dots[-1], color=colour, lw=8, alpha=0.3)
            axes.plot(dots, np.full(len(dots), place), "o", color=colour, ms=4.5, alpha=0.6, mew=0)
            axes.vlines(np.median(row.times_ms), place - 0.34, place + 0.34, color=colour, lw=1.8)
    measured = np.concatenate([row.times_ms for row in rows])
    if len(measured):
        time_axis(axes, measured, key, theme)
    else:
        axes.set_xticks([])


def _few(times_ms: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return sorted times; of very many as many as are drawn, evenly by rank, the first and the last too."""
    if len(times_ms) <= MOST_DOTS:
        return times_ms
    return times_ms.take(np.linspace(0, len(times_ms) - 1, MOST_DOTS).astype(int))
