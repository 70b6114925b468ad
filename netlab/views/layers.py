"""Where the nodes of a path graph are drawn: from top to bottom, as the packets go, a layer for each TTL.

Downwards and not to the right, because addresses are wide and flat: thirty hops of IPv6 stay legible
at the width of a notebook, and branches have room beside each other.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TypeAlias

import networkx as nx

from netlab.views.cards import Card
from netlab.views.picture import MARGIN_IN

Graph: TypeAlias = "nx.DiGraph[str]"  # generic for type checkers only
Point: TypeAlias = tuple[float, float]

BULGE_IN = 0.4  # of lines that run around the side
_TTL_IN, _GAP_IN, _STEP_IN = 0.75, 0.25, 0.52
_WIDEST_IN = 12.5  # of a layer: at the width of a notebook its text is still legible
_FEWEST = 4  # nodes in a layer, however wide


def by_ttl(graph: Graph) -> dict[int, list[str]]:
    """Return the nodes by TTL, those with most answers first."""
    layers: dict[int, list[str]] = {}
    for node in sorted(graph, key=lambda node: (graph.nodes[node]["ttl"], -graph.nodes[node]["answers"])):
        layers.setdefault(graph.nodes[node]["ttl"], []).append(node)
    return layers


def kept(graph: Graph, cards: Mapping[str, Card]) -> Graph:
    """Return the graph with those nodes of each layer that were most heard and fit beside each other."""
    fitting: list[str] = []
    for layer in by_ttl(graph).values():
        rights = itertools.accumulate(cards[node].width_in + _GAP_IN for node in layer)
        fitting += layer[: max(_FEWEST, sum(right <= _WIDEST_IN for right in rights))]
    return graph.subgraph(fitting)


def placed(graph: Graph, cards: Mapping[str, Card], top_in: float) -> dict[str, Card]:
    """Return the nodes' *cards* at their places, in each layer ordered by where their lines come from."""
    places: dict[str, Card] = {}
    y = top_in
    for layer in by_ttl(graph).values():
        height = max(cards[node].height_in for node in layer)
        x = -(sum(cards[node].width_in + _GAP_IN for node in layer) - _GAP_IN) / 2
        for node in sorted(layer, key=lambda node: _pull(graph, places, node)):
            width = cards[node].width_in
            places[node] = replace(cards[node], x_in=x + width / 2, y_in=y + height / 2)
            x += width + _GAP_IN
        y += height + _STEP_IN
    shift = MARGIN_IN + _TTL_IN - min(one.left_in for one in places.values())
    return {node: replace(one, x_in=one.x_in + shift) for node, one in places.items()}


def _pull(graph: Graph, placed: Mapping[str, Card], node: str) -> float:
    """Return the mean place of the nodes that lead to *node*: ordered by it, lines cross less."""
    places = [placed[near].x_in for near in graph.predecessors(node) if near in placed]
    return sum(places) / len(places) if places else 0.0


def course(near: Card, far: Card, steps: int) -> tuple[Point, Point, float]:
    """Return where a line begins and ends, and its bend.

    To the next TTL it runs straight from bottom to top. To any other, as in a routing loop or where ways of
    different length meet, it runs around the right side.
    """
    if steps == 1:
        return (near.x_in, near.bottom_in), (far.x_in, far.top_in), 0.0
    start, end = (near.right_in, near.y_in), (far.right_in, far.y_in)
    length = math.dist(start, end)
    return start, end, math.copysign(2 * BULGE_IN / length, near.y_in - far.y_in) if length else 0.5
