"""Whether a trace was stopped before its time: what it did not send says nothing of the network."""

from __future__ import annotations

import pandas as pd

RUNS = "interrupted runs"  # what the coverage calls those that were cut short, or had not begun


def was_interrupted(hops: pd.DataFrame) -> bool:
    """Return whether the coverage of *hops* names interrupted runs; which of them it were is not told."""
    return any(gap["what"] == RUNS for gap in hops.attrs.get("coverage", []))
