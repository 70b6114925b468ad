"""Round-trip times along a path, one row per hop, read from top to bottom as the packets go."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from netlab.checks import options
from netlab.schemas import HOPS
from netlab.views.axis import time_axis
from netlab.views.hoprows import Row, Trace, cut, described
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
from netlab.views.text import counted, milliseconds
from netlab.views.theme import Theme, theme_named

COLUMNS = (
    "target", "target_address", "run", "flow", "ttl", "address", "name", "rtt_ms", "reached", "sent_at",
    "protocol", "port",
)  # fmt: skip
_KEY = "round-trip time (ms{scale}): a dot per probe, a bar from the least to the most, a line at the median"
_PLOT_IN, _MEDIAN_IN, _LOSS_IN, _TTL_IN, _GUTTER_IN = 4.6, 0.85, 1.15, 0.5, 0.12
_AXIS_IN = 0.55  # tick labels and the key under the rows
_ROW_IN, _NAMED_ROW_IN = 0.27, 0.4
_MOST_TRACES = 4


@options
@plain_text()
def plot_hops(hops: pd.DataFrame, *, theme: str | None = None) -> Figure:
    """Draw the round-trip time, the loss and the address of every hop of a traceroute.

    Each answering address has a row at its TTL; several at one TTL are the branches of a load balancer.
    A bar spans the least to the most time, a line marks the median, diamonds are the destination. Loss is
    per TTL: routers that limit their answers show it too, so a hop matters only when the ones after it
    lose as much. A routing loop that the trace ends in is named above the rows. The axis is logarithmic
    when the times span more than a factor of 100.

    Parameters
    ----------
    hops
        What `netlab.traceroute` returned; up to 4 targets are drawn below each other.
    theme
        ``"light"``, ``"dark"``, or None for the one that suits matplotlib's background colour.

    Returns
    -------
    Figure
        A figure that pyplot does not keep: it shows once in a notebook; `savefig` writes it.

    Raises
    ------
    BadInput
        If *hops* is no such frame or *theme* is not known.

    Examples
    --------
    >>> import netlab
    >>> netlab.plot_hops(netlab.traceroute("127.0.0.1"))
    <Picture size ...>
    """
    look = theme_named(theme)
    found = probed(hops)
    table = needed(found, HOPS, COLUMNS, drawn_by="plot_hops", made_by="netlab.traceroute()", filled=["ttl"])
    if table.empty:
        why = "There are no probes in this frame"
        return nothing(look, "Round-trip time per hop", why, lacking(hops))
    targets = [part for _, part in table.groupby(["target", "target_address"], dropna=False, sort=False)]
    traces = [described(part) for part in targets[:_MOST_TRACES]]
    notes = [lacking(hops), cut(len(traces), len(targets), "targets")]
    return _draw(look, traces, " · ".join(filter(None, notes)))


def probed(hops: object) -> object:
    """Return *hops* without the rows of targets that could not be probed; anything else as it is."""
    if isinstance(hops, pd.DataFrame) and "error" in hops.columns:
        return hops[hops["error"].isna()]
    return hops


def lacking(hops: pd.DataFrame) -> str:
    """Return the footnote on the gaps in *hops*, and on the targets that could not be probed."""
    failed = hops.loc[hops["error"].notna(), "target"].nunique() if "error" in hops.columns else 0
    unprobed = f"{counted(failed, 'target')} could not be probed: see the column error" if failed else ""
    return " · ".join(filter(None, [gaps(hops.attrs), unprobed]))


def _row_in(trace: Trace) -> float:
    return _NAMED_ROW_IN if any(row.name for row in trace.rows) else _ROW_IN


def _head_in(trace: Trace) -> float:
    return (len(trace.notes) + 2.8) * LINE_IN


def _height_in(trace: Trace) -> float:
    return _head_in(trace) + len(trace.rows) * _row_in(trace) + _AXIS_IN


def _draw(theme: Theme, traces: list[Trace], footnote: str) -> Picture:
    rows = [row for trace in traces for row in trace.rows]
    label_in = max(
        text_width_in([row.address for row in rows], weight="bold"),
        text_width_in([row.name for row in rows], SMALL_PT),
        text_width_in(["address"], SMALL_PT),
    )
    left = MARGIN_IN + _TTL_IN + label_in + _GUTTER_IN
    heads = max(
        text_width_in([trace.title for trace in traces], TITLE_PT, "bold"),
        text_width_in([note for trace in traces for note in trace.notes]),
    )
    width = max(left + _PLOT_IN + _MEDIAN_IN + _LOSS_IN, heads + MARGIN_IN) + MARGIN_IN
    height = sum(_height_in(trace) for trace in traces) + 2 * MARGIN_IN + LINE_IN * bool(footnote)
    picture = Picture(theme, width_in=width, height_in=height)
    top = MARGIN_IN
    for trace in traces:
        _draw_trace(picture, trace, top, left, width - left - _MEDIAN_IN - _LOSS_IN - MARGIN_IN)
        top += _height_in(trace)
    if footnote:
        picture.write(MARGIN_IN, height - MARGIN_IN, footnote, fontsize=SMALL_PT, color=theme.bad)
    return picture


def _draw_trace(picture: Picture, trace: Trace, top: float, left: float, width: float) -> None:
    theme = picture.theme
    picture.head(top, trace.title, trace.notes)
    first, row_in = top + _head_in(trace), _row_in(trace)
    axes = picture.plot_area(left, first, width, len(trace.rows) * row_in)
    axes.set_ylim(len(trace.rows) - 0.5, -0.5)
    axes.set_yticks([])
    median_x = left + width + _MEDIAN_IN
    loss_x = median_x + _LOSS_IN
    heading: dict[str, Any] = {"fontsize": SMALL_PT, "color": theme.muted}
    picture.write(MARGIN_IN, first - LINE_IN / 2, "TTL", **heading)
    picture.write(left - _GUTTER_IN, first - LINE_IN / 2, "address", ha="right", **heading)
    picture.write(median_x, first - LINE_IN / 2, "median", ha="right", **heading)
    picture.write(loss_x, first - LINE_IN / 2, "loss", ha="right", **heading)
    for place, row in enumerate(trace.rows):
        at = first + (place + 0.5) * row_in
        picture.write(MARGIN_IN, at, row.ttl)
        _write_who(picture, row, left - _GUTTER_IN, at)
        median = float(np.median(row.rtts_ms)) if len(row.rtts_ms) else None
        picture.write(median_x, at, milliseconds(median), ha="right")
        picture.write(loss_x, at, row.loss, ha="right", color=theme.bad if row.lost else theme.muted)
    _draw_times(axes, trace.rows, theme)


def _write_who(picture: Picture, row: Row, right: float, at: float) -> None:
    theme = picture.theme
    step = 0.085 if row.name else 0
    weight = "bold" if row.reached else "normal"
    colour = theme.text if len(row.rtts_ms) else theme.muted
    picture.write(right, at - step, row.address, ha="right", weight=weight, color=colour)
    if row.name:
        picture.write(right, at + step, row.name, ha="right", fontsize=SMALL_PT, color=theme.muted)


def _draw_times(axes: Axes, rows: list[Row], theme: Theme) -> None:
    axes.hlines(range(len(rows)), 0, 1, transform=axes.get_yaxis_transform(), color=theme.grid, lw=0.6)
    for place, row in enumerate(rows):
        colour = theme.good if row.reached else theme.main
        times = row.rtts_ms
        if not len(times):
            continue
        axes.hlines(place, times.min(), times.max(), color=colour, lw=8, alpha=0.3)
        axes.vlines(np.median(times), place - 0.34, place + 0.34, color=colour, lw=1.8)
        marker, size = ("D", 4.0) if row.reached else ("o", 4.5)
        axes.plot(times, np.full(len(times), place), marker, color=colour, ms=size, alpha=0.75, mew=0)
    measured = np.concatenate([row.rtts_ms for row in rows])
    if len(measured):
        time_axis(axes, measured, _KEY, theme)
    else:
        axes.set_xticks([])
