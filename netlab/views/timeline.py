"""Connection attempts along time: one bar each, from opening to closing."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from netlab.checks import options, whole
from netlab.schemas import CONNECTIONS
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
from netlab.views.text import DASH, counted, legible, seconds
from netlab.views.theme import Theme, theme_named

COLUMNS = (
    "protocol", "direction", "remote_address", "remote_port", "remote_name", "pid", "process",
    "opened_at", "closed_at", "duration_s", "connect_ms", "assured", "state", "error",
)  # fmt: skip
_TITLE = "Connection attempts"
_SEEN = "netlab.capture() sees when they open and close"
_PLOT_IN, _ROW_IN, _AXIS_IN, _GUTTER_IN = 5.2, 0.23, 0.65, 0.12
_ARROWS = {"outgoing": "→", "incoming": "←"}
_FADE_STEPS = 10
_CLOCK_FROM_S = 120.0  # from which span the axis has times of day, not seconds since the start
_CLOCK_STEPS_S = (15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)
_TICKS = 8

Reals = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Bars:
    """What is drawn, one entry per row; times in seconds since `origin`, NaN where unknown."""

    origin: pd.Timestamp
    opened_s: Reals
    connected_s: Reals
    closed_s: Reals
    last_s: float  # the latest time the frame knows of
    failed: npt.NDArray[np.bool_]
    unanswered: npt.NDArray[np.bool_]  # UDP flows that only one side has sent on

    @property
    def pad_s(self) -> float:
        """The space before the first and after the last time, where bars fade into the unknown."""
        return 0.05 * max(self.last_s, 0.001)


@options
@plain_text()
def plot_timeline(connections: pd.DataFrame, *, rows: int = 60, theme: str | None = None) -> Figure:
    """Draw every connection attempt as a bar from its opening to its closing, in order of opening.

    The handshake has a tone of its own, and so has a UDP flow without an answer. An attempt that never
    connected is drawn in the colour of failures, one that broke later ends in it; the errno stands beside
    both. A bar that fades out at the right was still open; one that fades in at the left was open before
    anyone looked. ``curl → host:443`` was opened by curl, ``nginx ← host:50123`` by the other side; a dash
    means that this is not known.

    Parameters
    ----------
    connections
        What `capture.connections()`, `capture.failures()` or `netlab.connections()` returned.
    rows
        How many attempts to draw at most, 1 to 500; failures first, then the earliest. What is left out
        is said in the picture.
    theme
        ``"light"``, ``"dark"``, or None for the one that suits matplotlib's background colour.

    Returns
    -------
    Figure
        A figure that pyplot does not keep: it shows once in a notebook; `savefig` writes it.

    Raises
    ------
    BadInput
        If *connections* is no such frame, or *rows* or *theme* is not in its range.

    Examples
    --------
    >>> import netlab
    >>> with netlab.capture(duration_s=1) as cap:
    ...     pass
    >>> netlab.plot_timeline(cap.connections())
    <Picture size ...>
    """
    look = theme_named(theme)
    most = whole("rows", rows, 1, 500)
    table = needed(
        connections, CONNECTIONS, COLUMNS, drawn_by="plot_timeline", made_by="netlab.capture().connections()"
    )
    footnote = gaps(connections.attrs)
    if table.empty:
        return nothing(look, _TITLE, "There are no connections in this frame", footnote)
    if table["opened_at"].isna().all() and table["closed_at"].isna().all():
        why = f"{counted(len(table), 'connection')}, none with a known time: {_SEEN}"
        return nothing(look, _TITLE, why, footnote)
    return _draw(look, _chosen(table, most), _notes(table, most), footnote)


# -- from the frame to bars ------------------------------------------------------------------------------


def _chosen(table: pd.DataFrame, most: int) -> pd.DataFrame:
    """Return the rows to draw, in order of opening; those open before the start come first."""
    ordered = table.sort_values("opened_at", na_position="first", kind="stable", ignore_index=True)
    worst_first = ordered["error"].isna().sort_values(kind="stable").index
    return ordered.loc[worst_first[:most].sort_values()].reset_index(drop=True)


def _notes(table: pd.DataFrame, most: int) -> list[str]:
    failed = int(table["error"].notna().sum())
    still_open = int((table["closed_at"].isna() & table["error"].isna()).sum())
    counts = f"{counted(len(table), 'attempt')} · {failed} failed · {still_open} still open"
    cut = f"showing {most} of {len(table)}: failures first, then the earliest"
    return [counts, cut] if len(table) > most else [counts]


def _bars(table: pd.DataFrame) -> _Bars:
    opened, closed = (
        table[name].dt.tz_localize(None).to_numpy("M8[ns]") for name in ("opened_at", "closed_at")
    )
    origin = np.nanmin(np.concatenate([opened, closed]))
    unsent = (table["error"].notna() & table["closed_at"].isna() & table["state"].eq("closed")).to_numpy(bool)
    closed = np.where(unsent, opened, closed)  # connect() failed at once, and the socket is still there
    opened_s, closed_s = ((times - origin) / np.timedelta64(1, "s") for times in (opened, closed))
    age_s, connect_ms = (
        table[name].to_numpy(np.float64, na_value=np.nan) for name in ("duration_s", "connect_ms")
    )
    return _Bars(
        pd.Timestamp(origin),
        opened_s,
        opened_s + connect_ms / 1000,
        closed_s,
        float(np.nanmax(np.concatenate([opened_s, closed_s, opened_s + age_s]))),
        table["error"].notna().to_numpy(bool),
        _unanswered(table),
    )


def _unanswered(table: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Return which rows are UDP flows that had no answer; incoming ones are not asked for one."""
    silent = table["protocol"].eq("udp") & table["assured"].eq(other=False).fillna(value=False)
    return (silent & table["direction"].eq("outgoing")).to_numpy(bool)


