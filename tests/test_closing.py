"""Work that Ctrl-C does not cut in two, at whatever moment it comes."""

from __future__ import annotations

import itertools
import signal
import sys
from typing import Self

import pytest
from interrupts import interrupt_at

from netlab.closing import Closes, Runs, uninterrupted


def test_ctrl_c_at_any_moment_finds_work_not_begun_or_done() -> None:
    begun, done, interrupted = 0, 0, 0
    handler = signal.getsignal(signal.SIGINT)

    def work() -> None:
        nonlocal begun, done
        begun += 1
        sum(range(3))
        done += 1

    def ask() -> None:
        uninterrupted(work)

    for step in itertools.count():
        before = done
        sys.settrace(interrupt_at(step, ask.__code__))
        try:
            ask()
        except KeyboardInterrupt:
            interrupted += 1
        else:
            assert done == before + 1
            break
        finally:
            sys.settrace(None)
        assert begun == done, step
        assert signal.getsignal(signal.SIGINT) == handler, step

    assert interrupted > 50
    assert 0 < done < interrupted


def test_what_the_work_returns_and_raises_is_its_callers() -> None:
    assert uninterrupted(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        uninterrupted(lambda: 1 // 0)


class Lasting(Runs):
    """What notes what is done with it."""

    def __init__(self, *, ends: bool) -> None:
        self.done: list[str] = []
        self._has_end = ends

    @property
    def _ends(self) -> bool:
        return self._has_end

    def start(self) -> Self:
        self.done.append("start")
        return self

    def wait(self, timeout_s: float | None = None) -> bool:
        self.done.append("wait")
        return timeout_s is None

    def stop(self) -> None:
        self.done.append("stop")


@pytest.mark.parametrize(("ends", "waited"), [(True, ["wait"]), (False, [])])
def test_a_block_waits_for_what_ends_by_itself(ends: bool, waited: list[str]) -> None:
    with Lasting(ends=ends) as lasting:
        pass

    assert lasting.done == ["start", *waited, "stop"]


def test_a_block_that_fails_does_not_wait() -> None:
    lasting = Lasting(ends=True)
    with pytest.raises(ZeroDivisionError), lasting:
        raise ZeroDivisionError

    assert lasting.done == ["start", "stop"]


class Unstoppable(Lasting):
    """What cannot be ended, as a capture whose agent is gone."""

    def stop(self) -> None:
        raise ConnectionError("nobody answers")


class Unclosable(Closes):
    """What cannot be closed, as a recording whose disk is full."""

    def close(self) -> None:
        raise ConnectionError("nobody answers")


@pytest.mark.parametrize("held", [Unstoppable(ends=True), Unclosable()], ids=["runs", "closes"])
def test_the_error_of_a_block_comes_before_one_of_its_end(held: Unstoppable | Unclosable) -> None:
    with pytest.raises(ZeroDivisionError) as raised, held:
        raise ZeroDivisionError
    with pytest.raises(ConnectionError), held:
        pass

    assert raised.value.__notes__ == ["Nor did it end in order: ConnectionError: nobody answers"]
