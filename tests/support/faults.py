"""The faults of tests/data/faults: shapes, how they are probed, and the verdict each hop deserves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx as nx
import pandas as pd
from walked import WalkedChannel, trace, watched

from netlab.lab.internet import reading

DIRECTORY = Path(__file__).parents[1] / "data" / "faults"


@dataclass
class Fault:
    """A shape with one thing wrong; `verdicts` are those of TTL 1, 2 and so on."""

    name: str
    graph: nx.DiGraph

    def __str__(self) -> str:
        return self.name

    @property
    def verdicts(self) -> list[str]:
        return self.graph.graph["verdicts"]

    @property
    def probing(self) -> dict[str, Any]:
        return self.graph.graph["probing"]

    def hops(self, seed: int) -> pd.DataFrame:
        """Return what a monitor, or where it says `runs` a traceroute, finds out about it."""
        probe = trace if "runs" in self.probing else watched
        return probe(WalkedChannel(self.graph, seed=seed), **self.probing)


def faults() -> list[Fault]:
    return [Fault(file.stem, reading.load_shape(file)) for file in sorted(DIRECTORY.glob("*.toml"))]
