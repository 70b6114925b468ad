"""What many hosts answered, as one frame."""

from __future__ import annotations

import time

import pytest

import netlab
from netlab.agent.formats import Format, encoded
from netlab.fleet.asking import Told
from netlab.fleet.here import CLOCK
from netlab.fleet.merging import merged
from netlab.schemas import CONNECTIONS

SECOND = 10**9


def told(*, ahead_s: float) -> Told:
    """Return the answer of a host whose clock is that much ahead, which took a second."""
    frame, now_ns = CONNECTIONS.frame({"local_port": [1]}), time.time_ns()
    frame.attrs[CLOCK] = now_ns + round(ahead_s * SECOND)
    return Told(encoded(frame, Format.ARROW), now_ns - SECOND // 2, now_ns + SECOND // 2)


@pytest.mark.parametrize(
    ("ahead_s", "said"),
    [
        (0, []),
        (0.55, []),  # the answer may have been made as it was heard
        (-37, ["db1: its clock is more than 30 s behind the one here, and so are its times"]),
        (2.8, ["db1: its clock is more than 2 s ahead of the one here, and so are its times"]),
        (0.75, ["db1: its clock is more than 0.2 s ahead of the one here, and so are its times"]),
    ],
)
def test_a_host_whose_clock_differs_is_told(ahead_s: float, said: list[str]) -> None:
    found = merged({"db1": told(ahead_s=ahead_s), "db2": told(ahead_s=0)})

    assert netlab.coverage(found)["detail"].tolist() == said
    assert CLOCK not in found.attrs
