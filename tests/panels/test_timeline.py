"""Which path each round met, in colours and words."""

from __future__ import annotations

import re

import pandas as pd
import pytest
from pictures import trace

from netlab.frames import concat
from netlab.panels import timeline
from netlab.path import path_changes, path_runs

FIRST, SECOND = [["10.0.0.1"], ["10.0.1.1"], ["192.0.2.9"]], [["10.0.0.1"], ["10.0.1.2"], ["192.0.2.9"]]


def probes_of(*lengths: int) -> pd.DataFrame:
    """Return traces along two paths in turn, each for so many rounds, one a second."""
    parts, first = [], 0
    for place, rounds in enumerate(lengths):
        part = trace(SECOND if place % 2 else FIRST, runs=rounds)
        part["run"] += first
        part["sent_at"] = pd.Timestamp("2026-01-01T12:00:00Z") + pd.to_timedelta(part["run"], unit="s")
        parts.append(part)
        first += rounds
    return concat(parts)


def drawn(probes: pd.DataFrame) -> str:
    return timeline.timeline(path_runs(probes), path_changes(probes))


def test_each_stretch_is_as_long_as_its_share_of_the_rounds_and_equal_paths_look_alike() -> None:
    html = drawn(probes_of(50, 25, 25))

    stretches = re.findall(r'class="netlab-path-(\d)" style="left: ([\d.]+)%; width: ([\d.]+)%', html)
    assert stretches == [("0", "0.00", "50.00"), ("1", "50.00", "25.00"), ("0", "75.00", "25.00")]
    assert "100 rounds · 2 paths · 2 changes" in html
    assert html.index("12:00:00 UTC") < html.index("12:01:39 UTC")


def test_changes_are_told_with_their_time_and_kind() -> None:
    html = drawn(probes_of(50, 25, 25))

    assert "<li>12:00:50 UTC: another path at TTL 2: 10.0.0.1 10.0.1.1 192.0.2.9 became" in html
    assert "<li>12:01:15 UTC: back on an earlier path at TTL 2" in html


@pytest.mark.parametrize("rounds", [1, 40])
def test_a_path_that_stays_is_one_stretch(rounds: int) -> None:
    html = drawn(probes_of(rounds))

    assert html.count("<i class") == 1
    assert "<li>" not in html


def test_without_rounds_there_is_nothing() -> None:
    assert drawn(probes_of(1).iloc[:0]) == ""
