"""Cards: lines of text in an outline, and the sheet that pictures of linked cards are drawn on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from netlab.views.picture import LINE_IN, MARGIN_IN, SMALL_PT, TEXT_PT, TITLE_PT, Picture, text_width_in
from netlab.views.theme import Theme

_PAD_IN, _PAD_BELOW_IN = 0.1, 0.1


@dataclass(frozen=True, slots=True)
class Line:
    """One line of text in a card."""

    text: str
    colour: str
    size_pt: float = TEXT_PT
    weight: str = "normal"


@dataclass(frozen=True, slots=True)
class Card:
    """Lines of text and, in inches from the top left, the middle of where they are."""

    lines: tuple[Line, ...]
    width_in: float
    height_in: float
    x_in: float = 0.0
    y_in: float = 0.0

    @property
    def left_in(self) -> float:
        """Its left side."""
        return self.x_in - self.width_in / 2

    @property
    def right_in(self) -> float:
        """Its right side."""
        return self.x_in + self.width_in / 2

    @property
    def top_in(self) -> float:
        """Its upper side."""
        return self.y_in - self.height_in / 2

    @property
    def bottom_in(self) -> float:
        """Its lower side."""
        return self.y_in + self.height_in / 2


def card(lines: Sequence[Line]) -> Card:
    """Return a card that is as large as its text, not placed yet."""
    width = max(text_width_in([line.text], line.size_pt, line.weight) for line in lines)
    return Card(tuple(lines), width + 2 * _PAD_IN, LINE_IN * len(lines) + _PAD_BELOW_IN)


def sheet(
    theme: Theme,
    cards: Collection[Card],
    title: str,
    notes: Sequence[str] = (),
    footnote: str = "",
    *,
    beside_in: float = 0.0,
) -> tuple[Picture, Axes]:
    """Return a picture that holds *cards*, *beside_in* inches free at their right, and axes in inches."""
    heads = max(text_width_in([title], TITLE_PT, "bold"), text_width_in(notes)) + MARGIN_IN
    width = max(heads, max(one.right_in for one in cards) + beside_in) + MARGIN_IN
    height = max(one.bottom_in for one in cards) + 2 * MARGIN_IN + LINE_IN * bool(footnote)
    picture = Picture(theme, width_in=width, height_in=height)
    picture.head(MARGIN_IN, title, notes)
    axes = picture.plot_area(0, 0, width, height)
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    if footnote:
        picture.write(MARGIN_IN, height - MARGIN_IN, footnote, fontsize=SMALL_PT, color=theme.bad)
    return picture, axes


def draw(picture: Picture, axes: Axes, one: Card, *, edge: str, strong: bool, dashed: bool) -> None:
    """Draw a card, its outline in the colour *edge*."""
    outline = FancyBboxPatch(
        (one.left_in, one.top_in),
        one.width_in,
        one.height_in,
        boxstyle="round,pad=0,rounding_size=0.06",
        facecolor=picture.theme.background,
        edgecolor=edge,
        linewidth=2.2 if strong else 1.2,
        linestyle="--" if dashed else "-",
        zorder=3,
    )
    axes.add_patch(outline)
    for row, line in enumerate(one.lines):
        at = one.y_in + (row - (len(one.lines) - 1) / 2) * LINE_IN
        style = {"fontsize": line.size_pt, "weight": line.weight, "color": line.colour}
        picture.write(one.x_in, at, line.text, ha="center", **style)
