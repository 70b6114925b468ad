"""Labels of lines between boxes: each where it hides no other."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from matplotlib.axes import Axes

from netlab.views.layers import Point
from netlab.views.picture import SMALL_PT, text_width_in
from netlab.views.theme import Theme

_PLACES = (0.5, 0.35, 0.65, 0.22, 0.78)  # where along a line its label may stand, best first
_UPRIGHT_IN = 0.05  # a line that leans less stands upright
_LABEL_IN, _GAP_IN = 0.15, 0.03


@dataclass(slots=True)
class LineLabels:
    """The labels of one picture, whose lines are on both sides of *middle_in*, in inches."""

    axes: Axes
    theme: Theme
    middle_in: float
    _taken: list[tuple[float, float, float]] = field(default_factory=list)  # the middle, and half the width

    def write(self, text: str, start: Point, end: Point, colour: str) -> None:
        """Write *text* beside the line where no other label stands, on an upright one.

        Crowded out, it is left to the graph's data.
        """
        if not text:
            return
        half = text_width_in([text], SMALL_PT) / 2 + _GAP_IN
        aside = half * self._outside(start, end)
        for part in _PLACES:
            x, y = (one + part * (other - one) for one, other in zip(start, end, strict=True))
            if self._is_free(x + aside, y, half):
                self._taken.append((x + aside, y, half))
                paper = {"boxstyle": "square,pad=0.1", "fc": self.theme.background, "ec": "none"}
                where: dict[str, Any] = {"ha": "center", "va": "center", "zorder": 2, "bbox": paper}
                self.axes.text(x + aside, y, text, fontsize=SMALL_PT, color=colour, **where)
                return

    def _outside(self, start: Point, end: Point) -> int:
        """Return on which side of a line is more room: -1 left, 1 right, 0 none."""
        beside_in = start[0] + end[0] - 2 * self.middle_in
        if abs(start[0] - end[0]) < _UPRIGHT_IN or abs(beside_in) < _UPRIGHT_IN:
            return 0
        return int(math.copysign(1, beside_in))

    def _is_free(self, x: float, y: float, half: float) -> bool:
        return all(abs(x - ox) > half + other or abs(y - oy) > _LABEL_IN for ox, oy, other in self._taken)
