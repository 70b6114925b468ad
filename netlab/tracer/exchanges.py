"""The requests that were heard and are over: the latest of those that are wanted, and how many there were."""

from __future__ import annotations

from collections import Counter, deque
from typing import NamedTuple, TypeAlias

from netlab.protocols.dialog import Exchange, Outcome
from netlab.tracer.layout import Direction

Fate: TypeAlias = tuple[str, Outcome, bool]  # the protocol, what became of a request, whether it failed


class Request(NamedTuple):
    """One exchange, and whose it is."""

    exchange: Exchange
    cookie: int
    ends: bytes  # a CONVERSATION
    client_is_local: bool
    seen: str = "wire"  # or tls: read before it was sealed

    @property
    def direction(self) -> Direction:
        """Who began, seen from this end."""
        return Direction.OUTGOING if self.client_is_local else Direction.INCOMING


class Kept:
    """The latest *most* requests of *protocols*, in one direction unless that is unknown.

    The programs may not know the direction of a connection when they meet it, and hand up what it says.
    """

    def __init__(self, protocols: frozenset[str], direction: Direction, most: int) -> None:
        self.totals: Counter[Fate] = Counter()  # of all that were wanted, kept or not
        self.let_go: Counter[str] = Counter()  # those that made room for others, by protocol
        self._protocols, self._direction = protocols, direction
        self._latest: deque[Request] = deque(maxlen=most)

    def wants(self, one: Request) -> bool:
        """Tell whether it is one of those that are asked for."""
        return one.exchange.protocol in self._protocols and self._direction in {
            Direction.UNKNOWN,
            one.direction,
        }

    def keep(self, one: Request) -> None:
        """Keep a request that is over, if it is wanted."""
        if not self.wants(one):
            return
        said = one.exchange
        self.totals[said.protocol, said.outcome, said.error is not None] += 1
        if len(self._latest) == self._latest.maxlen:
            self.let_go[self._latest[0].exchange.protocol] += 1
        self._latest.append(one)

    def latest(self) -> list[Request]:
        """Return those that are kept, in the order in which they were over."""
        return list(self._latest)
