"""How long name servers take: a row per server and kind of answer, and what had no answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from netlab.checks import options, whole
from netlab.schemas import DNS
from netlab.views.axis import time_axis
from netlab.views.hoprows import cut
from netlab.views.picture import (
    LINE_IN,
    MARGIN_IN,
    SMALL_PT,
    TITLE_PT,
    Picture,
    gaps,
    needed,
    nothing,
    plain_text,
    text_width_in,
)
from netlab.views.text import counted, legible, milliseconds, share
from netlab.views.theme import Theme, theme_named

_TITLE = "DNS by server"
_COLUMNS = ("rcode", "answer_ms", "retries", "server_address", "silent_servers")
_MOST_DOTS = 200  # of one row; of more answers the quantiles are drawn
_KEY = "the server's time (ms{scale}): a dot per answer, " + f"{_MOST_DOTS} at most, a line at the median"
_UNANSWERED = {"timeout": "no answer", "closed": "closed first", "missed": "not seen", "pending": "waiting"}
_GOOD = ("NOERROR", "NXDOMAIN")  # the server did what it is for
_PLOT_IN, _GUTTER_IN, _FIGURE_IN = 4.4, 0.14, 0.85
_ROW_IN, _AXIS_IN = 0.27, 0.55
_NAME = 40  # characters
_PASSED_OVER = "others answered"


@dataclass(frozen=True, slots=True)
class _Row:
    """What one server answered in one way, or left unanswered."""

    server: str  # empty where the row above says it
    kind: str
    times_ms: npt.NDArray[np.float64]
    count: int
    note: str  # in place of dots
    is_bad: bool


@options
@plain_text()
def plot_dns(lookups: pd.DataFrame, *, servers: int = 8, theme: str | None = None) -> Figure:
    """Draw how long each name server took to answer, by what it answered, and what it left unanswered.

    Servers that fail come first. Times are the server's own (`answer_ms`): the wait for another server that
    did not answer is told in that one's row. The axis is logarithmic when the times span more than a factor
    of 100.

    Parameters
    ----------
    lookups
        What `Capture.dns()` returned.
    servers
        How many servers to draw at most, 1 to 40.
    theme
        ``"light"``, ``"dark"``, or None for the one that suits matplotlib's background colour.

    Returns
    -------
    Figure
        A figure that pyplot does not keep: it shows once in a notebook; `savefig` writes it.

    Raises
    ------
    BadInput
        If *lookups* is no such frame, or *servers* or *theme* is not in its range.

    Examples
    --------
    >>> import netlab
    >>> netlab.plot_dns(netlab.schemas.DNS.empty())
    <Picture size ...>
    """
    look, most = theme_named(theme), whole("servers", servers, 1, 40)
    filled = ["rcode", "server_address"]
    table = needed(lookups, DNS, _COLUMNS, drawn_by="plot_dns", made_by="Capture.dns()", filled=filled)
    if table.empty:
        return nothing(look, _TITLE, "There are no lookups in this frame")
    passed_over = _passed_over(table)
    names = _by_trouble(table, passed_over)
    rows = [row for name in names[:most] for row in _rows(table, name, passed_over.get(name, 0))]
    notes = [gaps(lookups.attrs), cut(min(most, len(names)), len(names), "servers")]
    return _draw(look, rows, _note(table, names), " · ".join(filter(None, notes)))


def _passed_over(table: pd.DataFrame) -> dict[str, int]:
    """Return how many lookups each server left to another one."""
    silent = table["silent_servers"].dropna().str.split(" ").map(set).explode()
    others = silent[silent != table["server_address"].reindex(silent.index)]
    return {str(name): int(count) for name, count in others.value_counts().items()}


def _by_trouble(table: pd.DataFrame, passed_over: dict[str, int]) -> list[str]:
    """Return the servers: those with the largest share of trouble first, then those asked most."""
    outcomes = table["rcode"].astype(str)
    bad = (~outcomes.isin([*_GOOD, "pending"])).groupby(table["server_address"]).sum()
    asked = table["server_address"].value_counts()
    names = [str(name) for name in {*asked.index, *passed_over}]

    def order(name: str) -> tuple[float, int, str]:
        others = passed_over.get(name, 0)
        total, failed = int(asked.get(name, 0)) + others, int(bad.get(name, 0)) + others
        return -failed / total, -total, name

    return sorted(names, key=order)


def _rows(table: pd.DataFrame, server: str, passed_over: int) -> list[_Row]:
    rows = []
    theirs = table[table["server_address"] == server]
    for kind, part in theirs.groupby(theirs["rcode"].astype(str)):
        times = np.sort(part["answer_ms"].dropna().to_numpy(float))
        note = "" if len(times) else _UNANSWERED.get(str(kind), "")
        is_bad = kind not in {*_GOOD, "pending"}
        rows.append(_Row("", str(kind), times, len(part), note, is_bad))
    if passed_over:
        none = np.empty(0)
        rows.append(
            _Row("", _PASSED_OVER, none, passed_over, "silent: another server was asked", is_bad=True)
        )
    rows.sort(key=lambda row: (row.is_bad, -row.count))
    first = rows[0]
    shown = legible(server, _NAME)
    return [_Row(shown, first.kind, first.times_ms, first.count, first.note, first.is_bad), *rows[1:]]


def _note(table: pd.DataFrame, names: list[str]) -> str:
    unanswered = int(table["rcode"].astype(str).isin(["timeout", "closed"]).sum())
    retries = int(table["retries"].fillna(0).sum())
    told = [
        counted(len(table), "lookup"),
        counted(len(names), "server"),
        f"{unanswered} unanswered ({share(unanswered, len(table))})" if unanswered else "none unanswered",
        counted(retries, "retry", "retries"),
    ]
    return " · ".join(told)


# -- ink -------------------------------------------------------------------------------------------------


def _draw(theme: Theme, rows: list[_Row], note: str, footnote: str) -> Picture:
    server_in = max(text_width_in([row.server for row in rows], weight="bold"), text_width_in(["server"]))
    kind_in = text_width_in([row.kind for row in rows])
    left = MARGIN_IN + server_in + _GUTTER_IN + kind_in + _GUTTER_IN
    heads = max(text_width_in([_TITLE], TITLE_PT, "bold"), text_width_in([note, footnote]))
    width = max(left + _PLOT_IN + 3 * _FIGURE_IN, heads + MARGIN_IN) + MARGIN_IN
    first = MARGIN_IN + 3.8 * LINE_IN
    height = first + len(rows) * _ROW_IN + _AXIS_IN + MARGIN_IN + LINE_IN * bool(footnote)
    picture = Picture(theme, width_in=width, height_in=height)
    picture.head(MARGIN_IN, _TITLE, [note])
    plot_in = width - left - 3 * _FIGURE_IN - MARGIN_IN
    figures = [left + plot_in + (place + 1) * _FIGURE_IN for place in range(3)]
    heading: dict[str, Any] = {"fontsize": SMALL_PT, "color": theme.muted}
    picture.write(MARGIN_IN, first - LINE_IN / 2, "server", **heading)
    for x, word in zip(figures, ("median", "95 %", "lookups"), strict=True):
        picture.write(x, first - LINE_IN / 2, word, ha="right", **heading)
    for place, row in enumerate(rows):
        at = first + (place + 0.5) * _ROW_IN
        _write(picture, row, at, left - _GUTTER_IN, figures)
    axes = picture.plot_area(left, first, plot_in, len(rows) * _ROW_IN)
    _draw_times(axes, rows, theme)
    if footnote:
        picture.write(MARGIN_IN, height - MARGIN_IN, footnote, fontsize=SMALL_PT, color=theme.bad)
    return picture


def _write(picture: Picture, row: _Row, at: float, kind_x: float, figures: list[float]) -> None:
    theme = picture.theme
    colour = theme.bad if row.is_bad else theme.text
    picture.write(MARGIN_IN, at, row.server, weight="bold")
    picture.write(kind_x, at, row.kind, ha="right", color=colour)
    told = np.quantile(row.times_ms, [0.5, 0.95]) if len(row.times_ms) else [np.nan, np.nan]
    for x, text in zip(figures, [*map(milliseconds, told), str(row.count)], strict=True):
        picture.write(x, at, text, ha="right", color=colour)


def _draw_times(axes: Axes, rows: list[_Row], theme: Theme) -> None:
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
        time_axis(axes, measured, _KEY, theme)
    else:
        axes.set_xticks([])


def _few(times_ms: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return sorted times; of very many as many as are drawn, evenly by rank, the first and the last too."""
    if len(times_ms) <= _MOST_DOTS:
        return times_ms
    return times_ms.take(np.linspace(0, len(times_ms) - 1, _MOST_DOTS).astype(int))
