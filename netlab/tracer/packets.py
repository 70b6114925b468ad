"""Pieces of payload, as bpf/payload.c hands them up, put together to packets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from netlab.protocols.ordered import Segment
from netlab.tracer.layout import CONVERSATION, PIECE

Pieces: TypeAlias = npt.NDArray[np.void]

_PIECE_BYTES = PIECE["data"].itemsize
_FIN, _RST = 0x01, 0x04  # RFC 9293 section 3.1
_NUMBERS = ("cookie", "sequence", "packet_bytes", "settled", "other_settled", "at_ns")
_FLAGS = ("fresh", "other_fresh", "outgoing")


class Packet(NamedTuple):
    """One packet's payload, and whose it is."""

    cookie: int
    ends: bytes  # a CONVERSATION; blank where the programs were told that it goes on
    segment: Segment
    local: bool  # sent by this end
    reset: bool
    budget: int  # of the connection, as the programs had it
    protocol: int

    def conversation(self) -> np.void:
        """Return the ends field by field."""
        return conversation(self.ends)


@dataclass(frozen=True, slots=True)
class Packets:
    """Pieces in the order of their packets: where each begins, how many it has, and which lack none."""

    pieces: Pieces
    starts: npt.NDArray[np.intp]
    counts: npt.NDArray[np.intp]
    whole: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, pieces: Pieces) -> Packets:
        """Sort *pieces*: those of several CPUs are mixed."""
        offset, base = pieces["offset"], pieces["sequence"] - pieces["offset"]
        keys = [base, *(pieces[name] for name in ("outgoing", "cookie", "at_ns"))]
        order = np.lexsort([offset, *keys])
        if (order[1:] < order[:-1]).any():
            pieces, keys = pieces[order], [key[order] for key in keys]
        first = np.ones(len(pieces), bool)
        if len(pieces):
            first[1:] = False
            for key in keys:
                first[1:] |= key[1:] != key[:-1]
        starts = np.flatnonzero(first)
        counts = np.diff(np.append(starts, len(pieces)))
        handed = pieces["handed_bytes"][starts].astype(np.int64)
        expected = np.maximum(1, -(-handed // _PIECE_BYTES))
        return cls(pieces, starts, counts, counts >= expected)

    def packets(self, take: npt.NDArray[np.bool_]) -> Iterator[Packet]:
        """Return the packets that *take* selects, in the order of time."""
        chosen = np.flatnonzero(take)
        starts, counts = self.starts[chosen], self.counts[chosen]
        firsts = self.pieces[starts]
        numbers = {name: firsts[name].tolist() for name in _NUMBERS}
        fresh, other_fresh, outgoing = (firsts[name].astype(bool).tolist() for name in _FLAGS)
        last = (firsts["tcp_flags"] & _FIN > 0).tolist()
        reset = (_resets(firsts) & (firsts["tcp_flags"] & _RST > 0)).tolist()
        budgets, protocols = (firsts["conversation"][name].tolist() for name in ("budget", "protocol"))
        lengths = (counts - 1) * _PIECE_BYTES + self.pieces["bytes"][starts + counts - 1]
        segments = map(
            Segment,
            numbers["sequence"],
            _cut(self.pieces["data"].tobytes(), starts * _PIECE_BYTES, lengths),
            numbers["packet_bytes"],
            numbers["settled"],
            numbers["other_settled"],
            numbers["at_ns"],
            fresh,
            other_fresh,
            last,
        )
        ends = firsts["conversation"].tobytes()
        whose = _cut(ends, np.arange(len(chosen)) * CONVERSATION.itemsize, CONVERSATION.itemsize)
        return map(Packet, numbers["cookie"], whose, segments, outgoing, reset, budgets, protocols)


def conversation(ends: bytes) -> np.void:
    """Return a CONVERSATION field by field."""
    read: np.void = np.frombuffer(ends, CONVERSATION)[0]
    return read


def _resets(packets: Pieces) -> npt.NDArray[np.bool_]:
    """Tell which packets may be a reset: one that comes in with another number is challenged (RFC 5961)."""
    taken: npt.NDArray[np.bool_] = (packets["sequence"] == packets["settled"]) | (packets["outgoing"] != 0)
    return taken


def _cut(text: bytes, starts: npt.NDArray[np.intp], lengths: npt.NDArray[np.intp] | int) -> list[bytes]:
    """Return what is from each of *starts* on."""
    return [text[start:end] for start, end in zip(starts.tolist(), (starts + lengths).tolist(), strict=True)]
