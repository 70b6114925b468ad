"""What one run of a trace has sent and heard."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from netlab.path.quotes import Quoted
from netlab.wire import icmp

UDP_REPLY, SYN_ACK, RST, ECHO_REPLY, SACK = "udp-reply", "syn-ack", "rst", "echo-reply", "sack"

# Not an answer to a probe but a sign that one met a connection of the flow that was not reset yet (RFC 9293
# section 3.10.7.4); it acknowledges another SYN than the one that caused it.
CHALLENGE = "challenge-ack"

# Answers that only the destination gives. RFC 792: protocol and port unreachable are "received from a host",
# the other codes from a gateway. Comparing addresses instead fails under NAT, anycast and multi-homing; but
# see `netlab.path.probes.Flow.is_turned_back`.
DESTINATION = frozenset(
    {
        icmp.Error.PORT_UNREACHABLE.value,
        icmp.Error.PROTOCOL_UNREACHABLE.value,
        UDP_REPLY,
        SYN_ACK,
        RST,
        ECHO_REPLY,
        SACK,
    }
)
_ON_THE_WAY = icmp.Error.TIME_EXCEEDED.value


class Clock(StrEnum):
    """Which clock timed an answer."""

    KERNEL = "kernel"  # the kernel's, from handing the probe to the device to getting the answer from one
    KERNEL_RECEIVE = (
        "kernel-receive"  # the wall clock just before the send, to the kernel's receive timestamp
    )
    USER = "user"  # this process's monotonic clock, from before the send to after the receive


class Probe(NamedTuple):  # as the answer, one for each packet: a frozen dataclass takes three times as long
    """A packet that was sent: `mark` is its number in its flow, `wall_ns` and `sent_ns` when it left."""

    mark: int
    ttl: int
    attempt: int
    wall_ns: int
    sent_ns: int
    flow: int = 0


class Answer(NamedTuple):
    """An answer to the probe of *flow* with *mark*; None where it does not say to which of the flow.

    `ttl` is what the answer arrived with, `identification` its IPv4 header's, `left_ns` and `stamp_ns` are
    the kernel's transmit time of the probe and receive time of the answer (wall clock), `received_ns` is the
    monotonic time after reading it. `quoted` is what an ICMP error shows of the probe. `turned_back` is an
    error of somebody on the way that says what otherwise hosts say.
    """

    flow: int
    mark: int | None
    address: str
    reply: str
    ttl: int | None
    stamp_ns: int | None
    received_ns: int
    left_ns: int | None = None
    identification: int | None = None
    quoted: Quoted | None = None
    turned_back: bool = False

    @property
    def reached(self) -> bool:
        """Whether the destination gave it."""
        return self.reply in DESTINATION and not self.turned_back

    @property
    def ends_path(self) -> bool:
        """Whether probes with a larger TTL go no further than the one answered."""
        return self.reply != _ON_THE_WAY


@dataclass(slots=True)
class Run:
    """The probes of one run of one flow by their marks, and the first answer to each.

    `end_ttl` is the lowest TTL whose answer ends the path, `target_ttl` the lowest at which the destination
    answered, `rejecting_ttls` those at which a probe was rejected on the way, `passed_ttl` the last at which
    a router answered that it would have gone on; `given_up_early` is how many silent probes got less
    than the full timeout because later hops had answered, `unplaced` how many answers of the target did
    not say which probe they are for, `placed` how many of those were given to the only one they can be for.
    `too_short` is how many ICMP errors quoted too little to say it and have no place, `short_placed` how many
    were given to the only probe under way. `void` are marks of probes that count for nothing; `cut_short`
    says that the run was stopped. Before `known_end`, where the destination was known to be, a rejection ends
    nothing.
    """

    number: int
    flow: int = 0
    probes: dict[int, Probe] = field(default_factory=dict)
    answers: dict[int, Answer] = field(default_factory=dict)
    end_ttl: int | None = None
    target_ttl: int | None = None
    rejecting_ttls: set[int] = field(default_factory=set)
    passed_ttl: int = 0
    given_up_early: int = 0
    unplaced: int = 0
    placed: int = 0
    too_short: int = 0
    short_placed: int = 0
    cut_short: bool = False
    void: set[int] = field(default_factory=set)
    known_end: int = 0

    def take(self, answer: Answer) -> Probe | None:
        """Keep *answer*; return the probe it answers, or None for a duplicate or a stranger."""
        if answer.flow != self.flow or answer.reply == CHALLENGE:
            return None
        if answer.mark is None:
            self.unplaced += 1
            return None
        probe = self.probes.get(answer.mark)
        if probe is None or probe.mark in self.answers:
            return None
        self.answers[probe.mark] = answer
        self._learn(probe.ttl, answer)
        return probe

    def _learn(self, ttl: int, answer: Answer) -> None:
        """Move the end to where the destination is, or else to where the nearest packet was rejected.

        Of ways that packets take in turn one may reject them, while others go on: as answers from as far or
        further tell.
        """
        if answer.reached:
            self.target_ttl = min(ttl, self.target_ttl or ttl)
        elif answer.ends_path:
            self.rejecting_ttls.add(ttl)
        else:
            self.passed_ttl = max(ttl, self.passed_ttl)
        before = max(self.passed_ttl + 1, self.known_end)
        rejecting = (ttl for ttl in self.rejecting_ttls if ttl >= before)
        self.end_ttl = self.target_ttl or min(rejecting, default=None)

    def reported(self) -> list[tuple[Probe, Answer | None]]:
        """Return the probes up to the end of the path, by TTL and attempt, each with its answer."""
        last = self.end_ttl or 255
        counted = [p for p in self.probes.values() if p.ttl <= last and p.mark not in self.void]
        counted.sort(key=lambda probe: (probe.ttl, probe.attempt))
        return [(probe, self.answers.get(probe.mark)) for probe in counted]


def timing(probe: Probe, answer: Answer) -> tuple[int, Clock]:
    """Return the round-trip time in nanoseconds, and the clock it comes from.

    The monotonic interval encloses the true one. Timestamps that claim more than that, or less than nothing,
    mean that the wall clock was set in between, and are not used.
    """
    enclosing = answer.received_ns - probe.sent_ns
    if answer.stamp_ns is not None:
        for left_ns, clock in ((answer.left_ns, Clock.KERNEL), (probe.wall_ns, Clock.KERNEL_RECEIVE)):
            if left_ns is not None and 0 < answer.stamp_ns - left_ns <= enclosing:
                return answer.stamp_ns - left_ns, clock
    return enclosing, Clock.USER
