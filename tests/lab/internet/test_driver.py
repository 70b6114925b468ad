"""The clocks of the process that carries packets."""

from __future__ import annotations

from itertools import accumulate
from types import SimpleNamespace

import pytest

from netlab.lab.internet import driver

_BETWEEN_NS = 10_000_000_000  # the two clocks


@pytest.mark.parametrize("pause", range(8))
def test_a_pause_between_the_readings_moves_neither_clock(
    pause: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine may stop for milliseconds anywhere; a packet would be due that much too early."""
    moments = accumulate(5_000_000 if reading == pause else 100 for reading in range(9))
    clocks = SimpleNamespace(monotonic_ns=lambda: next(moments), time_ns=lambda: next(moments) + _BETWEEN_NS)
    monkeypatch.setattr(driver, "time", clocks)

    now_ns, wall_ns = driver._both_clocks()

    assert abs(wall_ns - now_ns - _BETWEEN_NS) <= 100
