"""Pieces of payload, as bpf/payload.c hands them up, put together to packets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from netlab.protocols.streams import Segment
from netlab.tracer.layout import PIECE

Pieces: TypeAlias = npt.NDArray[np.void]

_PIECE_BYTES = PIECE["data"].itemsize
_FIN, _RST = 0x01, 0x04  # RFC 9293 section 3.1
_NUMBERS = ("cookie", "tcp_flags", "sequence", "packet_bytes", "settled", "other_settled", "at_ns")
_FLAGS = ("fresh", "other_fresh", "outgoing")


class Packet(NamedTuple):
    """One packet's payload, and whose it is."""

    cookie: int
    ends: np.void  # a CONVERSATION
    segment: Segment
    local: bool  # sent by this end
    reset: bool
    budget: int  # of the connection, as the programs had it
    protocol: int


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
        columns = [firsts[name].tolist() for name in _NUMBERS]
        columns += [firsts["conversation"][name].tolist() for name in ("budget", "protocol")]
        columns += [firsts[name].astype(bool).tolist() for name in _FLAGS]
        data, sizes = self.pieces["data"], self.pieces["bytes"].tolist()
        rows = zip(starts.tolist(), counts.tolist(), firsts["conversation"], *columns, strict=True)
        for start, count, ends, cookie, bits, *numbers, fresh, new, local in rows:
            sequence, size, settled, other, at_ns, budget, protocol = numbers
            length = (count - 1) * _PIECE_BYTES + sizes[start + count - 1]
            said = data[start : start + count].tobytes()[:length]
            last = bool(bits & _FIN)
            segment = Segment(sequence, said, size, settled, other, at_ns, fresh, new, last)
            yield Packet(cookie, ends, segment, local, bool(bits & _RST), budget, protocol)
