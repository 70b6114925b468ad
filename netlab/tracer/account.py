"""What of what connections say was not understood, in numbers."""

from __future__ import annotations

from dataclasses import dataclass, fields

from netlab.protocols.streams import Stream


@dataclass(slots=True)
class Account:
    """What was not understood, in numbers."""

    midway: int = 0  # connections that were open before, read from some message on
    over_tls: int = 0  # connections whose handshake was not asked for
    midway_since_ns: int = 0  # by when there was such a message on each of those that have said one
    ignored: int = 0  # connections that speak nothing that is asked for
    undecided: int = 0  # connections that ended, or go on, before it is clear what they speak
    missed_bytes: int = 0  # of connections that are read
    cut_bytes: int = 0  # behind what is handed up of a packet
    unread_bytes: int = 0
    unknown_fields: int = 0  # of HTTP/2
    given_up: int = 0  # streams of HTTP/2 that made room for others
    switched: int = 0  # connections that went on in another protocol
    evicted: int = 0  # connections that made room for others

    def joined(self, other: Account) -> Account:
        """Return one account of both."""
        sums = {one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(Account)}
        return Account(**sums | {"midway_since_ns": max(self.midway_since_ns, other.midway_since_ns)})

    def add(self, stream: Stream, *, is_tls: bool, since_ns: int) -> None:
        """Add what one connection lacks, whose first request was read at *since_ns*."""
        self.unread_bytes += stream.unread_bytes
        if stream.dialog is None and is_tls and not stream.is_tunnel:
            self.over_tls += 1
            return
        if stream.dialog is None and not stream.is_tunnel:
            self.ignored += stream.is_ignored
            self.undecided += stream.has_spoken and not stream.is_ignored
            return
        if stream.midway:
            self.midway += 1
            self.midway_since_ns = max(self.midway_since_ns, since_ns)
        self.missed_bytes += stream.missed_bytes
        self.cut_bytes += stream.cut_bytes
        # of those protocols that have the like
        self.unknown_fields += getattr(stream.dialog, "unknown_fields", 0)
        self.given_up += getattr(stream.dialog, "given_up", 0)
        self.switched += stream.is_tunnel or getattr(stream.dialog, "upgraded", None) is not None
