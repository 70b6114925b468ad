"""Where the nodes of a path graph are drawn: from top to bottom, as the packets go, a layer for each TTL.

Downwards and not to the right, because addresses are wide and flat: thirty hops of IPv6 stay legible
at the width of a notebook, and branches have room beside each other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import networkx as nx

from netlab.views.cards import Card, Line, card
from netlab.views.picture import MARGIN_IN

Graph: TypeAlias = "nx.DiGraph[str]"  # generic for type checkers only
Point: TypeAlias = tuple[float, float]

MOST_BESIDE = 16  # nodes at one TTL
BULGE_IN = 0.4  # of lines that run around the side
_TTL_IN, _GAP_IN, _STEP_IN = 0.58, 0.25, 0.52


def by_ttl(graph: Graph) -> dict[int, list[str]]:
    """Return the nodes by TTL, those with most answers first."""
    layers: dict[int, list[str]] = {}
    for node in sorted(graph, key=lambda node: (graph.nodes[node]["ttl"], -graph.nodes[node]["answers"])):
        layers.setdefault(graph.nodes[node]["ttl"], []).append(node)
    return layers


def kept(graph: Graph) -> Graph:
    """Return the graph with the most heard of those nodes that fit beside each other."""
    return graph.subgraph([node for layer in by_ttl(graph).values() for node in layer[:MOST_BESIDE]])


def placed(graph: Graph, words: Mapping[str, Sequence[Line]], top_in: float) -> dict[str, Card]:
    """Return a card with its *words* for each node, in each layer ordered by where their lines come from."""
    cards: dict[str, Card] = {}
    y = top_in
    for layer in by_ttl(graph).values():
        sized = {node: card(words[node]) for node in layer}
        height = max(one.height_in for one in sized.values())
        x = -(sum(one.width_in + _GAP_IN for one in sized.values()) - _GAP_IN) / 2
        for node in sorted(layer, key=lambda node: _pull(graph, cards, node)):
            width = sized[node].width_in
            cards[node] = replace(sized[node], x_in=x + width / 2, y_in=y + height / 2)
            x += width + _GAP_IN
        y += height + _STEP_IN
    shift = MARGIN_IN + _TTL_IN - min(one.left_in for one in cards.values())
    return {node: replace(one, x_in=one.x_in + shift) for node, one in cards.items()}


def _pull(graph: Graph, cards: Mapping[str, Card], node: str) -> float:
    """Return the mean place of the nodes that lead to *node*: ordered by it, lines cross less."""
    places = [cards[near].x_in for near in graph.predecessors(node) if near in cards]
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
