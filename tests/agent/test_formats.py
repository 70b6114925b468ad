"""Bodies of answers are frames again at the other end, also where that has another version of netlab."""

from __future__ import annotations

import csv
import io

import numpy as np

import netlab
from netlab.agent import formats
from netlab.agent.formats import Format
from netlab.schemas import CONNECTIONS


def test_a_column_that_the_agents_netlab_does_not_have_is_a_gap() -> None:
    answer = CONNECTIONS.frame({"local_port": [443], "mark": [7]}).drop(columns=["mark", "cookie"])

    frame = formats.decoded(formats.encoded(answer, Format.ARROW))

    assert frame["mark"].isna().all()
    assert netlab.coverage(frame)[["what", "kind"]].to_numpy().tolist() == [
        ["columns mark, cookie", "unavailable"]
    ]


def test_times_in_csv_have_their_nanoseconds_and_those_that_miss_stay_so() -> None:
    at = np.ma.masked_array(np.array([1_234_567_890_123_456_789, 0], "M8[ns]"), [False, True])
    frame = CONNECTIONS.frame({"opened_at": at})

    rows = list(csv.DictReader(io.StringIO(formats.encoded(frame, Format.CSV).decode())))

    assert [row["opened_at"] for row in rows] == ["2009-02-13T23:31:30.123456789Z", ""]
