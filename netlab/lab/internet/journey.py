"""What can happen to a packet, and what did."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """How a packet's journey ended. Each has exactly one end."""

    ANSWERED = "answered"
    TAKEN = "taken"  # it arrived and calls for no answer, as an ACK or a reset
    FRAGMENT = "fragment"  # it arrived, and not all of its packet had
    SILENT = "silent"  # where it ended nobody wants to answer
    RATE_LIMITED = "rate-limited"
    FILTERED = "filtered"
    LOST = "lost"
    NO_ROUTE = "no-route"
    TOO_BIG = "too-big"
    EXPIRED = "expired"
    PROHIBITED = "prohibited"
    UNTRANSLATED = "untranslated"  # a NAT has no binding for it
    UNANSWERABLE = "unanswerable"  # no ICMP error is sent about an error or a later fragment
    DAMAGED = "damaged"  # a wrong checksum or length
    ASTRAY = "astray"  # the answer went to another node than the client, or in circles


@dataclass(frozen=True, slots=True, kw_only=True)
class Journey:
    """What happened to one packet of the client's.

    `there` and `back` are the nodes that it and its answer came to, `place` is the node or link where the
    journey ended, `expired` whether its TTL ended the way there, `answered_by` the node that answered,
    `delay_ns` is from entering to the answer's arrival.
    """

    number: int
    at_ns: int
    packet: bytes
    there: tuple[str, ...]
    outcome: Outcome
    place: str
    back: tuple[str, ...] = ()
    expired: bool = False
    answered_by: str = ""
    delay_ns: int | None = None
    answer: bytes | None = None


@dataclass(slots=True)
class Entry:
    """A packet in the log: its journey, when it entered (wall clock), and how late its answer was."""

    journey: Journey
    entered_ns: int
    late_ns: int | None = None
