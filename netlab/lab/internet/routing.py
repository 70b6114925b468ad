"""Which links lead to a node at the least cost: what an interior gateway protocol would have computed."""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence

from netlab.lab.internet.shape import CLIENT, Epoch, Link, Node, Shape


class Routes:
    """The routes of one shape, computed for each target when it is first asked for."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._ways: dict[str, dict[str, tuple[Link, ...]]] = {}
        self._owners: dict[bytes, Node | None] = {}
        for node in shape.nodes.values():
            for address in (node.address4, node.address6, node.nat4, node.nat6, *node.dnat):
                self._owners[address] = node
        for links in shape.links.values():
            for link in links:
                self._owners[link.far_address4] = self._owners[link.far_address6] = shape.nodes[link.far]
        self._owners.pop(b"", None)

    @property
    def shape(self) -> Shape:
        """What the routes are of."""
        return self._shape

    def owner(self, address: bytes) -> Node | None:
        """Return the node that packets to *address* go to: its own, or the one with the longest prefix."""
        if address not in self._owners:
            self._owners[address] = self._by_prefix(address)
        return self._owners[address]

    def _by_prefix(self, address: bytes) -> Node | None:
        number, bits = int.from_bytes(address, "big"), len(address) * 8
        found = [
            (mask, node)
            for node in self._shape.nodes.values()
            for size, network, mask in node.prefixes
            if size == bits and number & mask == network
        ]
        return max(found, key=lambda pair: pair[0])[1] if found else None

    def ways(self, node: str, target: str) -> tuple[Link, ...]:
        """Return the links of *node* that are on a cheapest path to *target*, by the far end."""
        if target not in self._ways:
            self._ways[target] = self._towards(target)
        return self._ways[target].get(node, ())

    def _towards(self, target: str) -> dict[str, tuple[Link, ...]]:
        """Dijkstra's algorithm from the target backwards; nothing passes through the client."""
        entering = defaultdict(list)
        for links in self._shape.links.values():
            for link in links:
                if link.up and (link.far != CLIENT or target == CLIENT):
                    entering[link.far].append(link)
        cost: dict[str, int] = {}
        reached = [(0, target)]
        while reached:
            so_far, node = heapq.heappop(reached)
            if node in cost:
                continue
            cost[node] = so_far
            for link in entering[node]:
                heapq.heappush(reached, (so_far + link.metric, link.near))
        return {
            node: tuple(
                link
                for link in self._shape.links[node]
                if link in entering[link.far] and cost.get(link.far) == cost[node] - link.metric
            )
            for node in cost
        }


class Atlas:
    """The routes over time."""

    def __init__(self, epochs: Sequence[Epoch]) -> None:
        self._starts = [epoch.from_ns for epoch in epochs]
        self._routes = [Routes(epoch.shape) for epoch in epochs]

    def at(self, at_ns: int) -> Routes:
        """Return the routes that hold *at_ns* after the start."""
        if len(self._routes) == 1:
            return self._routes[0]
        return self._routes[max(bisect_right(self._starts, at_ns) - 1, 0)]
