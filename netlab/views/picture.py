"""The sheet every picture is drawn on: measured in inches from its top left corner.

Matplotlib's automatic layouts do not know text beside the axes well enough to keep long IPv6 addresses
apart; measuring the text first and placing everything in inches does.
"""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text

from netlab.errors import BadInput
from netlab.frames import Schema
from netlab.views.text import counted
from netlab.views.theme import Theme

MARGIN_IN = 0.15
LINE_IN = 0.19
TITLE_PT, TEXT_PT, SMALL_PT = 11.0, 9.0, 8.0
_DOTS_PER_INCH = 144  # drawn at twice the size it is shown at, for screens that have the dots
_SHOWN_PER_INCH = 72
_WIDEST_IN = 150.0  # Agg refuses 2¹⁶ dots
_COMMENT = re.compile(r" *<!--.*?-->\n", re.DOTALL)  # matplotlib repeats foreign text there, escaped
_RULER: Any = RendererAgg(1, 1, _DOTS_PER_INCH)  # type: ignore[no-untyped-call]


@contextmanager
def plain_text() -> Iterator[None]:
    """Have matplotlib draw text as it stands and as wide as measured: foreign text is never a formula."""
    settings: Any = {
        "text.usetex": False,
        "text.parse_math": False,
        "text.hinting": "no_hinting",  # else what fits at one number of dots per inch is cut off at another
        "axes.grid": False,
    }
    with mpl.rc_context(settings):
        yield


class Picture(Figure):
    """A matplotlib figure that a notebook shows without pyplot keeping it."""

    def __init__(self, theme: Theme, *, width_in: float, height_in: float) -> None:
        super().__init__(
            figsize=(min(width_in, _WIDEST_IN), min(height_in, _WIDEST_IN)),
            dpi=_DOTS_PER_INCH,
            facecolor=theme.background,
        )
        self.theme = theme
        FigureCanvasAgg(self)  # installs itself as the figure's canvas

    def draw(self, renderer: RendererBase) -> None:
        """Draw everything with *renderer*; ticks are made as late as this."""
        with plain_text():
            super().draw(renderer)

    def svg(self) -> str:
        """Return the picture as SVG that can stand in HTML, the same each time: text as outlines."""
        text = io.StringIO()
        with mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": "netlab"}):
            self.savefig(text, format="svg", facecolor=self.get_facecolor(), metadata={"Date": None})
        return _COMMENT.sub("", text.getvalue().partition("<!DOCTYPE")[2].partition(">")[2]).lstrip()

    def _repr_mimebundle_(
        self,
        include: Collection[str] | None = None,  # noqa: ARG002 - IPython filters by itself
        exclude: Collection[str] | None = None,  # noqa: ARG002
    ) -> tuple[dict[str, str | bytes], dict[str, dict[str, int]]]:
        """Return the picture for a notebook as SVG, and as PNG for what shows no SVG, with its size."""
        image = io.BytesIO()
        self.savefig(image, format="png", facecolor=self.get_facecolor(), dpi=_SHOWN_PER_INCH)
        width, height = self.get_size_inches() * _SHOWN_PER_INCH
        size = {"width": round(width), "height": round(height)}
        return {"image/svg+xml": self.svg(), "image/png": image.getvalue()}, {"image/png": size}

    def write(self, x_in: float, y_in: float, text: str, **style: Any) -> Text:
        """Write *text*, its baseline box centred on *y_in* inches from the top."""
        width, height = self.get_size_inches()
        settings: dict[str, Any] = {"color": self.theme.text, "fontsize": TEXT_PT, "va": "center"} | style
        return self.text(x_in / width, 1 - y_in / height, text, **settings)

    def head(self, y_in: float, title: str, notes: Iterable[str] = ()) -> None:
        """Write a bold title and, under it, lines of notes."""
        self.write(MARGIN_IN, y_in + LINE_IN / 2, title, fontsize=TITLE_PT, weight="bold")
        for line, note in enumerate(notes, start=1):
            at = y_in + (line + 0.6) * LINE_IN
            self.write(MARGIN_IN, at, note, color=self.theme.muted)

    def plot_area(self, left_in: float, top_in: float, width_in: float, height_in: float) -> Axes:
        """Return axes at that place, without frame, in the theme's colours."""
        width, height = self.get_size_inches()
        place = (left_in / width, 1 - (top_in + height_in) / height, width_in / width, height_in / height)
        axes = self.add_axes(place, facecolor=self.theme.background)
        axes.spines[:].set_visible(False)
        axes.tick_params(colors=self.theme.muted, labelsize=SMALL_PT, length=3, which="both")
        return axes


def text_width_in(texts: Iterable[str], size_pt: float = TEXT_PT, weight: str = "normal") -> float:
    """Return the width of the widest of *texts* when written, in inches."""
    font = FontProperties(size=size_pt, weight=weight)
    widths = (_RULER.get_text_width_height_descent(text, font, ismath=False)[0] for text in set(texts))
    return max(widths, default=0.0) / _DOTS_PER_INCH


def nothing(theme: Theme, title: str, why: str, footnote: str = "") -> Picture:
    """Return the picture of an empty frame: it says what is not there, and in *footnote* what may be lost."""
    width = max(text_width_in([title], TITLE_PT, "bold"), text_width_in([why, footnote]))
    height = (4 + bool(footnote)) * LINE_IN
    picture = Picture(theme, width_in=width + 2 * MARGIN_IN, height_in=height)
    picture.head(MARGIN_IN, title, [why])
    if footnote:
        picture.write(MARGIN_IN, height - MARGIN_IN, footnote, fontsize=SMALL_PT, color=theme.bad)
    return picture


def gaps(attrs: Mapping[Any, Any]) -> str:
    """Return the footnote on what data with these *attrs* misses; empty when nothing does."""
    if "coverage" not in attrs:
        return "what this data misses is not known: it lost its coverage, which netlab.concat() keeps"
    count = len(attrs["coverage"])
    return f"{counted(count, 'gap')} in this data: see netlab.coverage()" if count else ""


def needed(
    frame: object,
    schema: Schema,
    columns: Sequence[str],
    *,
    drawn_by: str,
    made_by: str,
    filled: Sequence[str] = (),
) -> pd.DataFrame:
    """Return *columns* of *frame* with the schema's dtypes, those in *filled* without a missing value."""
    fix = f"Pass a frame that {made_by} returned"
    if not isinstance(frame, pd.DataFrame):
        raise BadInput(
            f"{drawn_by}() draws {schema.name} frames, not {type(frame).__name__} objects", fix=fix
        )
    lacking = [name for name in columns if name not in frame.columns]
    if lacking:
        kind = frame.attrs.get("schema", "unknown")
        raise BadInput(
            f"{drawn_by}() needs the column {lacking[0]!r}, which this {kind} frame lacks", fix=fix
        )
    try:
        table = schema.frame({name: frame[name] for name in columns})[list(columns)]
    except (TypeError, ValueError) as error:
        raise BadInput(f"{drawn_by}() cannot read this frame: {error}", fix=fix) from error
    for name in filled:
        if table[name].isna().any():
            raise BadInput(f"{drawn_by}() needs {name!r} in every row, and it is missing in one", fix=fix)
    return table
