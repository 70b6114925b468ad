"""A path graph from top to bottom, as the packets go: one line of boxes per TTL.

Downwards and not to the right, because addresses are wide and flat: thirty hops of IPv6 stay legible
at the width of a notebook, and branches have room beside each other.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import networkx as nx
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from netlab.checks import options
from netlab.errors import BadInput
from netlab.path.graph import path_graph
from netlab.schemas import HOPS
from netlab.views import hops as hop_picture
from netlab.views.picture import (
    LINE_IN,
    MARGIN_IN,
    SMALL_PT,
    TEXT_PT,
    TITLE_PT,
    Picture,
    gaps,
    needed,
    nothing,
    plain_text,
    text_width_in,
)
from netlab.views.text import MINUS, counted, legible, milliseconds, share, significant
from netlab.views.theme import Theme, theme_named

_LABEL = re.compile(r"L=(\d+)")  # in a stack as the column `mpls` has it
Graph: TypeAlias = "nx.DiGraph[str]"  # generic for type checkers only
_NODE = ("ttl", "rtt_ms", "probes", "answers", "reached", "name", "silent", "source")
_MORE = (  # columns of hops that recordings of older versions lack
    "trace", "host", "netns", "source_address", "source_port", "rewritten", "mpls", "asn", "as_name",
)  # fmt: skip
_KEY = "in the boxes the median round-trip time, on the lines its increase; wider lines carried more probes"
_SURE = "sure: how likely a balancer has no more next hops than the lines that leave it"
_UNSURE = "dashed: one trace met several addresses at both ends, so not every such line need be a link"
_TTL_IN, _PAD_IN, _GAP_IN, _STEP_IN, _BULGE_IN = 0.58, 0.1, 0.25, 0.52, 0.4
_MOST_BESIDE = 16  # boxes at one TTL
_PLACES = (0.5, 0.35, 0.65, 0.22, 0.78)  # where along a line its label may stand, best first
_LABEL_IN = 0.15


@dataclass(frozen=True, slots=True)
class _Line:
    """One line of text in a box."""

    text: str
    size_pt: float
    weight: str
    colour: str


@dataclass(frozen=True, slots=True)
class _Box:
    """One node: what is written in it and, in inches from the top left, where it is."""

    lines: tuple[_Line, ...]
    width_in: float
    x_in: float = 0.0
    y_in: float = 0.0

    @property
    def height_in(self) -> float:
        return LINE_IN * len(self.lines) + 0.1


@options
@plain_text()
def plot_path(path: pd.DataFrame | Graph, *, theme: str | None = None) -> Figure:
    """Draw which way the packets went: addresses as boxes by TTL, steps between them as lines.

    Boxes show the address, its name, the median round-trip time and the loss, and where they are known the
    AS, MPLS labels, what a NAT rewrites, and of `netlab.multipath` the balancers and how sure it is that no
    branch is missing; lines the increase of the round-trip time. A dashed box is a TTL where nothing
    answered; a dashed line may be no link, because one trace met several addresses at both of its ends.

    Parameters
    ----------
    path
        What `netlab.traceroute` returned, several of these concatenated, or what `netlab.path_graph` made
        of them.
    theme
        ``"light"``, ``"dark"``, or None for the one that suits matplotlib's background colour.

    Returns
    -------
    Figure
        A figure that pyplot does not keep: it shows once in a notebook; `savefig` writes it.

    Raises
    ------
    BadInput
        If *path* is neither such a frame nor such a graph, or *theme* is not known.

    Examples
    --------
    >>> import netlab
    >>> netlab.plot_path(netlab.traceroute("127.0.0.1"))
    <Picture size ...>
    """
    look = theme_named(theme)
    graph = _graph(path)
    if len(graph) < 2:
        return nothing(look, "Path", "There are no answered probes in this data")
    kept = _kept(graph)
    return _draw(look, kept, _title(graph), [*_notes(graph, kept), _KEY], gaps(graph.graph))


def _graph(path: object) -> Graph:
    if isinstance(path, nx.DiGraph):
        if all(set(_NODE) <= set(data) for _, data in path.nodes(data=True)):
            return path
        raise BadInput("plot_path() draws path graphs", fix="Pass what netlab.path_graph() returned")
    path = hop_picture.probed(path)
    there = getattr(path, "columns", ())
    columns = [*hop_picture.COLUMNS, *(name for name in _MORE if name in there)]
    made_by = "netlab.traceroute()"
    table = needed(path, HOPS, columns, drawn_by="plot_path", made_by=made_by, filled=["target", "ttl"])
    table.attrs = getattr(path, "attrs", {})
    return path_graph(table)


# -- what is drawn and said ------------------------------------------------------------------------------


def _kept(graph: Graph) -> Graph:
    """Return the graph with the most heard of those nodes that fit beside each other."""
    kept = [node for layer in _layers(graph).values() for node in layer[:_MOST_BESIDE]]
    return graph.subgraph(kept)


def _layers(graph: Graph) -> dict[int, list[str]]:
    """Return the nodes by TTL, those with most answers first."""
    layers: dict[int, list[str]] = {}
    for node in sorted(graph, key=lambda node: (graph.nodes[node]["ttl"], -graph.nodes[node]["answers"])):
        layers.setdefault(graph.nodes[node]["ttl"], []).append(node)
    return layers


def _title(graph: Graph) -> str:
    target = graph.graph.get("target")
    return f"Path to {legible(target, 80)}" if target else "Path"


def _notes(graph: Graph, kept: Graph) -> Iterator[str]:
    data = [attributes for _, attributes in graph.nodes(data=True) if not attributes["source"]]
    silent = sum(attributes["silent"] for attributes in data)
    reached = sum(attributes["reached"] for attributes in data)
    yield " · ".join(
        [
            counted(len(data) - silent, "address", "addresses"),
            counted(silent, "silent step"),
            f"{counted(reached, 'destination')} reached" if reached else "destination not reached",
        ]
    )
    if len(kept) < len(graph):
        yield f"showing {len(kept)} of {len(graph)}: at each TTL the {_MOST_BESIDE} that answered most"
    repeats = nx.number_of_selfloops(graph)
    if repeats:
        yield f"{counted(repeats, 'router')} answered at two TTLs in a row (not drawn)"
    if any(attributes.get("balances") and attributes.get("confidence") is not None for attributes in data):
        yield _SURE
    if not all(certain for *_, certain in graph.edges(data="certain", default=True)):
        yield _UNSURE


def _lines(node: str, data: Mapping[str, Any], theme: Theme) -> tuple[_Line, ...]:
    if data["source"]:
        name = legible(node.removeprefix("source "), 60) if " " in node else "this host"
        return (_Line(name, TEXT_PT, "bold", theme.text),)
    if data["silent"]:
        return (_Line("no answer", TEXT_PT, "normal", theme.muted),)
    lost = data["probes"] - data["answers"]
    figures = milliseconds(data["rtt_ms"]) + (f" · loss {share(lost, data['probes'])}" if lost else "")
    lines = [_Line(legible(node, 60), TEXT_PT, "bold" if data["reached"] else "normal", theme.text)]
    if data["name"]:
        lines.append(_Line(legible(data["name"], 42), SMALL_PT, "normal", theme.muted))
    lines.append(_Line(figures, SMALL_PT, "normal", theme.bad if lost else theme.muted))
    return (*lines, *(_Line(legible(mark, 42), SMALL_PT, "normal", theme.text) for mark in _marks(data)))


def _marks(data: Mapping[str, Any]) -> Iterator[str]:
    """Yield what else is known of a node, a line each; graphs from elsewhere may lack all of it."""
    if data.get("asn") is not None:
        yield f"AS{data['asn']} {data.get('as_name') or ''}".rstrip()
    for stack in data.get("mpls") or ():
        yield f"MPLS {', '.join(_LABEL.findall(stack))}"
    if data.get("rewrites"):
        yield f"rewrites {data['rewrites']}"
    if data.get("balances"):
        by = "branches" if data["balances"] == "unknown" else f"balances by {data['balances']}"
        sure = data.get("confidence")
        yield by if sure is None else f"{by} · {_percent(sure)} sure"


def _percent(confidence: float) -> str:
    """Return a confidence rounded down: 100 % is never claimed of less."""
    return f"{math.floor(confidence * 1000) / 10:g} %"


# -- where it is drawn -----------------------------------------------------------------------------------


def _boxes(graph: Graph, theme: Theme, top_in: float) -> dict[str, _Box]:
    """Return the boxes placed by TTL, in each layer ordered by where their lines come from."""
    boxes: dict[str, _Box] = {}
    y = top_in
    for layer in _layers(graph).values():
        sized = {node: _sized(_lines(node, graph.nodes[node], theme)) for node in layer}
        height = max(box.height_in for box in sized.values())
        x = -(sum(box.width_in + _GAP_IN for box in sized.values()) - _GAP_IN) / 2
        for node in sorted(layer, key=lambda node: _pull(graph, boxes, node)):
            box = sized[node]
            boxes[node] = _Box(box.lines, box.width_in, x + box.width_in / 2, y + height / 2)
            x += box.width_in + _GAP_IN
        y += height + _STEP_IN
    left = min(box.x_in - box.width_in / 2 for box in boxes.values())
    shift = MARGIN_IN + _TTL_IN - left
    return {node: _Box(box.lines, box.width_in, box.x_in + shift, box.y_in) for node, box in boxes.items()}


def _sized(lines: tuple[_Line, ...]) -> _Box:
    return _Box(lines, max(text_width_in([x.text], x.size_pt, x.weight) for x in lines) + 2 * _PAD_IN)


def _pull(graph: Graph, boxes: Mapping[str, _Box], node: str) -> float:
    """Return the mean place of the nodes that lead to *node*: ordered by it, lines cross less."""
    places = [boxes[near].x_in for near in graph.predecessors(node) if near in boxes]
    return sum(places) / len(places) if places else 0.0


# -- ink -------------------------------------------------------------------------------------------------


def _draw(theme: Theme, graph: Graph, title: str, notes: list[str], footnote: str) -> Picture:
    boxes = _boxes(graph, theme, MARGIN_IN + (len(notes) + 2) * LINE_IN)
    heads = max(text_width_in([title], TITLE_PT, "bold"), text_width_in(notes)) + MARGIN_IN
    right = max(box.x_in + box.width_in / 2 for box in boxes.values())
    width = max(heads, right + _BULGE_IN) + MARGIN_IN
    height = max(box.y_in + box.height_in / 2 for box in boxes.values()) + 2 * MARGIN_IN
    height += LINE_IN * bool(footnote)
    picture = Picture(theme, width_in=width, height_in=height)
    picture.head(MARGIN_IN, title, notes)
    axes = picture.plot_area(0, 0, width, height)
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    for ttl, layer in _layers(graph).items():
        picture.write(MARGIN_IN, boxes[layer[0]].y_in, f"TTL {ttl}" if ttl else "", color=theme.muted)
    _draw_lines(axes, graph, boxes, theme)
    for node, box in boxes.items():
        _draw_box(picture, axes, box, graph.nodes[node])
    if footnote:
        picture.write(MARGIN_IN, height - MARGIN_IN, footnote, fontsize=SMALL_PT, color=theme.bad)
    return picture


def _draw_box(picture: Picture, axes: Axes, box: _Box, data: Mapping[str, Any]) -> None:
    theme = picture.theme
    corner = (box.x_in - box.width_in / 2, box.y_in - box.height_in / 2)
    edge = theme.good if data["reached"] else theme.muted if data["silent"] else theme.main
    outline = FancyBboxPatch(
        corner,
        box.width_in,
        box.height_in,
        boxstyle="round,pad=0,rounding_size=0.06",
        facecolor=theme.background,
        edgecolor=edge,
        linewidth=2.2 if data["reached"] else 1.2,
        linestyle="--" if data["silent"] else "-",
        zorder=3,
    )
    axes.add_patch(outline)
    for place, line in enumerate(box.lines):
        at = box.y_in + (place - (len(box.lines) - 1) / 2) * LINE_IN
        style = {"fontsize": line.size_pt, "weight": line.weight, "color": line.colour}
        picture.write(box.x_in, at, line.text, ha="center", **style)


def _draw_lines(axes: Axes, graph: Graph, boxes: Mapping[str, _Box], theme: Theme) -> None:
    most = max((data["probes"] or 1 for *_, data in graph.edges(data=True)), default=1)
    taken: list[tuple[float, float, float]] = []
    for near, far, data in graph.edges(data=True):
        if near == far:
            continue
        start, end, bend = _course(
            boxes[near], boxes[far], graph.nodes[far]["ttl"] - graph.nodes[near]["ttl"]
        )
        line = FancyArrowPatch(
            start,
            end,
            connectionstyle=f"arc3,rad={bend}",
            arrowstyle="-|>" if bend else "-",
            mutation_scale=10,
            shrinkA=0,
            shrinkB=0,
            linewidth=1 + 2.5 * (data["probes"] or 1) / most,
            linestyle="-" if data.get("certain", True) else "--",
            color=theme.second,
            zorder=1,
        )
        axes.add_patch(line)
        if not bend:
            _label(axes, _step_label(graph, far, data), (start, end), taken, theme)


def _course(near: _Box, far: _Box, steps: int) -> tuple[tuple[float, float], tuple[float, float], float]:
    """Return where a line begins and ends, and its bend.

    To the next TTL it runs straight from bottom to top. To any other, as in a routing loop or where ways of
    different length meet, it runs around the right side.
    """
    if steps == 1:
        return (near.x_in, near.y_in + near.height_in / 2), (far.x_in, far.y_in - far.height_in / 2), 0.0
    start, end = (near.x_in + near.width_in / 2, near.y_in), (far.x_in + far.width_in / 2, far.y_in)
    length = math.dist(start, end)
    return start, end, math.copysign(2 * _BULGE_IN / length, near.y_in - far.y_in) if length else 0.5


def _step_label(graph: Graph, far: str, data: Mapping[str, Any]) -> str:
    """Return the increase of the round-trip time, and the loss where the box cannot tell whose it is."""
    rise = data.get("rtt_increase_ms")
    parts = [] if rise is None else [f"{'+' if rise >= 0 else MINUS}{significant(abs(rise))} ms"]
    lost = data["probes"] - data["answers"]
    if lost and graph.in_degree(far) > 1 and not graph.nodes[far]["silent"]:
        parts.append(f"loss {share(lost, data['probes'])}")
    return " · ".join(parts)


def _label(
    axes: Axes,
    text: str,
    line: tuple[tuple[float, float], tuple[float, float]],
    taken: list[tuple[float, float, float]],
    theme: Theme,
) -> None:
    """Write *text* on *line* where no other label stands; crowded out, it is left to the graph's data."""
    if not text:
        return
    (x0, y0), (x1, y1) = line
    half = text_width_in([text], SMALL_PT) / 2 + 0.03
    for part in _PLACES:
        x, y = x0 + part * (x1 - x0), y0 + part * (y1 - y0)
        if all(abs(x - ox) > half + other or abs(y - oy) > _LABEL_IN for ox, oy, other in taken):
            taken.append((x, y, half))
            paper = {"boxstyle": "square,pad=0.1", "fc": theme.background, "ec": "none"}
            axes.text(
                x,
                y,
                text,
                fontsize=SMALL_PT,
                color=theme.text,
                ha="center",
                va="center",
                bbox=paper,
                zorder=2,
            )
            return
