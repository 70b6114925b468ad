"""TCP segments put in order, and given to the dialog that understands them.

Sequence numbers are those of RFC 9293 section 3.4: 32 bits, and they wrap. What was not seen is a gap of
known size as soon as it is certain not to come: TCP itself says up to where everything has passed.
"""

from __future__ import annotations

import heapq
from enum import Enum
from typing import NamedTuple, Protocol

from netlab.protocols.dialog import Dialog, Exchange, Side, passes_bodies

MOST_WAITING = 1 << 18  # bytes of one side that came out of order; what is farthest ahead goes first
MOST_AHEAD = 1 << 10  # segments, likewise
MOST_UNCHOSEN = 1 << 14  # bytes of one side that are kept until it is clear what they are
MOST_PIECES = 1 << 10  # of both sides, likewise, and gaps between them
MOST_NOBODYS = 1 << 18  # bytes in the middle of a connection after which nobody looks for a message any more

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

    __slots__ = ("_begun", "_cut", "_end", "_next", "_settled", "_taken", "_waiting", "_waiting_bytes")

    def __init__(self) -> None:
        self._begun = False
        self._next = 0  # place of the first byte that has not come; places do not wrap
        self._settled = self._cut = 0  # up to where all has passed; up to where a packet went that was cut
        self._end: int | None = None
        self._waiting: list[_Waiting] = []
        self._waiting_bytes = self._taken = 0

    @property
    def is_over(self) -> bool:
        """Whether all is said, up to the FIN."""
        return self._end is not None and self._next >= self._end

    def take(self, segment: Segment) -> list[Said]:
        """Return what is in order now."""
        if self.goes_on(segment):
            return [Said(segment.data, segment.at_ns), *_cut(segment)]
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
        return [] if fresh else [Said(None, at_ns)]

    def _passed(self, settled: int, at_ns: int) -> list[Said]:
        self._settled = max(self._settled, self._place(settled))
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


def _cut(segment: Segment) -> list[Said]:
    """Return what of a segment is behind the data that are there."""
    rest = segment.size - len(segment.data)
    return [Said(rest, segment.at_ns, was_cut=True)] if rest else []


def _spare(dialog: Dialog | None, side: Side) -> int:
    """Return how many of the next bytes of *side* are only counted."""
    return dialog.spare(side) if passes_bodies(dialog) else 0


class Unchosen(Enum):
    """Why there is no dialog for a connection."""

    MORE = "more bytes may tell"
    NOTHING = "it speaks nothing that is asked for"


class Choose(Protocol):
    """Finds who reads a connection."""

    def __call__(self, client: bytes, server: bytes, *, whole: bool) -> Dialog | Unchosen:
        """Return the dialog for what both sides said, which is *whole* from the connection's first byte."""


class Stream:
    """Both sides of one connection, read by the dialog that *choose* finds for their first bytes."""

    def __init__(self, choose: Choose, *, client_is_local: bool | None) -> None:
        self.client_is_local = client_is_local  # None: nobody knows yet
        self.dialog: Dialog | None = None
        self.is_ignored = False
        self.is_over = False
        self.midway = False  # what was said first is not known
        self.missed_bytes = self.cut_bytes = self._nobodys_bytes = 0
        self._choose = choose
        self._sides = {local: Ordered() for local in (True, False)}
        self._early: list[tuple[bool, Said]] = []  # what was said until it is clear what it is
        self._heads = {True: b"", False: b""}

    def take(self, segment: Segment, *, local: bool) -> list[Exchange]:
        """Return the exchanges that are over with *segment*, which the *local* end sent or got."""
        other, own = self._sides[not local], self._sides[local]
        if self.dialog is not None and other.has_reached(segment.other_settled) and own.goes_on(segment):
            over = self.dialog.said(self._side(local=local), segment.data, segment.at_ns)
            return over + [one for said in _cut(segment) for one in self._hear(said, local=local)]
        # First what was lost of the other side: to a dialog, an answer comes after the gap with its request.
        exchanges = []
        for said in other.settle(segment.other_settled, segment.at_ns, fresh=segment.other_fresh):
            exchanges += self._hear(said, local=not local)
        for said in own.take(segment):
            exchanges += self._hear(said, local=local)
        if own.is_over and other.is_over:
            exchanges += self.end(segment.at_ns)
        return exchanges

    def _hear(self, said: Said, *, local: bool) -> list[Exchange]:
        self._account(said, local=local)
        if self.dialog is not None:
            return self._tell(self.dialog, said, local=local)
        return [] if self.is_ignored else self._take_early(said, local=local)

    def end(self, at_ns: int) -> list[Exchange]:
        """Note that the connection is over: nothing more is said."""
        if self.is_over:
            return []
        self.is_over = True
        return self.dialog.ended(at_ns) if self.dialog else []

    @property
    def has_spoken(self) -> bool:
        """Whether any byte was seen."""
        return bool(self.dialog or self.is_ignored or self._nobodys_bytes or self._early)

    def _account(self, said: Said, *, local: bool) -> None:
        if isinstance(said.data, bytes):
            return
        if said.data is None:
            self.midway = True
        elif not said.was_cut:
            self.missed_bytes += said.data
        elif said.data > _spare(self.dialog, self._side(local=local)):
            self.cut_bytes += said.data

    def _take_early(self, said: Said, *, local: bool) -> list[Exchange]:
        """Look who understands what was said so far; behind a gap, anew."""
        self._early.append((local, said))
        if isinstance(said.data, bytes):
            self._heads[local] += said.data
        elif said.data is not None:
            self._heads[local], self.midway = b"", True
        answer = self._chosen()
        if isinstance(answer, Unchosen):
            self._go_without(answer)
            return []
        self.dialog = answer
        return [one for local, said in self._taken() for one in self._tell(answer, said, local=local)]

    def _taken(self) -> list[tuple[bool, Said]]:
        early, self._early, self._heads = self._early, [], {True: b"", False: b""}
        return early

    def _go_without(self, why: Unchosen) -> None:
        """Wait for more; in the middle of a connection, for another message than the one that goes on."""
        sizes = [len(head) for head in self._heads.values()]
        is_little = max(sizes) <= MOST_UNCHOSEN and len(self._early) <= MOST_PIECES
        if why is Unchosen.MORE and is_little:
            return
        self._taken()
        self._nobodys_bytes += sum(sizes)
        self.is_ignored = not self.midway or self._nobodys_bytes > MOST_NOBODYS

    def _chosen(self) -> Dialog | Unchosen:
        """Ask for a dialog; where nobody knows who the client is, for one and for the other."""
        ways = (True, False) if self.client_is_local is None else (self.client_is_local,)
        answers = []
        for way in ways:
            answer = self._choose(self._heads[way], self._heads[not way], whole=not self.midway)
            if not isinstance(answer, Unchosen):
                self.client_is_local = way
                return answer
            answers.append(answer)
        return Unchosen.MORE if Unchosen.MORE in answers else Unchosen.NOTHING

    def _tell(self, dialog: Dialog, said: Said, *, local: bool) -> list[Exchange]:
        side = self._side(local=local)
        if isinstance(said.data, bytes):
            return dialog.said(side, said.data, said.at_ns)
        return dialog.missed(side, said.data, said.at_ns)

    def _side(self, *, local: bool) -> Side:
        return Side.CLIENT if local == self.client_is_local else Side.SERVER
