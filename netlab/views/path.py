"""A path graph as a picture: addresses as cards by TTL, the steps between them as lines."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import networkx as nx
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from netlab.checks import options
from netlab.errors import BadInput
from netlab.path.graph import path_graph
from netlab.schemas import HOPS
from netlab.views import cards, hops as hop_picture, layers
from netlab.views.cards import Card, Line
from netlab.views.layers import Graph
from netlab.views.linelabels import LineLabels
from netlab.views.picture import (
    LINE_IN,
    MARGIN_IN,
    SMALL_PT,
    Picture,
    gaps,
    needed,
    nothing,
    plain_text,
)
from netlab.views.text import MINUS, counted, legible, milliseconds, share, significant
from netlab.views.theme import Theme, theme_named

_LABEL = re.compile(r"L=(\d+)")  # in a stack as the column `mpls` has it
_NODE = ("ttl", "rtt_ms", "probes", "answers", "reached", "name", "silent", "source")
_MORE = (  # columns of hops that recordings of older versions lack
    "trace", "host", "netns", "interface", "source_address", "source_port", "rewritten", "mpls",
    "asn", "as_name",
)  # fmt: skip
_KEY = "in the boxes the median round-trip time, on the lines its increase; wider lines carried more probes"
_SURE = "sure: how likely a balancer has no more next hops than the lines that leave it"
_UNSURE = "dashed: one trace met several addresses at both ends, so not every such line need be a link"


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
    footnote = hop_picture.lacking(path) if isinstance(path, pd.DataFrame) else gaps(graph.graph)
    if len(graph) < 2:
        return nothing(look, "Path", "There are no answered probes in this data", footnote)
    found = _cards(graph, look)
    kept = layers.kept(graph, found)
    return _draw(look, graph, kept, found, [*_notes(graph, kept), _KEY], footnote=footnote)


@plain_text()
def sketch(graph: Graph, theme: Theme) -> Picture:
    """Return the picture of a path graph without its notes, for a place where they stand elsewhere."""
    found = _cards(graph, theme)
    return _draw(theme, graph, layers.kept(graph, found), found, [])


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
        yield f"showing {len(kept)} of {len(graph)}: at each TTL those that answered most"
    repeats = nx.number_of_selfloops(graph)
    if repeats:
        yield f"{counted(repeats, 'router')} answered at two TTLs in a row (not drawn)"
    if any(attributes.get("balances") and attributes.get("confidence") is not None for attributes in data):
        yield _SURE
    if not all(certain for *_, certain in graph.edges(data="certain", default=True)):
        yield _UNSURE


def _lines(node: str, data: Mapping[str, Any], theme: Theme) -> tuple[Line, ...]:
    if data["source"]:
        name = legible(node.removeprefix("source "), 60) if " " in node else "this host"
        return (Line(name, theme.text, weight="bold"),)
    if data["silent"]:
        return (Line("no answer", theme.muted),)
    lost = _loss(data)
    figures = " · ".join([milliseconds(data["rtt_ms"]), *([lost] if lost else [])])
    lines = [Line(legible(node, 60), theme.text, weight="bold" if data["reached"] else "normal")]
    if data["name"]:
        lines.append(Line(legible(data["name"], 42), theme.muted, SMALL_PT))
    lines.append(Line(figures, theme.bad if lost else theme.muted, SMALL_PT))
    return (*lines, *(Line(legible(mark, 42), theme.text, SMALL_PT) for mark in _marks(data)))


def _loss(data: Mapping[str, Any]) -> str:
    """Return the loss in words, nothing where there is none; of what others may have lost it is the most."""
    shared = data.get("shared") or 0
    lost, probes = data["probes"] - data["answers"] + shared, data["probes"] + shared
    return f"loss {'up to ' if shared else ''}{share(lost, probes)}" if lost else ""


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


# -- ink -------------------------------------------------------------------------------------------------


def _cards(graph: Graph, theme: Theme) -> dict[str, Card]:
    return {node: cards.card(_lines(node, data, theme)) for node, data in graph.nodes(data=True)}


def _draw(
    theme: Theme,
    graph: Graph,
    kept: Graph,
    found: Mapping[str, Card],
    notes: list[str],
    *,
    footnote: str = "",
) -> Picture:
    places = layers.placed(kept, found, MARGIN_IN + (len(notes) + 2) * LINE_IN)
    beside_in = layers.BULGE_IN
    picture, axes = cards.sheet(theme, places.values(), _title(graph), notes, footnote, beside_in=beside_in)
    shown = layers.by_ttl(kept)
    for ttl, layer in layers.by_ttl(graph).items():
        _write_ttl(picture, ttl, len(layer) - len(shown[ttl]), places[shown[ttl][0]].y_in)
    _draw_lines(axes, kept, places, theme)
    for node, card in places.items():
        data = kept.nodes[node]
        edge = theme.good if data["reached"] else theme.muted if data["silent"] else theme.main
        cards.draw(picture, axes, card, edge=edge, strong=data["reached"], dashed=data["silent"])
    return picture


def _write_ttl(picture: Picture, ttl: int, more: int, at: float) -> None:
    style: dict[str, Any] = {"color": picture.theme.muted}
    picture.write(MARGIN_IN, at - bool(more) * LINE_IN / 2, f"TTL {ttl}" if ttl else "", **style)
    if more:
        picture.write(MARGIN_IN, at + LINE_IN / 2, f"+ {more} more", fontsize=SMALL_PT, **style)


def _draw_lines(axes: Axes, graph: Graph, places: Mapping[str, Card], theme: Theme) -> None:
    most = max((data["probes"] or 1 for *_, data in graph.edges(data=True)), default=1)
    across_in = [card.x_in for card in places.values()]
    labels = LineLabels(axes, theme, (min(across_in) + max(across_in)) / 2)
    steps_of = [(near, far, data, _own_loss(graph, far, data)) for near, far, data in graph.edges(data=True)]
    for near, far, data, lost in sorted(steps_of, key=lambda step: not step[3]):  # what is lost has a label
        if near == far:
            continue
        steps = graph.nodes[far]["ttl"] - graph.nodes[near]["ttl"]
        start, end, bend = layers.course(places[near], places[far], steps)
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
            color=theme.bad if lost else theme.second,
            zorder=1,
        )
        axes.add_patch(line)
        if not bend:
            labels.write(_step_label(data, lost), start, end, theme.bad if lost else theme.text)


def _own_loss(graph: Graph, far: str, data: Mapping[str, Any]) -> str:
    """Return the loss of a step where the box behind it cannot tell whose it is."""
    return _loss(data) if graph.in_degree(far) > 1 and not graph.nodes[far]["silent"] else ""


def _step_label(data: Mapping[str, Any], lost: str) -> str:
    """Return the increase of the round-trip time, and the loss."""
    rise = data.get("rtt_increase_ms")
    parts = [] if rise is None else [f"{'+' if rise >= 0 else MINUS}{significant(abs(rise))} ms"]
    return " · ".join([*parts, lost] if lost else parts)
