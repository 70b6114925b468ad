"""Graphs of load balancers that a strategy can ask directly, without packets, sockets or a clock."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

from netlab.path.branches import Account, account
from netlab.path.mda import Limits, Search

SOURCE, TARGET = "source", "web"
Links = dict[str, list[str]]

MOST_ROUNDS = 2000


def path(*nodes: str) -> Links:
    return {near: [far] for near, far in pairwise((SOURCE, *nodes, TARGET))}


def joined(*graphs: Links) -> Links:
    """Return the union of graphs; links that several have count once."""
    union: Links = {}
    for graph in graphs:
        for near, fars in graph.items():
            union.setdefault(near, [])
            union[near] += [far for far in fars if far not in union[near]]
    return union


def diamond(width: int, length: int = 1, *, tail: int = 1) -> Links:
    """Return r0, then branches of so many routers each, then a tail of routers."""
    end = [f"t{number}" for number in range(tail)]
    branches = [[f"b{branch}.{number}" for number in range(length)] for branch in range(width)]
    return joined(*(path("r0", *branch, *end) for branch in branches))


def fan(*widths: int) -> Links:
    """Return a tree of balancers with so many next hops each on its levels, joined again at the end."""
    graph = {SOURCE: ["r0"], "end": [TARGET]}
    level = ["r0"]
    for width in widths:
        for near in level:
            graph[near] = [f"{near}.{number}" for number in range(width)]
        level = [far for near in level for far in graph[near]]
    return graph | {near: ["end"] for near in level}


def random_graph(seed: int) -> Links:
    """Return layers of one to four routers in which every router is reached and leads on."""
    chance = random.Random(seed)
    widths = [chance.randint(1, 4) for _ in range(chance.randint(1, 4))]
    inner = [[f"n{number}.{place}" for place in range(width)] for number, width in enumerate(widths)]
    layers = [[SOURCE], ["r0"], *inner, [TARGET]]
    graph: Links = {}
    for nears, fars in pairwise(layers):
        for near in nears:
            graph[near] = sorted(chance.sample(fars, chance.randint(1, min(3, len(fars)))))
        for far in fars:
            if not any(far in graph[near] for near in nears):
                graph[chance.choice(nears)].append(far)
    return graph


def links(graph: Links) -> set[tuple[str, str]]:
    return {(near, far) for near, fars in graph.items() for far in fars}


@dataclass
class World:
    """What carries probes over a graph; *by_packet* are the balancers that choose for each packet anew."""

    graph: Links
    seed: int
    by_packet: frozenset[str] = frozenset()
    silent: frozenset[str] = frozenset()
    loss: float = 0
    burst: int | None = None  # how many answers each router gives in all
    sent: Counter[tuple[int, int]] = field(default_factory=Counter)
    rounds: int = 0

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self._given: Counter[str] = Counter()

    def search(self, *, confidence: float = 0.95, flows: int = 2000, first_ttl: int = 1) -> Search:
        """Do what a search asks for until it asks for nothing more."""
        search = Search(Limits(confidence=confidence, first_ttl=first_ttl, max_ttl=30, flows=flows))
        while asks := search.next():
            self.rounds += 1
            assert self.rounds < MOST_ROUNDS, "it never ends"
            self._chance.shuffle(asks)
            for flow, ttl in asks:
                self.sent[flow, ttl] += 1
                node = self._reached(flow, ttl)
                if self._answers(node):
                    search.answered(flow, ttl, node, ends=node == TARGET)
                else:
                    search.unanswered(flow, ttl)
        return search

    def found(self, **options: float) -> Account:
        return account(self.search(**options))  # type: ignore[arg-type]

    def _reached(self, flow: int, ttl: int) -> str:
        node = SOURCE
        for _ in range(ttl):
            if node == TARGET:
                break
            nexts = self.graph[node]
            chance = self._chance if node in self.by_packet else random.Random(f"{self.seed} {node} {flow}")
            node = nexts[0] if len(nexts) == 1 else chance.choice(nexts)
        return node

    def _answers(self, node: str) -> bool:
        self._given[node] += 1
        spent = self.burst is not None and self._given[node] > self.burst
        return node not in self.silent and not spent and self._chance.random() >= self.loss


def certain_links(found: Account) -> set[tuple[str, str]]:
    return {(link["from"], link["to"]) for link in found["links"] if link["certain"]}


def balancers(found: Account) -> dict[str, str]:
    return {node["address"]: node["balances"] for node in found["nodes"] if node["balances"]}
