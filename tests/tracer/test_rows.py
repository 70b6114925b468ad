"""Attempt records as rows."""

from __future__ import annotations

import pandas as pd
from attempts import attempts

from netlab.tracer import rows
from netlab.tracer.layout import PidSource


def test_who_was_gone_before_anybody_asked_for_the_name_has_none() -> None:
    told = rows.owner_names(
        attempts(
            {"pid": 7, "pid_source": PidSource.SOCKET},
            {"pid": 8, "pid_source": PidSource.SOCKET, "process": b"curl"},
            {"process": b"nobody"},
        )
    )

    assert told["pid"].tolist() == [7, 8, None]
    assert told["process"].isna().tolist() == [True, False, True]
    assert told["process"][1] == "curl"
    assert told["process"].dtype == pd.Series([], dtype="string").dtype
