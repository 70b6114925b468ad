"""What became of requests in few words, the same for every protocol."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

_HTTP = ("http", "http2")


def of(requests: pd.DataFrame) -> pd.Series[Any]:
    """Return the status class of each request, as `netlab.schemas.PROTOCOL_STATS` has it."""
    status = requests["status"].astype("string")
    went_well = np.where(status.notna(), "ok", "unknown")  # an answer whose status was not told, or not seen
    plain = pd.Series(np.where(requests["error"].notna(), "error", went_well), requests.index, dtype="string")
    is_code = requests["protocol"].isin(_HTTP) & status.str.fullmatch(r"[1-5]\d\d").fillna(value=False)
    answered = plain.where(~is_code, status.str[:1] + "xx")
    outcome = requests["outcome"].astype("string")
    return answered.where(outcome == "answered", outcome)


def word(requests: pd.DataFrame) -> pd.Series[Any]:
    """Return what each request was told, by the name that people know it by: of HTTP's errors the number.

    Missing where nothing was told.
    """
    status, error = requests["status"].astype("string"), requests["error"].astype("string")
    is_known = requests["protocol"].isin(_HTTP) & status.str.fullmatch(r"[45]\d\d").fillna(value=False)
    return error.fillna(status.replace("0", "OK")).where(~is_known, status)
