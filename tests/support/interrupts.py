"""Ctrl-C at a chosen moment."""

from __future__ import annotations

import dis
import gc
import itertools
import signal
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

# Python takes no signal in the midst of them: an exception there would stay the thread's current one.
_LEAVING = {dis.opmap[name] for name in ("PUSH_EXC_INFO", "POP_EXCEPT", "COPY", "RERAISE")}


def _collects(code: CodeType) -> bool:
    """Tell what the garbage collector calls, at any time: Python ignores what that raises."""
    return any(getattr(callback, "__code__", None) is code for callback in gc.callbacks)


def interrupt_at(step: int, caller: CodeType) -> Callable[..., Any]:
    """Return a trace function that presses Ctrl-C before the given instruction of what *caller* calls.

    Not of itself: while it leaves a block, Python looks for signals in what it calls only.
    """
    left = itertools.count(step, -1)

    def trace(frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        if frame.f_code is caller or _collects(frame.f_code):
            return None
        frame.f_trace_opcodes = True
        leaves = frame.f_lasti >= 0 and frame.f_code.co_code[frame.f_lasti] in _LEAVING
        if event != "return" and not leaves and next(left) == 0:
            signal.raise_signal(signal.SIGINT)
        return trace

    return trace
