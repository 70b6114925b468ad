"""`netlab.path.path_mtu`: how large packets may be on the way to a target, and which hop limits them.

Probes of a size that may not be cut are sent until one arrives (RFC 1191, RFC 8201). A size is taken for too
large without a word only beside a small probe that was answered at the same time (a hole, RFC 2923 section
2.1); then the largest size that passes is searched for (RFC 8899). Where a limit is, shows the last TTL at
which probes of the next larger size still run out of time.
"""

from __future__ import annotations

import itertools
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal, Protocol, TypeAlias

from netlab.path import patience
from netlab.path.probes import MARKS, Flow
from netlab.path.state import Answer, Probe, timing
from netlab.wire import icmp

SILENT = "silent"
INTERFACE = "interface"

# In which too few small probes are answered, until the target counts as gone: a loss of 30 % is no end.
_ROUNDS = 8
_PLACINGS = 6  # of probes to each hop, to see which of them a size still reaches
_LEAST_V6 = 1280  # each link takes it (RFC 8200 section 5): less is not to be believed (RFC 8201 section 4)
_COPIES = 3  # of each large probe in a round
_SILENCES = 2  # rounds in which only the small probe was answered, until that is no chance
# After a round without any answer: Linux answers a second's first datagram to a closed port, and no other.
_RECOVERY_NS = 300 * 10**6
_LOOK_NS = 10**8  # how soon it is noticed that the search was stopped
_TOLD = {icmp.Error.FRAGMENTATION_NEEDED.value, icmp.Error.PACKET_TOO_BIG.value}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A link behind the hop at `ttl` that takes packets of up to `mtu_bytes`; `told` is how that is known."""

    mtu_bytes: int
    ttl: int | None
    address: str | None
    told: str


@dataclass(frozen=True, slots=True)
class Way:
    """The path as small probes see it: who answers at each TTL, how slow; to which TTL the size is tried.

    `end_reply` is what the answers from there say.
    """

    addresses: dict[int, str]
    end_ttl: int
    end_reply: str
    slowest_ns: int


class Gone(Exception):  # noqa: N818 - no error: how a search ends without its result
    """Small probes are not answered any more either, or the search was stopped; it says which."""


class _Fate(Enum):
    """What became of a size to which nobody objected with an answer."""

    PASSES = auto()
    SILENCE = auto()


_Objection: TypeAlias = Answer | Literal[_Fate.SILENCE]


class Channel(Protocol):
    """The seam to the network, as `netlab.path.engine.Channel`, for probes of a size that may not be cut."""

    def now_ns(self) -> int:
        """Return the time of a clock that never jumps."""

    def flow(self, number: int) -> Flow:
        """Return a flow, ready to be probed."""

    def send(self, flow: int, ttl: int, mark: int, *, size_bytes: int = 0) -> int:
        """Send a probe; return the wall-clock time just before it left."""

    def receive(self, wait_ns: int) -> list[Answer]:
        """Return the answers that are there, waiting up to *wait_ns* for the first."""


class Search:
    """Finds the limits of one way, from the largest size on; `limits` has those found until it ended."""

    def __init__(
        self, channel: Channel, way: Way, wait_ns: int, *, stopped: Callable[[], bool] | None = None
    ) -> None:
        self.limits: list[Limit] = []
        self._channel = channel
        self._way = way
        self._stopped = stopped or (lambda: False)
        self._wait_ns = min(wait_ns, max(patience.END_FLOOR_NS, patience.FACTOR * way.slowest_ns))
        start = random.randrange(MARKS)  # noqa: S311 - no secret
        self._marks = (1 + number % MARKS for number in itertools.count(start))
        self._smallest = len(channel.flow(0).packet(1, 1))
        self._least_told = _LEAST_V6 if channel.flow(0).family == 6 else self._smallest

    def run(self, most_bytes: int) -> None:
        """Look for limits below *most_bytes*.

        Raises
        ------
        Gone
            If nothing is answered any more, or it was stopped.
        """
        size = most_bytes
        while size > self._smallest and (objection := self._ask(size)) is not _Fate.PASSES:
            told = objection.quoted.mtu_bytes if isinstance(objection, Answer) and objection.quoted else None
            if told is None or not self._least_told <= told < size:
                told = self._largest(size, objection)
            self.limits.append(self._located(told, objection))
            size = told

    def _largest(self, too_large: int, objection: _Objection) -> int:
        """Return the largest size to which nobody has the same objection: another's is from further on."""
        passes = self._smallest
        while too_large - passes > 1:
            size = (passes + too_large) // 2
            if _is_same(self._ask(size), objection):
                too_large = size
            else:
                passes = size
        return passes

    def _ask(self, size: int) -> Answer | _Fate:
        """Return what becomes of *size*: the answer that objects to it, if there is one.

        The small probe comes last: where a rate limit leaves one answer, a large probe that passes has it.
        """
        end = self._way.end_ttl
        silences = 0
        for _ in range(_ROUNDS):
            *large, small = self._exchange([*[(end, size)] * _COPIES, (end, 0)])
            heard = [answer for answer in large if answer]
            if any(answer.reply == (small.reply if small else self._way.end_reply) for answer in heard):
                return _Fate.PASSES
            told = [answer for answer in heard if small or answer.reply in _TOLD]
            if told:
                return told[0]
            silences += small is not None
            if silences == _SILENCES:
                return _Fate.SILENCE
            if not (small or heard):
                deque(self._heard(_RECOVERY_NS), maxlen=0)
        raise Gone("small probes were no longer answered either")

    def _located(self, mtu_bytes: int, objection: _Objection) -> Limit:
        """Return the limit at *mtu_bytes*, and the hop before it where that can be told."""
        self._ask_again_who_is_there()
        ttls = range(1, self._way.end_ttl)
        answers: dict[int, Answer] = {}
        for _ in range(_PLACINGS):
            open_ttls = [ttl for ttl in ttls if ttl not in answers and ttl in self._way.addresses]
            found = self._exchange([(ttl, mtu_bytes + 1) for ttl in open_ttls])
            answers |= {ttl: a for ttl, a in zip(open_ttls, found, strict=True) if a}
        expired = icmp.Error.TIME_EXCEEDED.value
        last = max((ttl for ttl, a in answers.items() if a.reply == expired), default=0)
        # A silent hop behind it may be the one as well.
        is_sure = last > 0 and (last + 1 in self._way.addresses or last + 1 == self._way.end_ttl)
        if isinstance(objection, Answer):
            return Limit(
                mtu_bytes=mtu_bytes,
                ttl=last if is_sure else self._ttl_of(objection.address),
                address=objection.address,
                told=objection.reply,
            )
        return Limit(
            mtu_bytes=mtu_bytes,
            ttl=last if is_sure else None,
            address=answers[last].address if is_sure else None,
            told=SILENT,
        )

    def _ask_again_who_is_there(self) -> None:
        """Learn the TTLs at which nobody answered the first few probes: loss would hide where a limit is."""
        known = self._way.addresses
        for _ in range(_ROUNDS):
            silent = [ttl for ttl in range(1, self._way.end_ttl) if ttl not in known]
            if not silent:
                return
            found = self._exchange([(ttl, 0) for ttl in silent])
            known.update({ttl: answer.address for ttl, answer in zip(silent, found, strict=True) if answer})

    def _ttl_of(self, address: str) -> int | None:
        return next((ttl for ttl, known in self._way.addresses.items() if known == address), None)

    def _exchange(self, probes: Sequence[tuple[int, int]]) -> list[Answer | None]:
        """Send probes, given by TTL and size; return the answer to each, None where none came in time."""
        marks = [next(self._marks) for _ in probes]
        for (ttl, size), mark in zip(probes, marks, strict=True):
            self._channel.send(0, ttl, mark, size_bytes=size)
        found: dict[int, Answer] = {}
        for answer in self._heard(self._wait_ns):
            if answer.mark is not None:
                found.setdefault(answer.mark, answer)
            if found.keys() >= set(marks):
                break
        return [found.get(mark) for mark in marks]

    def _heard(self, wait_ns: int) -> Iterator[Answer]:
        deadline = self._channel.now_ns() + wait_ns
        while (left := deadline - self._channel.now_ns()) > 0:
            if self._stopped():
                raise Gone("probing was stopped")
            yield from self._channel.receive(min(left, _LOOK_NS))


def _is_same(fate: Answer | _Fate, objection: _Objection) -> bool:
    if isinstance(fate, Answer) and isinstance(objection, Answer):
        return fate.address == objection.address
    return fate is objection


def way_of(answers: Iterable[tuple[Probe, Answer]]) -> Way | None:
    """Return the way that the answers to small probes show, if any."""
    found = sorted(answers, key=lambda pair: (not pair[1].ends_path, -pair[0].ttl))
    if not found:
        return None
    ends = [pair for pair in found if pair[1].ends_path]
    end, answer = ends[-1] if ends else found[0]  # the nearest that ends the way, or the last that answered
    return Way(
        addresses={probe.ttl: answer.address for probe, answer in found},
        end_ttl=end.ttl,
        end_reply=answer.reply,
        slowest_ns=max(timing(probe, answer)[0] for probe, answer in found),
    )
