"""Round-trip times and losses of hops over the rounds, as small pictures on one scale."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

_WIDTH, _HEIGHT = 240, 30
_STRETCHES, _LEAST_ROUNDS = 50, 5  # at most so many stretches, of at least so many rounds
_QUANTILES = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
_UPPER, _ROOM = 3, 1.25  # the scale ends a quarter above the highest 75 % quantile

Reals = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Course:
    """What one hop answered in each stretch of rounds: `_QUANTILES` of the times (NaN: none), share lost."""

    quantiles_ms: Reals  # stretch, quantile
    lost: Reals


@dataclass(frozen=True, slots=True)
class Charts:
    """The hops' courses by TTL."""

    by_ttl: dict[int, Course]
    rounds: int  # in each stretch
    most_ms: float  # the top of the scale; what is above is cut off


def charts(probes: pd.DataFrame) -> Charts:
    """Return quantiles and losses in stretches of equally many rounds, at each TTL of *probes*."""
    if probes.empty:
        return Charts({}, 0, 0.0)
    runs = probes["run"].to_numpy(np.int64)
    first, count = int(runs.min()), int(runs.max() - runs.min()) + 1
    rounds = max(_LEAST_ROUNDS, -(-count // _STRETCHES))
    stretch = pd.Series((runs - first) // rounds, probes.index, name="stretch")
    groups = probes["rtt_ms"].astype("float64").groupby([probes["ttl"].astype("int64"), stretch])
    lost = probes["address"].isna().groupby([probes["ttl"].astype("int64"), stretch]).mean()
    quantiles = groups.quantile(_QUANTILES).unstack()  # noqa: PD010 - the quantiles are one level
    stretches = range(-(-count // rounds))
    courses = {
        ttl: Course(
            quantiles.loc[ttl].reindex(stretches).to_numpy(np.float64),
            lost.loc[ttl].reindex(stretches).to_numpy(np.float64),
        )
        for ttl in quantiles.index.unique(0).tolist()
    }
    highest = quantiles.iloc[:, _UPPER].max()  # one slow answer must not flatten all the others
    return Charts(courses, rounds, 0.0 if pd.isna(highest) else _ROOM * float(highest))


def chart(course: Course, most_ms: float) -> str:
    """Return an SVG: 5 to 95 % and 25 to 75 % of the times as bands, the median, losses from the top."""
    low, lower, middle, upper, high = np.minimum(
        course.quantiles_ms * (_HEIGHT / (most_ms or 1.0)), _HEIGHT
    ).T
    step = _WIDTH / len(course.lost)
    lost = np.where(course.lost > 0, course.lost * _HEIGHT, np.nan)
    zero = np.zeros(len(lost))
    return (
        f'<svg class="netlab-chart" role="img" width="{_WIDTH}" height="{_HEIGHT}">'
        f"<title>{_said(course)}</title>"
        f'<path class="netlab-outer" d="{_band(low, high, step)}"/>'
        f'<path class="netlab-inner" d="{_band(lower, upper, step)}"/>'
        f'<path class="netlab-median" d="{_band(middle - 0.75, middle + 0.75, step)}"/>'
        f'<path class="netlab-bad" d="{_band(_HEIGHT - lost, _HEIGHT + zero, step)}"/>'
        "</svg>"
    )


def _band(low: Reals, high: Reals, step: float) -> str:
    """Return SVG path commands for a bar per stretch; at least a hair high, none where it is not known."""
    bars: Iterable[tuple[int, float, float]] = zip(
        range(len(low)), low.tolist(), np.maximum(high, low + 0.8).tolist(), strict=True
    )
    return "".join(
        f"M{number * step:.1f} {_HEIGHT - top:.1f}h{step:.1f}v{top - bottom:.1f}h-{step:.1f}z"
        for number, bottom, top in bars
        if not np.isnan(bottom)
    )


def _said(course: Course) -> str:
    known = course.lost[~np.isnan(course.lost)]
    losing = int((known > 0).sum())
    return f"losses in {losing} of {len(known)} stretches" if losing else "no losses"
