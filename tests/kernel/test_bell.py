"""The bell rings for what is urgent, and for nothing else."""

from __future__ import annotations

import threading

from netlab.kernel.bell import Bell


def test_it_is_silent_until_somebody_rings() -> None:
    with Bell() as bell:
        assert not bell.wait(0)
        bell.ring()
        assert bell.wait(0)


def test_it_ends_the_wait_of_another_thread() -> None:
    with Bell() as bell:
        rung = []
        waiting = threading.Thread(target=lambda: rung.append(bell.wait(60)))
        waiting.start()
        bell.ring()
        waiting.join(30)
        assert rung == [True]


def test_it_may_be_closed_again() -> None:
    bell = Bell()
    bell.close()
    bell.close()