def _labels(table: pd.DataFrame) -> list[str]:
    return [_label(row) for row in table.astype(object).where(table.notna(), None).to_dict("records")]


def _label(row: dict[Hashable, Any]) -> str:
    """Return ``process → remote:port`` for one connection."""
    pid = "unknown process" if row["pid"] is None else f"pid {row['pid']}"
    who = legible(row["process"] or pid, 24)
    where = legible(row["remote_name"] or row["remote_address"] or "unknown", 42)
    where = f"[{where}]" if ":" in where else where
    port = DASH if row["remote_port"] is None else row["remote_port"]
    suffix = "" if row["protocol"] in {"tcp", None} else f"/{legible(row['protocol'], 8)}"
    return f"{who} {_ARROWS.get(str(row['direction']), DASH)} {where}:{port}{suffix}"


# -- from bars to ink ------------------------------------------------------------------------------------


def _draw(theme: Theme, table: pd.DataFrame, notes: list[str], footnote: str) -> Picture:
    labels = _labels(table)
    lengths = [seconds(value) for value in table["duration_s"]]
    errors = [legible(value, 24) if isinstance(value, str) else "" for value in table["error"]]
    left = MARGIN_IN + text_width_in(labels) + _GUTTER_IN
    lengths_in = text_width_in([*lengths, "duration"]) + _GUTTER_IN
    errors_in = text_width_in([*errors, "error"] if any(errors) else []) + _GUTTER_IN
    heads = max(text_width_in([_TITLE], TITLE_PT, "bold"), text_width_in(notes))
    width = max(left + _PLOT_IN + lengths_in + errors_in, heads + MARGIN_IN) + MARGIN_IN
    plot_in = width - left - lengths_in - errors_in - MARGIN_IN
    first = MARGIN_IN + (len(notes) + 2.8) * LINE_IN
    height = first + len(labels) * _ROW_IN + _AXIS_IN + MARGIN_IN + LINE_IN * bool(footnote)

    picture = Picture(theme, width_in=width, height_in=height)
    picture.head(MARGIN_IN, _TITLE, notes)
    lengths_x = left + plot_in + lengths_in
    errors_x = lengths_x + _GUTTER_IN
    heading: dict[str, Any] = {"fontsize": SMALL_PT, "color": theme.muted}
    picture.write(lengths_x, first - LINE_IN / 2, "duration", ha="right", **heading)
    picture.write(errors_x, first - LINE_IN / 2, "error" if any(errors) else "", **heading)
    bars = _bars(table)
    _key(picture, left, first - LINE_IN / 2, "no answer (UDP)" if bars.unanswered.any() else "")
    for place, (label, length, error) in enumerate(zip(labels, lengths, errors, strict=True)):
        at = first + (place + 0.5) * _ROW_IN
        picture.write(left - _GUTTER_IN, at, label, ha="right", color=theme.bad if error else theme.text)
        picture.write(lengths_x, at, length, ha="right")
        picture.write(errors_x, at, error, color=theme.bad)
    _draw_bars(picture.plot_area(left, first, plot_in, len(labels) * _ROW_IN), bars, theme)
    if footnote:
        picture.write(MARGIN_IN, height - MARGIN_IN, footnote, fontsize=SMALL_PT, color=theme.bad)
    return picture


