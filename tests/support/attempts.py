"""Records of connection attempts that say only what a test is about."""

from __future__ import annotations

from typing import Any

import numpy as np

from netlab.tracer.layout import ATTEMPT
from netlab.tracer.records import Attempts


def attempts(*rows: dict[str, Any]) -> Attempts:
    """Return records with the fields of *rows*; the others are 0."""
    records = np.zeros(len(rows), ATTEMPT)
    for record, row in zip(records, rows, strict=True):
        for name, value in row.items():
            record[name] = value
    return records
