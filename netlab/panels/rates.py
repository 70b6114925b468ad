"""How many things happened in each of the last seconds, as a small picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from netlab.panels.live import Dated

SPAN_S = 60
_WIDTH, _HEIGHT = 480, 36


def per_second(times: pd.Series[pd.Timestamp], now: pd.Timestamp) -> npt.NDArray[np.intp]:
    """Return how many of *times* fall into each of the last `SPAN_S` seconds, the oldest first."""
    ages = (now - times.dropna()).dt.total_seconds().to_numpy(float)
    seconds = np.floor(ages[(ages >= 0) & (ages < SPAN_S)]).astype(int)
    return np.bincount(seconds, minlength=SPAN_S)[::-1]


def activity(feed: object, what: str, began: pd.Series[Any], failed: pd.Series[Any]) -> str:
    """Return the sparkline of when things began and failed, back from the moment that *feed* shows."""
    now = feed.now() if isinstance(feed, Dated) else pd.Timestamp.now("UTC")
    return sparkline(
        (what, "netlab-main", per_second(began, now)), ("failed", "netlab-bad", per_second(failed, now))
    )


def sparkline(*series: tuple[str, str, npt.NDArray[Any]]) -> str:
    """Return an SVG of bars behind each other and its legend; *series* are (name, CSS class, counts)."""
    highest = max(1, *(int(counts.max(initial=0)) for _, _, counts in series))
    step = _WIDTH / SPAN_S
    bars = "".join(
        f'<rect class="{kind}" x="{place * step:.1f}" width="{step - 1:.1f}" '
        f'y="{_HEIGHT - size:.1f}" height="{size:.1f}"/>'
        for _, kind, counts in series
        for place, size in enumerate((counts * (_HEIGHT / highest)).tolist())
        if size
    )
    said = " · ".join(
        f'<span class="{kind}">{name} {int(counts[-2])}/s</span>' for name, kind, counts in series
    )  # the last whole second
    return (
        f'<div class="netlab-rates"><svg role="img" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'height="{_HEIGHT}" preserveAspectRatio="none"><title>per second, the last {SPAN_S} s</title>'
        f"{bars}</svg>"
        f'<div class="netlab-note">{said} · last {SPAN_S} s, highest {highest}/s</div></div>'
    )
