"""Work with and without something beside it, in turn: a slow moment of the machine then counts for both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeAlias

_REST_S = 0.5  # what a watch leaves behind when it ends, and begins with, is no part of the work

Watch: TypeAlias = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class Pairs:
    """The medians of what the work measured: one number for each thing."""

    alone: tuple[float, ...]
    watched: tuple[float, ...]


def interleaved(work: Callable[[], tuple[float, ...]], watch: Watch, pairs: int) -> Pairs:
    """Measure *work* alone and while it is watched, *pairs* times each after one to warm up."""
    alone, watched = [], []
    work()
    for _ in range(pairs):
        alone.append(_rested(work))
        with watch():
            watched.append(_rested(work))
    return Pairs(_medians(alone), _medians(watched))


def _rested(work: Callable[[], tuple[float, ...]]) -> tuple[float, ...]:
    time.sleep(_REST_S)
    return work()


def _medians(runs: list[tuple[float, ...]]) -> tuple[float, ...]:
    return tuple(statistics.median(values) for values in zip(*runs, strict=True))
