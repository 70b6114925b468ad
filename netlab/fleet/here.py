"""What a worker does on its host: netlab's own calls, whose frames leave as Arrow."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any

import pandas as pd

import netlab
from netlab.agent.formats import Format, encoded
from netlab.errors import CaptureError
from netlab.frames import concat
from netlab.kernel.netns import inode

IDLE_S = 600.0  # a capture that nobody asks for so long ends: the notebook may have died
# In the attrs of frames on their way: where the worker is, and its time (UTC, ns).
PLACE, CLOCK = "place", "clock"
_BOOT = Path("/proc/sys/kernel/random/boot_id")


def frame(function: str, options: Mapping[str, Any]) -> bytes:
    """Return what `netlab.FUNCTION` returns."""
    return _body(attrgetter(function)(netlab)(**options))


def traces(targets: Sequence[str], at_once: int, options: Mapping[str, Any]) -> bytes:
    """Trace the ways to all targets, *at_once* of them side by side."""
    batches = [targets[first : first + at_once] for first in range(0, len(targets), at_once)]
    found = [netlab.path.trace_many(batch, **options) for batch in batches]
    return _body(concat(found))


@dataclass(slots=True, eq=False)
class _Held:
    """A capture of this worker's, and the number of the last delta that each client was told."""

    capture: Any  # netlab's own, or an agent's
    told: dict[str, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    end: threading.Timer | None = None

    def forget_later(self, name: str) -> None:
        """Let go of it if nothing is asked of it from now on."""
        self.stay()
        self.end = threading.Timer(IDLE_S, forget, [name])
        self.end.daemon = True
        self.end.start()

    def stay(self) -> None:
        if self.end is not None:
            self.end.cancel()


_held: dict[str, _Held] = {}


def begin(name: str, options: Mapping[str, Any]) -> None:
    """Start a capture and call it *name*."""
    _held[name] = _Held(netlab.capture(**options).start())
    _called(name)


def touch(name: str) -> None:
    """Keep the capture: somebody waits for it."""
    _called(name)


def order(name: str, what: str, *given: Any) -> None:
    """Have the capture do *what*, which returns nothing: pause, resume, register."""
    held = _called(name)
    with held.lock:
        getattr(held.capture, what)(*given)


def look(name: str, what: str, *given: Any) -> bytes:
    """Return the capture's table of that name, for what is *given*."""
    held = _called(name)
    with held.lock:
        return _body(getattr(held.capture, what)(*given))


def delta(name: str, client: str, number: int) -> bytes:
    """Return the delta of this number: if it was told before, its answer got lost, and it is told again."""
    held = _called(name)
    with held.lock:
        frame = held.capture.delta(client, again=held.told.get(client) == number)
        held.told[client] = number
        return _body(frame)


def end(name: str) -> None:
    """Stop the capture; what it saw stays readable."""
    held = _called(name)
    with held.lock:
        held.capture.stop()


def forget(name: str) -> None:
    """Let go of a capture, which need not be there."""
    held = _held.pop(name, None)
    if held is not None:
        held.stay()
        held.capture.stop()


def _body(frame: pd.DataFrame) -> bytes:
    """Return *frame* as it travels, with its worker's time, kernel and network namespace."""
    frame.attrs[CLOCK] = time.time_ns()
    if _BOOT.exists():  # it is Linux
        frame.attrs[PLACE] = [_BOOT.read_text(encoding="ascii"), inode()]
    return encoded(frame, Format.ARROW)


def _called(name: str) -> _Held:
    held = _held.get(name)
    if held is None:
        raise CaptureError(
            "the capture is not there: its worker is another one than at the start", fix="Begin a new one"
        )
    with held.lock:  # two who ask at once would each set a timer, of which one is forgotten
        held.forget_later(name)
    return held
