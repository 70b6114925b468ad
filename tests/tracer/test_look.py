"""What a capture says of one moment."""

from __future__ import annotations

from netlab.tracer.look import Clock


def test_a_system_clock_that_was_set_since_the_start_is_said() -> None:
    (gap,) = Clock(0, 1_000, shifted_ns=-3_500_000_000).missing()
    assert gap.kind == "approximate"
    assert "moved by -3.5 s" in gap.detail


def test_a_system_clock_that_is_being_disciplined_is_not_worth_a_word() -> None:
    assert not Clock(0, 1_000, shifted_ns=20_000_000).missing()
