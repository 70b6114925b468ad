"""Round-trip times along a path, one row per hop, read from top to bottom as the packets go."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from netlab.checks import options
from netlab.schemas import HOPS
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
from netlab.views.text import DASH, counted, legible, milliseconds, share
from netlab.views.theme import Theme, theme_named

COLUMNS = (
    "target", "target_address", "run", "flow", "ttl", "address", "name", "rtt_ms", "reached", "sent_at",
    "protocol", "port",
)  # fmt: skip
_KEY = "round-trip time (ms{scale}): a dot per probe, a bar from the least to the most, a line at the median"
_PLOT_IN, _MEDIAN_IN, _LOSS_IN, _TTL_IN, _GUTTER_IN = 4.6, 0.85, 1.15, 0.5, 0.12
_AXIS_IN = 0.55  # tick labels and the key under the rows
_MOST_TRACES, _MOST_ROWS = 4, 64
_SILENT_RUN = 3  # so many silent TTLs in a row become one line
_LOG_FROM = 100.0  # largest over smallest time from which a linear axis hides the small ones


@dataclass(frozen=True, slots=True)
class _Row:
    """One line of the picture: an address at a TTL, or silent TTLs."""

    ttl: str
    address: str
    name: str
    rtts_ms: np.ndarray
    loss: str
    lost: int
    reached: bool


@dataclass(frozen=True, slots=True)
class _Trace:
    """One target's part of the picture."""

    title: str
    notes: list[str]
    rows: list[_Row]
    row_in: float

    @property
    def head_in(self) -> float:
        return (len(self.notes) + 2.8) * LINE_IN

    @property
    def height_in(self) -> float:
        return self.head_in + len(self.rows) * self.row_in + _AXIS_IN