def _key(picture: Picture, x: float, y: float, also: str) -> None:
    """Explain the colours above the bars, each in its own; *also* has the tone of a handshake."""
    theme = picture.theme
    waiting = " · ".join(filter(None, ["connecting", also]))
    entries = {waiting: theme.second, "connected": theme.main, "failed": theme.bad}
    for word, colour in entries.items():
        picture.write(x, y, "■", fontsize=SMALL_PT, color=colour)
        picture.write(x + 0.13, y, word, fontsize=SMALL_PT, color=theme.muted)
        x += 0.13 + text_width_in([word], SMALL_PT) + 0.15
    picture.write(x, y, "fading: opened earlier, or still open", fontsize=SMALL_PT, color=theme.muted)


def _draw_bars(axes: Axes, bars: _Bars, theme: Theme) -> None:
    places = np.arange(len(bars.opened_s))
    before, after = np.isnan(bars.opened_s), np.isnan(bars.closed_s)
    start = np.where(before, 0.0, bars.opened_s)
    end = np.where(after, bars.last_s, bars.closed_s)
    connected = ~np.isnan(bars.connected_s)
    plain = np.where(bars.unanswered, theme.second, theme.main)
    colours = np.where(bars.failed & ~connected, theme.bad, plain)
    axes.barh(places, end - start, left=start, height=0.62, color=colours, edgecolor=colours, lw=0.8)
    axes.barh(
        places[connected],
        (bars.connected_s - start)[connected],
        left=start[connected],
        height=0.62,
        color=theme.second,
    )
    broken = places[bars.failed & connected]
    axes.vlines(end[broken], broken - 0.4, broken + 0.4, color=theme.bad, lw=3)
    _fade(axes, places[before], 0.0, -bars.pad_s, colours[before])
    _fade(axes, places[after], bars.last_s, bars.pad_s, colours[after])
    axes.set_ylim(len(places) - 0.5, -0.5)
    axes.set_yticks([])
    axes.set_xlim(-bars.pad_s, bars.last_s + bars.pad_s)
    axes.grid(axis="x", color=theme.grid, lw=0.6)
    axes.set_axisbelow(True)
    _tell_time(axes, bars, theme)


def _fade(
    axes: Axes, places: npt.NDArray[np.intp], from_s: float, by_s: float, colours: npt.NDArray[np.str_]
) -> None:
    """Let bars run out from *from_s* over *by_s* seconds, negative to the left."""
    step = by_s / _FADE_STEPS
    for number in range(_FADE_STEPS):
        strength = 1 - (number + 1) / (_FADE_STEPS + 1)
        axes.barh(places, step, left=from_s + number * step, height=0.62, color=colours, alpha=strength, lw=0)


def _tell_time(axes: Axes, bars: _Bars, theme: Theme) -> None:
    """Label the axis in ms or s since the first time, or with times of day over longer spans; all UTC."""
    style: dict[str, Any] = {"fontsize": SMALL_PT, "color": theme.muted, "loc": "left"}
    if bars.last_s >= _CLOCK_FROM_S:
        first, last = bars.origin, bars.origin + pd.Timedelta(seconds=bars.last_s)
        ticks = _round_times(first, last, bars.last_s)
        axes.set_xticks((ticks - first).total_seconds().tolist(), _clock_labels(ticks))
        axes.set_xlabel(f"time (UTC), {first:%Y-%m-%d %H:%M:%S} to {last:%Y-%m-%d %H:%M:%S}", **style)
        return
    unit, factor = ("milliseconds", 1000) if bars.last_s < 0.5 else ("seconds", 1)
    axes.xaxis.set_major_locator(MaxNLocator(_TICKS, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * factor:g}"))
    axes.set_xlabel(f"{unit} since {bars.origin:%Y-%m-%d %H:%M:%S.%f} UTC", **style)


def _round_times(first: pd.Timestamp, last: pd.Timestamp, span_s: float) -> pd.DatetimeIndex:
    fitting = (step for step in _CLOCK_STEPS_S if span_s / step <= _TICKS)
    step_s = next(fitting, 86_400 * math.ceil(span_s / _TICKS / 86_400))
    return pd.date_range(first.ceil(f"{step_s}s"), last, freq=f"{step_s}s")


def _clock_labels(times: pd.DatetimeIndex) -> list[str]:
    """Return times of day, with the date under each midnight."""
    form = "%H:%M:%S" if (times.second != 0).any() else "%H:%M"
    return [
        f"{time:{form}}\n{time:%m-%d}" if time == time.normalize() else f"{time:{form}}" for time in times
    ]
