"""How often `netlab.path.explain` gives each hop of the simulated faults the verdict that it deserves.

Time is simulated, too, so this takes all cores and no root: four seconds of one core for each seed.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import multiprocessing
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

SEEDS = 100
_SUPPORT = Path(__file__).parents[1] / "tests" / "support"  # the faults and their truth are the tests'
_LIMITED = "rate-limited"
_LOSSES = ("forward-loss", "return-loss", "path-loss")


@functools.cache
def _faults() -> dict[str, Any]:
    sys.path.append(str(_SUPPORT))
    return {fault.name: fault for fault in importlib.import_module("faults").faults()}


def _verdicts(name: str, seed: int) -> list[str]:
    found: list[str] = _faults()[name].explained(seed)["verdict"].tolist()
    return found


def measure() -> Iterator[tuple[str, float, str]]:
    """Yield each fault's share of seeds with every hop right, over what is asked for: 0.95."""
    confusion: Counter[tuple[str, str]] = Counter()
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as cores:
        asked = {
            name: cores.map(_verdicts, itertools.repeat(name, SEEDS), range(SEEDS), chunksize=10)
            for name in _faults()
        }
        for name, answers in asked.items():
            wanted, right = _faults()[name].verdicts, 0
            for found in answers:
                right += found == wanted
                confusion.update(zip(wanted, found, strict=False))
            yield f"verdicts: {name}, right over 0.95", right / SEEDS / 0.95, f"{right} of {SEEDS} seeds"
    for (true, found), count in sorted(confusion.items()):
        total = sum(number for (wanted, _), number in confusion.items() if wanted == true)
        yield f"verdicts: share of {true} hops called {found}", count / total, f"{count} of {total} hops"
    wrong = sum(confusion[_LIMITED, loss] for loss in _LOSSES)
    yield "verdicts: rate-limited hops called a loss", wrong, "must be 0"
