"""How often `netlab.path.explain` gives each hop of the simulated faults the verdict that it deserves."""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

SEEDS = 100
_SUPPORT = Path(__file__).parents[1] / "tests" / "support"  # the faults and their truth are the tests'
_LIMITED = "rate-limited"
_LOSSES = ("forward-loss", "return-loss", "path-loss")


def measure() -> Iterator[tuple[str, float, str]]:
    """Yield each fault's share of seeds with every hop right, over what is asked for: 0.95."""
    sys.path.append(str(_SUPPORT))
    confusion: Counter[tuple[str, str]] = Counter()
    for fault in importlib.import_module("faults").faults():
        right = 0
        for seed in range(SEEDS):
            found = fault.explained(seed)["verdict"].tolist()
            right += found == fault.verdicts
            confusion.update(zip(fault.verdicts, found, strict=False))
        yield f"verdicts: {fault.name}, right over 0.95", right / SEEDS / 0.95, f"{right} of {SEEDS} seeds"
    for (true, found), count in sorted(confusion.items()):
        total = sum(number for (wanted, _), number in confusion.items() if wanted == true)
        yield f"verdicts: share of {true} hops called {found}", count / total, f"{count} of {total} hops"
    wrong = sum(confusion[_LIMITED, loss] for loss in _LOSSES)
    yield "verdicts: rate-limited hops called a loss", wrong, "must be 0"