@options
@plain_text()
def plot_hops(hops: pd.DataFrame, *, theme: str | None = None) -> Figure:
    """Draw the round-trip time, the loss and the address of every hop of a traceroute.

    Each answering address has a row at its TTL; several at one TTL are the branches of a load balancer.
    A bar spans the least to the most time, a line marks the median, diamonds are the destination. Loss is
    per TTL: routers that limit their answers show it too, so a hop matters only when the ones after it
    lose as much. The axis is logarithmic when the times span more than a factor of 100.

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
        return nothing(look, "Round-trip time per hop", "There are no probes in this frame")
    targets = [part for _, part in table.groupby(["target", "target_address"], dropna=False, sort=False)]
    traces = [_trace(part) for part in targets[:_MOST_TRACES]]
    notes = [gaps(hops.attrs), _shown(len(traces), len(targets), "targets")]
    return _draw(look, traces, " · ".join(filter(None, notes)))


def probed(hops: object) -> object:
    """Return *hops* without the rows of targets that could not be probed; anything else as it is."""
    if isinstance(hops, pd.DataFrame) and "error" in hops.columns:
        return hops[hops["error"].isna()]
    return hops


def _shown(shown: int, of: int, what: str) -> str:
    return f"showing the first {shown} of {of} {what}" if shown < of else ""


# -- from probes to rows ---------------------------------------------------------------------------------


def _trace(probes: pd.DataFrame) -> _Trace:
    every = list(_rows(probes))
    rows = every[:_MOST_ROWS]
    first = probes.iloc[0]
    notes = [_counts(probes), _how(probes)]
    if len(rows) < len(every):
        notes.append(_shown(len(rows), len(every), "rows"))
    return _Trace(
        f"Round-trip time per hop to {destination(first.target, first.target_address)}",
        notes,
        rows,
        0.4 if any(row.name for row in rows) else 0.27,
    )


def destination(target: Any, address: Any) -> str:
    """Return what was traced in words: the name with its address, or the address alone."""
    known = [legible(text, 60) for text in (target, address) if not pd.isna(text)]
    match known:
        case [name, number] if name != number:
            return f"{name} ({number})"
        case [name, *_]:
            return name
        case _:
            return "an unnamed target"


def _counts(probes: pd.DataFrame) -> str:
    lost = int(probes["address"].isna().sum())
    reached = probes.loc[probes["reached"].fillna(False), "ttl"]  # noqa: FBT003
    ttls = DASH.join(map(str, sorted({reached.min(), reached.max()}))) if len(reached) else ""
    parts = [
        counted(len(probes), "probe"),
        counted(probes["run"].nunique(), "run"),
        counted(probes["flow"].nunique(), "flow"),
        f"{lost} without answer ({share(lost, len(probes))})",
        f"◆ destination reached at TTL {ttls}" if ttls else "destination not reached",
    ]
    return " · ".join(filter(None, parts))


def _how(probes: pd.DataFrame) -> str:
    protocols = ", ".join(sorted(probes["protocol"].dropna().unique()))
    ports = probes["port"].dropna().unique()
    started = probes["sent_at"].min()
    parts = [
        f"{legible(protocols, 30)} port {ports[0]}" if len(ports) == 1 else legible(protocols, 30),
        "" if pd.isna(started) else f"{started:%Y-%m-%d %H:%M:%S} UTC",
    ]
    return " · ".join(filter(None, parts))


def _rows(probes: pd.DataFrame) -> Iterator[_Row]:
    hops = [(ttl, probes[probes["ttl"] == ttl]) for ttl in sorted(probes["ttl"].unique())]
    for silent, run in groupby(hops, key=lambda hop: bool(hop[1]["address"].isna().all())):
        stretch = list(run)
        if silent and len(stretch) >= _SILENT_RUN:
            yield _silent(f"{stretch[0][0]}{DASH}{stretch[-1][0]}", sum(len(part) for _, part in stretch))
        else:
            for ttl, part in stretch:
                yield from [_silent(str(ttl), len(part))] if silent else _answering(ttl, part)


def _silent(ttl: str, probes: int) -> _Row:
    return _Row(ttl, "no answer", "", np.empty(0), _loss(probes, probes), probes, reached=False)


def _answering(ttl: int, probes: pd.DataFrame) -> Iterator[_Row]:
    """Yield a row for each address at *ttl*, most answers first; the loss belongs to the TTL as a whole."""
    lost = int(probes["address"].isna().sum())
    answers = probes.dropna(subset="address")
    for place, address in enumerate(answers["address"].value_counts().index):
        mine = answers[answers["address"] == address]
        names = mine["name"].dropna()
        yield _Row(
            str(ttl) if place == 0 else "",
            legible(address, 60),
            legible(names.iloc[0], 42) if len(names) else "",
            mine["rtt_ms"].dropna().to_numpy(np.float64),
            _loss(lost, len(probes)) if place == 0 else "",
            lost if place == 0 else 0,
            reached=bool(mine["reached"].any()),
        )


def _loss(lost: int, probes: int) -> str:
    return f"{share(lost, probes)} ({lost}/{probes})" if lost else share(lost, probes)


# -- from rows to ink ------------------------------------------------------------------------------------


def _draw(theme: Theme, traces: list[_Trace], footnote: str) -> Picture:
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
    height = sum(trace.height_in for trace in traces) + 2 * MARGIN_IN + LINE_IN * bool(footnote)
    picture = Picture(theme, width_in=width, height_in=height)
    top = MARGIN_IN
    for trace in traces:
        _draw_trace(picture, trace, top, left, width - left - _MEDIAN_IN - _LOSS_IN - MARGIN_IN)
        top += trace.height_in
    if footnote:
        picture.write(MARGIN_IN, height - MARGIN_IN, footnote, fontsize=SMALL_PT, color=theme.bad)
    return picture


def _draw_trace(picture: Picture, trace: _Trace, top: float, left: float, width: float) -> None:
    theme = picture.theme
    picture.head(top, trace.title, trace.notes)
    first = top + trace.head_in
    axes = picture.plot_area(left, first, width, len(trace.rows) * trace.row_in)
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
        at = first + (place + 0.5) * trace.row_in
        picture.write(MARGIN_IN, at, row.ttl)
        _write_who(picture, row, left - _GUTTER_IN, at)
        median = float(np.median(row.rtts_ms)) if len(row.rtts_ms) else None
        picture.write(median_x, at, milliseconds(median), ha="right")
        picture.write(loss_x, at, row.loss, ha="right", color=theme.bad if row.lost else theme.muted)
    _draw_times(axes, trace.rows, theme)


def _write_who(picture: Picture, row: _Row, right: float, at: float) -> None:
    theme = picture.theme
    step = 0.085 if row.name else 0
    weight = "bold" if row.reached else "normal"
    colour = theme.text if len(row.rtts_ms) else theme.muted
    picture.write(right, at - step, row.address, ha="right", weight=weight, color=colour)
    if row.name:
        picture.write(right, at + step, row.name, ha="right", fontsize=SMALL_PT, color=theme.muted)


def _draw_times(axes: Axes, rows: list[_Row], theme: Theme) -> None:
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
        _scale(axes, measured, theme)
    else:
        axes.set_xticks([])


def _scale(axes: Axes, times: np.ndarray, theme: Theme) -> None:
    """Start the axis at 0 ms, or make it logarithmic when a linear one would hide the near hops."""
    logarithmic = times.min() > 0 and times.max() / times.min() > _LOG_FROM
    if logarithmic:
        axes.set_xscale("log")
        axes.set_xlim(times.min() / 1.3, times.max() * 1.3)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(FuncFormatter(lambda _, __: ""))
    else:
        axes.set_xlim(min(0.0, times.min()), 1.05 * times.max() or 1.0)
    axes.grid(axis="x", color=theme.grid, lw=0.6)
    axes.set_axisbelow(True)
    scale = ", logarithmic" if logarithmic else ""
    axes.set_xlabel(_KEY.format(scale=scale), fontsize=SMALL_PT, color=theme.muted, loc="left")
