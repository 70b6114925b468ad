"""Long bodies on their way, which user space only counts: the programs are told to leave them out."""

from __future__ import annotations

import time
from dataclasses import dataclass

from netlab.protocols.streams import Stream
from netlab.tracer.budgets import Budgets
from netlab.tracer.packets import Packet

_LONG_PACKET = 1 << 10  # bytes: those of long bodies are full
_LONG, _LONGEST = 1 << 20, 1 << 30  # bytes of a body; sequence numbers tell 2 GiB apart


@dataclass(slots=True)
class Passage:
    """The body of one side of a connection that the programs leave out."""

    of_local: bool | None = None  # the side; None: they leave out nothing
    told_ns: int = 0  # when they were told: what they sent before does not say that they forgot

    def follow(self, packet: Packet, stream: Stream, budgets: Budgets) -> None:
        """Tell the programs, behind *packet*, what is not needed, or that all is again."""
        if packet.segment.size < _LONG_PACKET and self.of_local is None:
            return
        sequence, spare = stream.spare(local=packet.local)
        size = min(spare, _LONGEST) if spare >= _LONG else 0
        is_same = self.of_local is packet.local
        if (is_same and size and packet.segment.at_ns <= self.told_ns) or not (is_same or size):
            return
        budgets.passing(packet.cookie, local=packet.local, sequence=sequence, size=size)
        self.of_local, self.told_ns = packet.local if size else None, time.monotonic_ns()
