"""Graphs as GraphML, which knows names and plain values only."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd

# XML 1.0 section 2.2 has no way to write these; a carriage return would be read back as a line feed.
_NOT_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def graphml(graph: nx.Graph[Any]) -> bytes:
    r"""Return *graph* as GraphML.

    Nodes and edges are numbered; what they were is their `label` and, of parallel edges, their `key`. A value
    that is missing is left out, lists are JSON, times ISO 8601, and control characters are spelt out as in
    Python (``\x1b``).
    """
    ids = {node: f"n{place}" for place, node in enumerate(graph)}
    plain: nx.MultiGraph[str] = nx.MultiDiGraph() if graph.is_directed() else nx.MultiGraph()
    plain.graph.update(_plain(graph.graph))
    for node, told in graph.nodes(data=True):
        plain.add_node(ids[node], **_plain({"label": _label(node), **told}))
    for place, (near, far, told) in enumerate(_edges(graph)):
        plain.add_edge(ids[near], ids[far], key=f"e{place}")
        plain.edges[ids[near], ids[far], f"e{place}"].update(_plain(told))
    out = io.BytesIO()
    nx.write_graphml_xml(plain, out, infer_numeric_types=True)
    return out.getvalue()


def _edges(graph: nx.Graph[Any]) -> Iterator[tuple[Any, Any, dict[str, Any]]]:
    if isinstance(graph, nx.MultiGraph):
        yield from (
            (near, far, {"key": key, **told}) for near, far, key, told in graph.edges(keys=True, data=True)
        )
    else:
        yield from graph.edges(data=True)


def _label(node: Hashable) -> str:
    """Return what a node is called: of tuples the part after the kind that is there."""
    parts = node[1:] if isinstance(node, tuple) else (node,)
    return " ".join(str(part) for part in parts if part is not None)


def _plain(told: Mapping[Any, Any]) -> dict[str, Any]:
    values = {str(name): _value(value) for name, value in told.items()}
    return {name: value for name, value in values.items() if value is not None}


def _value(value: Any) -> str | int | float | bool | None:
    if isinstance(value, list | tuple | dict | set | frozenset):
        found = sorted(value) if isinstance(value, set | frozenset) else value
        return _text(json.dumps(found, default=str, ensure_ascii=False))
    if value is None or pd.isna(value):
        return None
    if isinstance(value, np.generic):
        value = value.item()
    return value if isinstance(value, bool | int | float) else _text(str(value))


def _text(value: str) -> str:
    return _NOT_XML.sub(lambda found: ascii(found[0])[1:-1], value)
