"""Connections from left to right, from who calls to who is called: boxes in columns, lines between them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import networkx as nx
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from netlab.checks import options, whole
from netlab.errors import BadInput
from netlab.tracer.graph import connection_graph
from netlab.views import cards
from netlab.views.cards import Card, Line
from netlab.views.flows import HEADINGS, Box, Column, Flows, Graph, Id, Tally, flows
from netlab.views.picture import (
    LINE_IN,
    MARGIN_IN,
    SMALL_PT,
    Picture,
    gaps,
    nothing,
    plain_text,
    text_width_in,
)
from netlab.views.text import counted, share
from netlab.views.theme import Theme, theme_named

_TITLE = "Connections"
_NODE, _EDGE = {"kind", "connections", "failures"}, {"kind", "connections", "failures", "direction", "port"}
_KEY = "from left to right as they were opened; wider lines: more connections"
_FAILED = "orange, dashed: failed attempts"
_GAP_IN, _PASS_IN = 0.14, 0.12
_BETWEEN_IN, _MORE_IN, _MOST_IN = 0.45, 0.025, 2.2  # between columns, more for each line, and at most
_THINNEST_PT, _WIDEST_PT = 1.0, 7.0
_FEW = 20  # of more lines each is thinner, or they would cover each other; so is one of fewer connections


@options
@plain_text()
def plot_connections(
    connections: pd.DataFrame | Graph, *, rows: int = 12, theme: str | None = None
) -> Figure:
    """Draw who talks to whom: processes, what they call and who calls them, translations and next hops.

    Whatever is on the left opened the connections to what is on the right. Each box says how many, how long
    the round trip takes (median; of several edges the range of their medians), how many bytes went both ways
    and what failed. Boxes with failures come first.

    Parameters
    ----------
    connections
        What `Capture.connections()` or `netlab.connections()` returned, or what `netlab.connection_graph`
        made of it.
    rows
        How many boxes to draw in one column at most, 2 to 60: those with most failures, then those with most
        connections. The others are one box together, which says how many they are.
    theme
        ``"light"``, ``"dark"``, or None for the one that suits matplotlib's background colour.

    Returns
    -------
    Figure
        A figure that pyplot does not keep: it shows once in a notebook; `savefig` writes it.

    Raises
    ------
    BadInput
        If *connections* is neither such a frame nor such a graph, or *rows* or *theme* is not in its range.

    Examples
    --------
    >>> import netlab
    >>> netlab.plot_connections(netlab.connections())
    <Picture size ...>
    """
    look, most = theme_named(theme), whole("rows", rows, 2, 60)
    graph = _graph(connections)
    if not graph:
        why = "There are no connections with a peer in this data"
        return nothing(look, _TITLE, why, gaps(graph.graph))
    every = flows(graph)
    return _draw(look, every.kept(most), _notes(graph, every, most), gaps(graph.graph))


def _graph(connections: object) -> Graph:
    if not isinstance(connections, nx.MultiDiGraph):
        if isinstance(connections, nx.Graph):
            raise _not_ours()
        return connection_graph(cast("pd.DataFrame", connections))  # which refuses anything else
    nodes = all(set(data) >= _NODE for _, data in connections.nodes(data=True))
    if nodes and all(set(data) >= _EDGE for *_, data in connections.edges(data=True)):
        return connections
    raise _not_ours()


def _not_ours() -> BadInput:
    return BadInput(
        "plot_connections() draws connection graphs", fix="Pass what netlab.connection_graph() returned"
    )


def _notes(graph: Graph, every: Flows, most: int) -> list[str]:
    ends = [data for *_, data in graph.edges(data=True) if data["kind"] == "connects"]
    total, failed = (sum(data[name] for data in ends) for name in ("connections", "failures"))
    kinds = [data["kind"] for _, data in graph.nodes(data=True)]
    notes = [
        " · ".join(
            [
                counted(total, "connection"),
                f"{failed} failed ({share(failed, total)})" if failed else "none failed",
                counted(kinds.count("process"), "process", "processes"),
                counted(kinds.count("address"), "address", "addresses"),
            ]
        )
    ]
    if any(len(every.column(column)) > most for column in Column):
        notes.append(f"the {most - 1} in each column that failed or were used most, the others together")
    return [*notes, f"{_KEY} · {_FAILED}" if failed else _KEY]


# -- where it is drawn -----------------------------------------------------------------------------------


def _lines(box: Box, theme: Theme) -> tuple[Line, ...]:
    strong = "normal" if box.rest else "bold"
    lines = [Line(box.title, theme.text, weight=strong)]
    lines += [Line(note, theme.muted, SMALL_PT) for note in (*box.notes, box.figures) if note]
    return (*lines, *([Line(box.failed, theme.bad, SMALL_PT, "bold")] if box.failed else []))


def _through(kept: Flows) -> dict[tuple[Id, Id], Tally | None]:
    """Return the lines cut at the columns that they pass, and give them a place there."""
    used = sorted({box.column for box in kept.boxes.values()})
    cut: dict[tuple[Id, Id], Tally | None] = {}
    for (near, far), tally in kept.lines.items():
        first, last = kept.boxes[near].column, kept.boxes[far].column
        stops: list[Id] = [near, *(("pass", one, near, far) for one in used if first < one < last), far]
        cut.update(dict.fromkeys(itertools.pairwise(stops), tally))
    return cut


def _places(
    kept: Flows, lines: Mapping[tuple[Id, Id], Tally | None], theme: Theme, top_in: float
) -> dict[Id, Card]:
    """Stack the boxes of each column, ordered by where their lines come from, and centre the columns."""
    columns: dict[Column, list[Id]] = {}
    for name, box in kept.boxes.items():
        columns.setdefault(box.column, []).append(name)
    for name in dict.fromkeys(end for pair in lines for end in pair if end[0] == "pass"):
        columns[name[1]].append(name)  # type: ignore[index]
    sized = {name: cards.card(_lines(box, theme)) for name, box in kept.boxes.items()}
    place = Card((), 0.0, _PASS_IN)
    sized |= {name: place for names in columns.values() for name in names if name[0] == "pass"}
    placed: dict[Id, Card] = {}
    x = MARGIN_IN
    for column in sorted(columns):
        width = max(
            [text_width_in([HEADINGS[column]], SMALL_PT), *(sized[name].width_in for name in columns[column])]
        )
        for name in columns[column]:
            sized[name] = replace(sized[name], x_in=x + width / 2, width_in=width)
        here = set(columns[column])
        x += width + min(_BETWEEN_IN + _MORE_IN * sum(near in here for near, _ in lines), _MOST_IN)
    middle = Column.PROCESS
    for column in sorted(columns, key=lambda one: (abs(one - middle), one)):
        names = sorted(columns[column], key=lambda name: _pull(name, kept, lines, placed))
        height = sum(sized[name].height_in + _GAP_IN for name in names) - _GAP_IN
        y = -height / 2
        for name in names:
            placed[name] = replace(sized[name], y_in=y + sized[name].height_in / 2)
            y += sized[name].height_in + _GAP_IN
    highest = min(one.top_in for one in placed.values())
    return {name: replace(one, y_in=one.y_in - highest + top_in) for name, one in placed.items()}


def _pull(
    name: Id, kept: Flows, lines: Mapping[tuple[Id, Id], Tally | None], placed: Mapping[Id, Card]
) -> tuple[bool, float, float, float]:
    """Return what boxes are ordered by: the mean place of their neighbours, so that lines cross less."""
    box = kept.boxes.get(name)
    ends = [
        placed[other].y_in
        for pair in lines
        for other, end in (pair, pair[::-1])
        if end == name and other in placed
    ]
    mean = sum(ends) / len(ends) if ends else 0.0
    tally = box.tally if box else Tally()
    return bool(box and box.rest), mean, -tally.failures, -tally.connections


# -- ink -------------------------------------------------------------------------------------------------


def _draw(theme: Theme, kept: Flows, notes: list[str], footnote: str) -> Picture:
    first = MARGIN_IN + (len(notes) + 3) * LINE_IN
    lines = _through(kept)
    places = _places(kept, lines, theme, first)
    picture, axes = cards.sheet(theme, places.values(), _TITLE, notes, footnote)
    for column in {box.column for box in kept.boxes.values()}:
        middle = next(places[name].x_in for name in kept.column(column))
        heading = {"ha": "center", "fontsize": SMALL_PT, "color": theme.muted}
        picture.write(middle, first - LINE_IN, HEADINGS[column], **heading)
    _draw_lines(axes, lines, places, theme)
    for name, box in kept.boxes.items():
        edge = theme.bad if box.failed else theme.main if box.column is Column.PROCESS else theme.muted
        cards.draw(picture, axes, places[name], edge=edge, strong=bool(box.failed), dashed=box.rest)
    return picture


def _draw_lines(
    axes: Axes, lines: Mapping[tuple[Id, Id], Tally | None], places: Mapping[Id, Card], theme: Theme
) -> None:
    told = {pair: tally for pair, tally in lines.items() if tally and not any(map(_is_rest, pair))}
    most = max([_FEW, *(tally.connections for tally in told.values())])
    widest_pt = max(_WIDEST_PT * min(1.0, _FEW / max(len(told), 1)), 1.5 * _THINNEST_PT)
    for (near, far), tally in lines.items():
        ends = places[near], places[far]
        if tally is None or (near, far) not in told:
            style = ":" if tally is None else "-"
            _draw_line(axes, *ends, colour=theme.muted, linestyle=style, linewidth=0.8, zorder=1)
            continue
        good = tally.connections - tally.failures
        if good:
            width = _width_pt(tally.connections / most, widest_pt)
            _draw_line(axes, *ends, colour=theme.second, linestyle="-", linewidth=width, zorder=1)
        if tally.failures:
            width = min(max(_width_pt(tally.failures / most, widest_pt), 1.6), 3.0)
            _draw_line(axes, *ends, colour=theme.bad, linestyle="--", linewidth=width, zorder=2)


def _is_rest(name: Id) -> bool:
    """Tell whether a line's end is a box of what did not fit, or a place that a line from there passes."""
    ends = name[2:] if name[0] == "pass" else (name,)
    return any(isinstance(end, tuple) and end[0] == "rest" for end in ends)


def _width_pt(share_of_most: float, widest_pt: float) -> float:
    return _THINNEST_PT + (widest_pt - _THINNEST_PT) * math.sqrt(share_of_most)


def _draw_line(
    axes: Axes, near: Card, far: Card, *, colour: str, linestyle: str, linewidth: float, zorder: int
) -> None:
    """Draw a curve from the right side of one box to the left side of another, and on to where it passes."""
    start, end = near.right_in, far.left_in
    beyond = end if far.lines else far.right_in
    half = (start + end) / 2
    points = [(start, near.y_in), (half, near.y_in), (half, far.y_in), (end, far.y_in), (beyond, far.y_in)]
    codes = [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4, Path.LINETO]
    path = Path(points, codes)
    style = {"facecolor": "none", "edgecolor": colour, "linestyle": linestyle, "linewidth": linewidth}
    axes.add_patch(PathPatch(path, zorder=zorder, capstyle="butt", **style))
