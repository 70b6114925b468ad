"""What the programs of a capture could not keep or see, in words for its coverage."""

from __future__ import annotations

from collections.abc import Mapping

from netlab.frames import Gap, Missing
from netlab.tracer.layout import Counter

_MISSED = "state changes came in the middle of another on the same CPU: so many connections at most"
_LATE_CONNTRACK = (
    "packets were tracked by a conntrack that was loaded after the start: if it translates, flows are under "
    "translated addresses"
)
_NOT_PLAIN = "packets of any socket that are not plain UDP are in no flow: UDP-Lite's, and what IPsec sealed"
_ADDED_SINGLY = "packets were added up one by one, those that found their receive queue full as received"
_UDP = "packets, bytes of UDP flows"
_WORDS = {
    Counter.ATTEMPT_LOST: ("connections", Gap.LOST, "attempts did not fit into the ring buffer"),
    Counter.END_LOST: ("closed_at, error", Gap.LOST, "ends did not fit into the ring buffer"),
    Counter.MAP_FULL: (
        "connect_ms, syn_retransmits",
        Gap.LOST,
        "more than {max_open} attempts were open at a time",
    ),
    Counter.WHILE_PAUSED: ("connections", Gap.UNSEEN, "attempts began while the capture was paused"),
    Counter.FLOWS_FULL: (
        "packets_received, bytes_received, receive_drops, error of UDP flows",
        Gap.LOST,
        f"more than {{max_open}} flows ran at a time: {_ADDED_SINGLY}",
    ),
    Counter.PACKET_LOST: (_UDP, Gap.LOST, "packets were not added up in time"),
    Counter.TRANSLATION_UNKNOWN: (
        "local_address, remote_address of UDP flows",
        Gap.APPROXIMATE,
        _LATE_CONNTRACK,
    ),
    Counter.PACKETS_WHILE_PAUSED: (
        _UDP,
        Gap.UNSEEN,
        "packets of new flows came while the capture was paused",
    ),
    Counter.NOT_PLAIN_UDP: (_UDP, Gap.UNSEEN, _NOT_PLAIN),
    Counter.CHANGE_LOST: (
        "events",
        Gap.LOST,
        "state changes did not fit into their ring buffer; some may be of attempts that nobody asked for",
    ),
}


def counted(counts: Mapping[int, int], misses: int, max_open: int) -> list[Missing]:
    """Return what was lost.

    Parameters
    ----------
    counts
        The programs' own counters, by `Counter`.
    misses
        How often the kernel did not run the program of state changes, because it ran already on that CPU.
    max_open
        How many attempts, and how many flows, their maps hold.
    """
    lost = [
        Missing(what, kind, counts[counter], detail.format(max_open=max_open))
        for counter, (what, kind, detail) in _WORDS.items()
        if counts[counter]
    ]
    missed = misses - counts[Counter.NESTED_CHANGE]  # which are those that were taken care of
    return [*lost, Missing("connections", Gap.LOST, missed, _MISSED)] if missed > 0 else lost
