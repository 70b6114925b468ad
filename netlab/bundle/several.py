"""Tables of one kind that a recording has several of, such as those of two captures, shown as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from netlab.bundle.history import History, Past, in_order
from netlab.bundle.repeats import together
from netlab.schemas import CONNECTIONS


@dataclass(frozen=True, slots=True)
class _Several:
    pasts: Sequence[History]

    def at(self, now_ns: int) -> pd.DataFrame:
        told_ns = [past.last_told_ns(now_ns) for past in self.pasts]
        frame = together([past.at(now_ns) for past in self.pasts], told_ns)
        if frame.attrs["schema"] != CONNECTIONS.name:
            return frame
        ordered = in_order(frame).reset_index(drop=True)
        ordered.attrs = frame.attrs
        return ordered


def one_of(pasts: Sequence[History]) -> Past:
    """Return what shows all of *pasts*, of one schema, as one table: what two of them have is in it once."""
    return pasts[0] if len(pasts) == 1 else _Several(pasts)
