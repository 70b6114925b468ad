"""Which verdict the evidence of a hop, and of those around it, amounts to."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from netlab.path import bucket, deadflows, replyids
from netlab.path.evidence import Hop
from netlab.path.significance import fisher_greater, wilson

ALPHA = 0.001  # how often a hop may seem to differ from others where it does not
_AGREES = 0.01  # the same, for each later hop that must have the loss too
_REFUTATION = 4.0  # log of how much likelier a lossy link must be than a rate limit at each hop
_SILENT_SPAN_S = 2.0  # one burst may have met an empty bucket; a Linux router has a token again by then


class Verdict(StrEnum):
    """What a hop's losses mean."""

    OK = "ok"  # it answered every probe
    EARLIER_LOSS = "earlier-loss"  # it loses no more than a hop before it, whose verdict counts
    RATE_LIMITED = "rate-limited"  # it answers as a token bucket lets it; packets through it are not lost
    PATH_LOSS = "path-loss"  # from here on packets are lost; there or on the way back is not known
    FORWARD_LOSS = "forward-loss"  # from here on packets are lost on the way there
    LOOP = "loop"  # packets come back to routers that they have passed, and never get to the target
    REJECTED = "rejected"  # somebody on the way answers that packets go no further, and why
    RETURN_LOSS = "return-loss"  # its answers are sent, and lost on their way back
    MTU_HOLE = "mtu-hole"  # packets above some size vanish behind it, and nobody says so
    SILENT = "silent-by-policy"  # it never answers, later hops do
    PATH_CHANGED = "path-changed"  # another hop took its place; nothing is wrong with the one there now
    UNREACHED = "unreached"  # neither it nor any later hop answers
    NOT_ENOUGH_DATA = "not-enough-data"


