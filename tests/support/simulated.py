"""The engine's seam without a network: a path of hops with delays, on a clock that only jumps."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from netlab.path.state import Answer
from netlab.wire import icmp


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedHop:
    """A hop: who answers after which round trip, and with what (`reply` "" is a silent hop).

    One that does not tell which probe it answers has `tells` False.
    """

    address: str
    rtt_ms: float
    reply: str = icmp.Error.TIME_EXCEEDED.value
    tells: bool = True


HopOf: TypeAlias = Callable[[int, int], SimulatedHop]  # (flow, TTL) → the hop


class SimulatedChannel:
    """A path as `netlab.path.engine.Channel`; probes past the last hop get the last hop's answer.

    Parameters
    ----------
    hops
        The hops in order, the destination last, alike for every flow; or what a probe meets, by the number of
        its flow and its TTL.
    lost
        Numbers of probes (by order of sending, from 0) that vanish.
    """

    def __init__(self, hops: list[SimulatedHop] | HopOf, *, lost: frozenset[int] = frozenset()) -> None:
        self.sent: list[tuple[int, int]] = []  # (time in ns, TTL)
        self._hop: HopOf = hops if callable(hops) else lambda _, ttl: hops[min(ttl, len(hops)) - 1]
        self._lost = lost
        self._now = 0
        self._coming: list[tuple[int, int, Answer]] = []

    def now_ns(self) -> int:
        """Return the simulated time."""
        return self._now

    def send(self, flow: int, ttl: int, mark: int) -> int:
        """Send a probe along its flow's path."""
        hop = self._hop(flow, ttl)
        number = len(self.sent)
        self.sent.append((self._now, ttl))
        if hop.reply and number not in self._lost:
            at = self._now + round(hop.rtt_ms * 10**6)
            answer = Answer(
                flow=flow,
                mark=mark if hop.tells else None,
                address=hop.address,
                reply=hop.reply,
                ttl=64,
                stamp_ns=at,
                received_ns=at,
            )
            heapq.heappush(self._coming, (at, number, answer))
        return self._now

    def receive(self, wait_ns: int) -> list[Answer]:
        """Jump to the next answer within *wait_ns*, or over it."""
        until = self._now + wait_ns
        if self._coming and self._coming[0][0] <= until:
            until = max(self._now, self._coming[0][0])
        self._now = until
        answers = []
        while self._coming and self._coming[0][0] <= until:
            answers.append(heapq.heappop(self._coming)[2])
        return answers
