"""Whether a trace was stopped before its time: what it did not send says nothing of the network."""

from __future__ import annotations

import pandas as pd

_SAID = "interrupted"  # how `netlab.path.rows` and `netlab.path.tracing` begin what they say of such runs


def was_interrupted(hops: pd.DataFrame) -> bool:
    """Return whether the coverage of *hops* names interrupted runs; which of them it were is not told."""
    return any(
        gap["what"] == "runs" and str(gap["detail"]).startswith(_SAID)
        for gap in hops.attrs.get("coverage", [])
    )