class Bench:
    """Judges the hops in order; remembers the loss that has been found on the way so far."""

    def __init__(self, hops: Sequence[Hop]) -> None:
        self._hops = hops
        self._lost = self._probes = (
            0  # of the hops since the last loss began that only had what is lost there
        )
        self._began: Hop | None = None
        self._doubts: dict[tuple[bytes, bytes], float] = {}  # each hop is asked again for those before it

    def judge(self, place: int) -> tuple[Verdict, str]:
        """Return the verdict of the next hop, and why."""
        hop = self._hops[place]
        if not hop.answers:
            return self._of_silence(place)
        if not hop.lost:
            self._probes += hop.probes
            return Verdict.OK, f"all {hop.probes} probes were answered"
        if hop.dead or hop.limit is not None:
            return self._of_dead_flows(place) if hop.dead else (Verdict.RATE_LIMITED, _bucket_in_words(hop))
        contradicting = self._contradicting(place)
        if contradicting is not None:
            return self._of_own_loss(hop, contradicting)
        if not self._is_worse_than_before(hop):
            return self._of_no_more_loss(hop)
        return self._of_loss_from_here_on(place)

    def lowest_later(self, place: int) -> Hop | None:
        """Return the later hop with the least loss in the time of this one."""
        later = self._later(place)
        return min(later, key=lambda hop: hop.loss) if later else None

    def _later(self, place: int) -> list[Hop]:
        """Return later hops that answer, as they did in the time of this one."""
        hop = self._hops[place]
        slack_s = hop.span_s / max(1, hop.probes - 1)  # they are probed in turn
        first_s, last_s = float(hop.at_s[0]) - slack_s, float(hop.at_s[-1]) + slack_s
        parts = [later.between(first_s, last_s) for later in self._hops[place + 1 :]]
        return [part for part in parts if part.answers]

    def _of_silence(self, place: int) -> tuple[Verdict, str]:
        hop = self._hops[place]
        died = deadflows.gone_before(self._hops, place)
        if died is not None:
            return Verdict.EARLIER_LOSS, f"only of flows that are lost from TTL {died.ttl} on"
        if not any(later.answers for later in self._hops[place + 1 :]):
            why = "nothing answers from here on: a filter, a dead end or no way back look alike"
            return Verdict.UNREACHED, why
        if wilson(0, hop.probes)[1] < 0.5 and hop.span_s >= _SILENT_SPAN_S:
            return Verdict.SILENT, f"none of {hop.probes} probes in {hop.span_s:.3g} s, but later hops answer"
        why = f"only {hop.probes} probes in {hop.span_s:.3g} s: a rate limit that was used up looks alike"
        return Verdict.NOT_ENOUGH_DATA, why

    def _of_dead_flows(self, place: int) -> tuple[Verdict, str]:
        hop = self._hops[place]
        what = deadflows.in_words(hop)
        if place and set(hop.dead) <= set(self._hops[place - 1].dead):
            return Verdict.EARLIER_LOSS, f"{what}, as at TTL {self._hops[place - 1].ttl}"
        if deadflows.may_be_limits(self._hops, place):
            return Verdict.NOT_ENOUGH_DATA, f"{what}; a limit that meets these flows in turn looks alike"
        self._lost, self._probes, self._began = hop.lost, hop.probes, hop
        return Verdict.PATH_LOSS, what

    def _contradicting(self, place: int) -> Hop | None:
        """Return a later hop that lost significantly less than this one, or None."""
        hop = self._hops[place]
        later = [
            (fisher_greater(hop.lost, hop.probes, other.lost, other.probes), other)
            for other in self._later(place)
        ]
        best = min(later, key=lambda pair: pair[0], default=(1.0, None))
        return best[1] if best[0] < ALPHA / max(1, len(later)) else None

    def _of_own_loss(self, hop: Hop, contradicting: Hop) -> tuple[Verdict, str]:
        less = f"TTL {contradicting.ttl} lost only {_counted(contradicting)}"
        sent = _answers_sent(hop)
        if sent is True:
            return (
                Verdict.RETURN_LOSS,
                f"{less}, and the answers' numbers have a gap for each missing one",
            )
        why = f"{less}: not lost on the way here, but no token bucket fits, and nothing tells of the way back"
        return Verdict.NOT_ENOUGH_DATA, why

    def _is_worse_than_before(self, hop: Hop) -> bool:
        """Whether the loss is significantly more than before; of a first hop, than none."""
        probes = self._probes or hop.probes
        return fisher_greater(hop.lost, hop.probes, self._lost, probes) < ALPHA

    def _of_no_more_loss(self, hop: Hop) -> tuple[Verdict, str]:
        if self._began is None:
            why = f"{_counted(hop)} lost: too few to tell from none, or from what the hops before lose"
            return Verdict.NOT_ENOUGH_DATA, why
        self._lost, self._probes = self._lost + hop.lost, self._probes + hop.probes
        why = f"{_counted(hop)} lost, no more than at TTL {self._began.ttl}, where the loss begins"
        return Verdict.EARLIER_LOSS, why

    def _of_loss_from_here_on(self, place: int) -> tuple[Verdict, str]:
        hop, later = self._hops[place], self._later(place)
        doubt = self._doubt(hop, later)
        if doubt:
            return Verdict.NOT_ENOUGH_DATA, doubt
        self._lost, self._probes, self._began = hop.lost, hop.probes, hop
        least = min((other.loss for other in later if other.limit is None), default=None)
        what = f"{_counted(hop)} lost"
        what += "" if least is None else f", and at least {least:.0%} at every later hop"
        sent = self._sent_from(place)
        if sent is None:
            return Verdict.PATH_LOSS, f"{what}; on the way there or back"
        if sent:
            return Verdict.RETURN_LOSS, f"{what}; the answers' numbers have a gap for each missing one"
        return Verdict.FORWARD_LOSS, f"{what}; the answers' numbers have no gaps: none was sent"

    def _sent_from(self, place: int) -> bool | None:
        """Whether the answers that did not come had been sent: as this hop's numbers tell, or a later one's.

        What a later hop did not send it may have not sent for a limit of its own, if it loses more than this.
        """
        hop = self._hops[place]
        for later in range(place, len(self._hops)):
            other = self._hops[later]
            more = fisher_greater(other.lost, other.probes, hop.lost, hop.probes) < _AGREES
            own = other is not hop and (other.limit is not None or more or self._contradicting(later))
            sent = None if own else _answers_sent(other)
            if sent is not None:
                return sent
        return None

    def _doubt(self, hop: Hop, later: list[Hop]) -> str:
        """Return why a loss from *hop* on may be something else, or nothing."""
        if not later and hop.overshot:
            return "the target also got probes past the end, which no row tells of, and may limit its answers"
        if not later and not hop.reached and _answers_sent(hop) is not True:
            return f"{_counted(hop)} lost, but no later hop answers: a limit shared with others looks alike"
        telling = [other for other in later if other.limit is None]
        if later and not telling:
            return "every later hop is rate-limited and cannot confirm the loss"
        if not self._refutes_limits([hop, *telling]):
            return f"{_counted(hop)} lost: rate limits cannot be ruled out"
        without = next((other for other in telling if not self._has_it_too(other)), None)
        return f"TTL {without.ttl} does not confirm it: {_counted(without)} lost there" if without else ""

    def _refutes_limits(self, hops: list[Hop]) -> bool:
        """Whether the first hop, and all together, lose as no rate limits of their own could have it."""
        doubts = [self._doubt_of_limits(hop) for hop in hops]
        return doubts[0] > 0 and sum(doubts) >= _REFUTATION

    def _doubt_of_limits(self, hop: Hop) -> float:
        key = hop.at_s.tobytes(), hop.answered.tobytes()
        if key not in self._doubts:
            self._doubts[key] = bucket.doubt(hop.at_s, hop.answered)
        return self._doubts[key]

    def _has_it_too(self, other: Hop) -> bool:
        probes = self._probes or other.probes
        return fisher_greater(other.lost, other.probes, self._lost, probes) < _AGREES


def _answers_sent(hop: Hop) -> bool | None:
    """Whether the answers that did not come had been sent, if their numbers tell."""
    return replyids.were_sent(hop.at_s, hop.reply_ids)


def _counted(hop: Hop) -> str:
    return f"{hop.lost} of {hop.probes}"


def _bucket_in_words(hop: Hop) -> str:
    limit = hop.limit
    assert limit is not None  # noqa: S101 - for the type checker: the caller has looked
    return (
        f"{_counted(hop)} lost, as a limit of {limit.per_s:.3g} answers a second and {limit.burst} at once "
        f"would have it, but for {limit.misfit:.1%} of them"
    )
