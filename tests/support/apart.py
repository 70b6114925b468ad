"""A capture in a process of its own: clients of this one do not wait for their turn with its Python."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

import pandas as pd

import netlab

_AT_A_STRETCH, _BREATH_S = 500, 0.2


def breathe(number: int) -> None:
    """Let the other process catch up now and then: on two cores clients and servers leave it too little."""
    if number % _AT_A_STRETCH == _AT_A_STRETCH - 1:
        time.sleep(_BREATH_S)


@contextlib.contextmanager
def punctual() -> Iterator[None]:
    """Run this thread, and those that it starts, as soon as what they wait for is there.

    Else a client's clock also has how long it waited for a core, which no packet shows.
    """
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    gc.freeze()  # what this process has by now need not be looked through in between
    try:
        yield
    finally:
        gc.unfreeze()
        os.sched_setscheduler(0, *before)


class Apart:
    """Asks the other process."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def requests(self) -> pd.DataFrame:
        """Return what its capture has read."""
        self._pipe.send(True)
        frame: pd.DataFrame = self._pipe.recv()
        return frame


@contextlib.contextmanager
def capturing(**options: Any) -> Iterator[Apart]:
    """Run `netlab.capture()` with *options* in another process."""
    spawning = multiprocessing.get_context("spawn")
    own, its = spawning.Pipe()
    process = spawning.Process(target=_capture, args=(its, options))
    process.start()
    its.close()
    try:
        assert own.recv() == "begun"
        yield Apart(own)
    finally:
        own.close()
        process.join(60)
        assert process.exitcode == 0


def _capture(pipe: Connection, options: dict[str, Any]) -> None:
    with netlab.capture(**options) as capture, contextlib.suppress(EOFError):
        pipe.send("begun")
        while pipe.recv():
            pipe.send(capture.requests())
