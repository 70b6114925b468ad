"""When readers are told of closed connections: after one whole reading of what these had said."""

from __future__ import annotations

import socket

import numpy as np

from netlab.tracer.closings import Closings
from netlab.tracer.layout import ATTEMPT


def ended(*cookies: int, protocol: int = socket.IPPROTO_TCP) -> np.ndarray:
    attempts = np.zeros(len(cookies), ATTEMPT)
    attempts["cookie"], attempts["protocol"] = cookies, protocol
    return attempts


def test_what_is_noted_before_a_reading_is_told_after_the_next_one_has_begun() -> None:
    closings = Closings()
    closings.note(ended(1, 2))
    first = list(closings.turn())
    closings.note(ended(3))
    second = list(closings.turn())

    assert first == []
    assert [one["cookie"] for one in second] == [1, 2]
    assert [one["cookie"] for one in closings.turn()] == [3]
    assert list(closings.turn()) == []


def test_flows_and_sockets_that_cannot_be_told_apart_are_left_out() -> None:
    closings = Closings()
    closings.note(ended(1, protocol=socket.IPPROTO_UDP))
    closings.note(ended(0))

    assert [*closings.turn(), *closings.turn()] == []
