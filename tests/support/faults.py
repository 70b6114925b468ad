"""The faults of tests/data/faults: shapes, how they are probed, and the verdict each hop deserves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import networkx as nx
import pandas as pd
from walked import WalkedChannel, path_mtu, trace, watched

from netlab.lab.internet import reading
from netlab.path.verdicts import explain

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

    def explained(self, seed: int) -> pd.DataFrame:
        """Return what `explain` says of what a monitor finds out, or where it says `runs` a traceroute.

        Where it says `path_mtu`, that is found out and given, too.
        """
        probing = dict(self.graph.graph["probing"])
        channel = WalkedChannel(self.graph, seed=seed)
        with_mtu = probing.pop("path_mtu", False)
        hops = (trace if "runs" in probing else watched)(channel, **probing)
        return explain(hops, mtu=path_mtu(channel) if with_mtu else None)


def faults() -> list[Fault]:
    return [Fault(file.stem, reading.load_shape(file)) for file in sorted(DIRECTORY.glob("*.toml"))]
