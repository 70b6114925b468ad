"""TCP segments of one side put in order.

Sequence numbers are those of RFC 9293 section 3.4: 32 bits, and they wrap. What was not seen is a gap of
known size as soon as it is certain not to come: TCP itself says up to where everything has passed.
"""

from __future__ import annotations

import heapq
from typing import NamedTuple

MOST_WAITING = 1 << 18  # bytes of one side that came out of order; what is farthest ahead goes first
MOST_AHEAD = 1 << 10  # segments, likewise

_WRAP = 1 << 32


class Segment(NamedTuple):
    """What one packet said, as far as it is known."""

    sequence: int  # of its first byte
    data: bytes
    size: int  # of the payload as sent: *data* may be its beginning only
    settled: int  # sequence number before which everything has passed
    other_settled: int  # the same of the other side
    at_ns: int
    fresh: bool = False  # nothing was said before *settled*
    other_fresh: bool = False
    last: bool = False  # FIN: the side says nothing more


class Said(NamedTuple):
    """The next bytes of a side, or how many of them are missing; None where nobody knows."""

    data: bytes | int | None
    at_ns: int
    was_cut: bool = False  # missing because a packet is not read to its end


class _Waiting(NamedTuple):
    """A segment by its place in the stream; of two at one place, the first that came is first."""

    place: int
    number: int
    segment: Segment


class Ordered:
    """One side of a connection: segments in any order in, bytes in order out, each once."""

    __slots__ = (
        "_begun",
        "_cut",
        "_end",
        "_next",
        "_settled",
        "_start",
        "_taken",
        "_waiting",
        "_waiting_bytes",
    )

    def __init__(self) -> None:
        self._begun = False
        self._next = 0  # place of the first byte that has not come; places do not wrap
        self._settled = self._cut = 0  # up to where all has passed; up to where a packet went that was cut
        self._end: int | None = None
        self._start: int | None = None  # place of the side's first byte
        self._waiting: list[_Waiting] = []
        self._waiting_bytes = self._taken = 0

    @property
    def is_over(self) -> bool:
        """Whether all is said, up to the FIN."""
        return self._end is not None and self._next >= self._end

    @property
    def next_sequence(self) -> int:
        """The sequence number of the first byte that has not come."""
        return self._next % _WRAP

    def take(self, segment: Segment) -> list[Said]:
        """Return what is in order now."""
        if self.goes_on(segment):
            said = Said(segment.data, segment.at_ns)
            return [said] if segment.size == len(segment.data) else [said, cut(segment)]
        midway = self._begin(segment.settled, segment.at_ns, fresh=segment.fresh)
        place = self._place(segment.sequence)
        end = place + segment.size
        if midway and place < self._next < end:
            self._next = end  # a dialog that begins in the middle is given whole segments
        if segment.last:
            self._end = end
        self._keep(place, segment)
        return midway + self._passed(segment.settled, segment.at_ns)

    def settle(self, settled: int, at_ns: int, *, fresh: bool) -> list[Said]:
        """Return what is in order, or known to be missing, now that all before *settled* has passed."""
        if self.has_reached(settled):
            return []
        return self._begin(settled, at_ns, fresh=fresh) + self._passed(settled, at_ns)

    def close(self, size: int, at_ns: int) -> list[Said]:
        """Return what is in order, or known to be missing, now that the side has said *size* bytes in all."""
        if self._start is None:  # how many came before is not known
            return []
        self._settled = max(self._settled, self._start + size)
        return self._told(at_ns)

    def has_reached(self, settled: int) -> bool:
        """Return whether all before *settled* was told already."""
        return self._begun and (settled == self._next % _WRAP or self._place(settled) <= self._next)

    def goes_on(self, segment: Segment) -> bool:
        """Take a segment that comes in order, with its beginning; False: it is none, and not taken."""
        if (
            segment.sequence != self._next % _WRAP
            or segment.last
            or self._end is not None
            or self._waiting
            or not segment.data
            or not self.has_reached(segment.settled)
        ):
            return False
        self._next += segment.size
        return True

    def _begin(self, settled: int, at_ns: int, *, fresh: bool) -> list[Said]:
        """Start, if that is still to be done, at what has not passed yet."""
        if self._begun:
            return []
        self._begun = True
        self._next = self._settled = settled
        self._start = settled if fresh else None
        return [] if fresh else [Said(None, at_ns)]

    def _passed(self, settled: int, at_ns: int) -> list[Said]:
        self._settled = max(self._settled, self._place(settled))
        return self._told(at_ns)

    def _told(self, at_ns: int) -> list[Said]:
        said = []
        while True:
            said += self._contiguous()
            gap = self._gap(at_ns)
            if gap is None:
                return said
            said.append(gap)

    def _place(self, sequence: int) -> int:
        """Return where a sequence number is that is less than 2 GiB away."""
        return self._next + (sequence - self._next + _WRAP // 2) % _WRAP - _WRAP // 2

    def _keep(self, place: int, segment: Segment) -> None:
        if not segment.size or place + segment.size <= self._next:
            return
        heapq.heappush(self._waiting, _Waiting(place, self._taken, segment))
        self._taken += 1
        self._waiting_bytes += len(segment.data)
        while self._is_crowded and self._waiting[0].place > self._next:
            farthest = max(self._waiting)
            self._waiting.remove(farthest)
            heapq.heapify(self._waiting)
            self._waiting_bytes -= len(farthest.segment.data)

    @property
    def _is_crowded(self) -> bool:
        return self._waiting_bytes > MOST_WAITING or len(self._waiting) > MOST_AHEAD

    def _contiguous(self) -> list[Said]:
        said = []
        while self._waiting and self._waiting[0].place <= self._next:
            place, _, segment = heapq.heappop(self._waiting)
            self._waiting_bytes -= len(segment.data)
            data = segment.data[self._next - place :]
            if data:
                said.append(Said(data, segment.at_ns))
                self._next += len(data)
            self._cut = max(self._cut, place + segment.size)
        return said

    def _gap(self, at_ns: int) -> Said | None:
        """Go on behind bytes that will not come, up to the next that are there."""
        was_cut = self._cut > self._next
        up_to = self._cut if was_cut else self._settled
        if self._waiting:
            up_to = min(up_to, self._waiting[0].place)
        if self._end is not None:
            up_to = min(up_to, self._end)
        size = up_to - self._next
        if size <= 0:
            return None
        self._next = up_to
        return Said(size, at_ns, was_cut)


def cut(segment: Segment) -> Said:
    """Return what of a segment is behind the data that are there."""
    return Said(segment.size - len(segment.data), segment.at_ns, was_cut=True)
