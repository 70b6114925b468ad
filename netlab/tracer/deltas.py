"""The frame of what changed for one client."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from netlab.frames import Gap, Missing
from netlab.schemas import DELTAS
from netlab.tracer.clients import COUNTED

_DROPPED = "closed attempts were dropped before this client asked for them"


def frame(connections: pd.DataFrame, change: npt.NDArray[np.void], dropped: int) -> pd.DataFrame:
    """Put the changes beside the attempts they belong to, row by row.

    Parameters
    ----------
    connections
        The attempts that changed.
    change
        What changed, of dtype `netlab.tracer.clients.CHANGES`.
    dropped
        How many closed attempts this client can no longer be told of.
    """
    lost = [Missing("connections", Gap.LOST, dropped, _DROPPED)] if dropped else []
    coverage = [*connections.attrs["coverage"], *map(asdict, lost)]
    if not len(connections):
        told = DELTAS.empty()
        told.attrs["coverage"] = coverage
        return told
    data: dict[str, Any] = {name: connections[name] for name in connections.columns}
    for name in COUNTED:
        data[f"delta_{name}"] = np.ma.array(change[name], mask=connections[name].isna())
    told = DELTAS.frame(data | {"new": change["is_new"]})
    told.attrs["coverage"] = coverage
    return told
