"""Sessions that follow each other on one connection, in one block of the ring."""

from __future__ import annotations

import numpy as np
from hypothesis import given, strategies as st

from netlab.tracer.cleartext import turns
from netlab.tracer.layout import CLEAR


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 3)), max_size=30))
def test_each_turn_has_one_session_of_a_connection_and_all_turns_have_each_piece_once(
    spoken: list[tuple[int, int]],
) -> None:
    block = np.zeros(len(spoken), CLEAR)
    block["piece"]["sequence"] = range(len(spoken))
    for piece, (cookie, turn) in zip(block, spoken, strict=True):
        piece["piece"]["cookie"], piece["session"] = cookie, cookie + 10 * turn
    told = list(turns(block))

    before: dict[int, int] = {}
    for turn in told:
        assert turn["piece"]["sequence"].tolist() == sorted(turn["piece"]["sequence"].tolist())
        for cookie, session in set(
            zip(turn["piece"]["cookie"].tolist(), turn["session"].tolist(), strict=True)
        ):
            assert before.get(cookie, -1) < session
            before[cookie] = session
    places = sorted(place for turn in told for place in turn["piece"]["sequence"].tolist())
    assert places == list(range(len(spoken)))
