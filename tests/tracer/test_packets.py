"""Pieces of payload put together again, however CPUs mixed them and wherever a block of the ring ended."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given, strategies as st

from netlab.tracer.layout import PIECE
from netlab.tracer.packets import Packets

ROOM = PIECE["data"].itemsize


def pieces_of(number: int, payload: bytes, cut: int) -> list[np.void]:
    """Return what the program hands up of the first *cut* bytes of a packet."""
    handed = payload[:cut]
    found = []
    for offset in range(0, max(len(handed), 1), ROOM):
        piece = np.zeros((), PIECE)
        part = handed[offset : offset + ROOM]
        piece["cookie"], piece["at_ns"], piece["outgoing"] = number % 3 + 1, 1000 + number, number % 2
        piece["sequence"] = (0xFFFFFF00 + number * 100_000 + offset) % (1 << 32)
        piece["packet_bytes"], piece["handed_bytes"] = len(payload), len(handed)
        piece["offset"], piece["bytes"] = offset, len(part)
        piece["data"] = 0xAA  # what the ring held before
        piece["data"][: len(part)] = np.frombuffer(part, np.uint8)
        found.append(piece[()])
    return found


@given(
    st.lists(st.tuples(st.integers(0, 5 * ROOM), st.integers(0, 5 * ROOM)), min_size=1, max_size=8),
    st.randoms(use_true_random=False),
    st.integers(0, 40),
)
def test_every_packet_is_whole_again_and_holds_nothing_else(
    sizes: list[tuple[int, int]], chance: random.Random, block: int
) -> None:
    payloads = [(bytes([65 + number]) * size, cut) for number, (size, cut) in enumerate(sizes)]
    waiting = [pieces_of(number, *payload) for number, payload in enumerate(payloads)]
    mixed = []
    while any(waiting):  # each CPU writes its own packet's pieces in order
        mixed.append(chance.choice([one for one in waiting if one]).pop(0))
    ring = np.array(mixed, PIECE)

    first = Packets.of(ring[:block])
    rest = first.pieces[np.repeat(~first.whole, first.counts)]
    second = Packets.of(np.concatenate([rest, ring[block:]]))
    packets = [*first.packets(first.whole), *second.packets(second.whole)]

    assert second.whole.all()
    by_time = sorted(packets, key=lambda packet: packet.segment.at_ns)
    assert [(one.segment.data, one.segment.size) for one in by_time] == [
        (payload[:cut], len(payload)) for payload, cut in payloads
    ]
    assert [one.segment.sequence for one in by_time] == [
        (0xFFFFFF00 + number * 100_000) % (1 << 32) for number in range(len(payloads))
    ]
