"""Attempt records field by field: each field of all of them in a piece of memory of its own.

A record is longer than three cache lines: to read one field of many records is to fetch a line of each anew,
and a frame reads forty. Copied out in blocks that the cache holds, they are fetched once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from netlab.kernel.keys import chosen
from netlab.tracer.records import Attempts

_BLOCK = 2048  # records: less than half of the second cache of any server


class Fields:
    """What `attempts[name]` tells of records, in another *order* (places) if that is given."""

    def __init__(self, attempts: Attempts, order: npt.NDArray[np.intp] | None = None) -> None:
        count = len(attempts)
        kinds = [(name, attempts.dtype[name]) for name in attempts.dtype.names or ()]
        self._count = count
        self._fields = {name: np.empty((count, *kind.shape), kind.base) for name, kind in kinds}
        for begin in range(0, count, _BLOCK):
            block = slice(begin, begin + _BLOCK)
            records = attempts[block] if order is None else chosen(attempts, order[block])
            for name, field in self._fields.items():
                field[block] = records[name]

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self._fields[name]
