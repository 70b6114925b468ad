"""The axis of measured times that pictures share."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from netlab.views.picture import SMALL_PT
from netlab.views.theme import Theme

_LOG_FROM = 100.0  # largest over smallest time from which a linear axis hides the small ones


def time_axis(axes: Axes, times_ms: npt.NDArray[np.floating[Any]], key: str, theme: Theme) -> None:
    """Start the axis at 0 ms, or make it logarithmic when a linear one would hide the small times.

    *key* is written under it, with `{scale}` where it says that the axis is logarithmic.
    """
    logarithmic = times_ms.min() > 0 and times_ms.max() / times_ms.min() > _LOG_FROM
    if logarithmic:
        axes.set_xscale("log")
        axes.set_xlim(times_ms.min() / 1.3, times_ms.max() * 1.3)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(FuncFormatter(lambda _, __: ""))
    else:
        axes.set_xlim(min(0.0, times_ms.min()), 1.05 * times_ms.max() or 1.0)
        axes.ticklabel_format(axis="x", style="plain", useOffset=False)
    axes.grid(axis="x", color=theme.grid, lw=0.6)
    axes.set_axisbelow(True)
    scale = ", logarithmic" if logarithmic else ""
    axes.set_xlabel(key.format(scale=scale), fontsize=SMALL_PT, color=theme.muted, loc="left")
