"""BPF maps of real programs, read and written."""

from __future__ import annotations

import numpy as np
import pytest
from programs import tcp_program

from netlab.errors import KernelError
from netlab.tracer.layout import ATTEMPT

pytestmark = pytest.mark.privileged


def test_a_map_larger_than_one_batch_is_read_whole() -> None:
    with tcp_program(max_open=65_536) as tcp:
        numbers = tcp.map("netlab_open", "u8", ATTEMPT)
        for key in range(20_000):
            numbers.set(key, 0)

        keys, values = numbers.items()

    assert sorted(keys.tolist()) == list(range(20_000))
    assert len(values) == 20_000


def test_a_map_whose_entries_cannot_be_taken_says_so() -> None:
    with tcp_program() as tcp:
        counters = tcp.map("netlab_counters", "u4", "u8")

        with pytest.raises(KernelError, match="could not be taken"):
            counters.take(np.array([0], "u4"))
