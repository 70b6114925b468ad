"""Work that Ctrl-C does not cut in two, at whatever moment it comes."""

from __future__ import annotations

import itertools
import signal
import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

import pytest

from netlab.closing import uninterrupted


def interrupt_at(step: int, own: CodeType) -> Callable[..., Any]:
    """Return a trace function that presses Ctrl-C before the given instruction, but for those of *own*."""
    left = itertools.count(step, -1)

    def trace(frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        if frame.f_code is own:
            return None
        frame.f_trace_opcodes = True
        if event != "return" and next(left) == 0:
            signal.raise_signal(signal.SIGINT)
        return trace

    return trace


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
