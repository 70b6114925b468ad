"""Work that Ctrl-C does not cut in two, at whatever moment it comes."""

from __future__ import annotations

import itertools
import signal
import sys

import pytest
from interrupts import interrupt_at

from netlab.closing import uninterrupted


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
