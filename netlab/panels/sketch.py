"""The picture of a path graph as SVG that follows the notebook's theme."""

from __future__ import annotations

import re
from dataclasses import asdict

import networkx as nx

from netlab.views.path import sketch
from netlab.views.theme import LIGHT

_VARIABLES = {colour: f"var(--netlab-{role})" for role, colour in asdict(LIGHT).items()}
_COLOUR = re.compile("|".join(_VARIABLES))


def sketched(graph: nx.DiGraph[str]) -> str:
    """Return *graph* as SVG, its colours those of panels.css; matplotlib writes all text as outlines."""
    return _COLOUR.sub(lambda found: _VARIABLES[found[0]], sketch(graph, LIGHT).svg())
