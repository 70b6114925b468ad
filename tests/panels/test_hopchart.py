"""The course of each hop: quantiles and losses in stretches of rounds, and the bars drawn of them."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, strategies as st

from netlab.panels.hopchart import Course, chart, charts
from netlab.schemas import HOPS

QUANTILES = [0.05, 0.25, 0.5, 0.75, 0.95]


def probes_of(rtts_ms: list[list[float | None]]) -> object:
    """Return probes, a list of rounds for each TTL; None is a loss."""
    rows = [
        (run, ttl, None if rtt is None else "192.0.2.1", rtt)
        for ttl, times in enumerate(rtts_ms, start=1)
        for run, rtt in enumerate(times)
    ]
    columns = dict(zip(("run", "ttl", "address", "rtt_ms"), map(list, zip(*rows, strict=True)), strict=True))
    return HOPS.frame(columns)


@given(
    st.lists(st.one_of(st.none(), st.floats(0.01, 500)), min_size=1, max_size=400),
)
def test_each_stretch_has_the_quantiles_and_the_loss_of_its_rounds(times: list[float | None]) -> None:
    drawn = charts(probes_of([times]))

    course = drawn.by_ttl[1]
    assert len(course.lost) <= 50
    for stretch in range(len(course.lost)):
        part = times[stretch * drawn.rounds : (stretch + 1) * drawn.rounds]
        known = [time for time in part if time is not None]
        assert course.lost[stretch] == pytest.approx(1 - len(known) / len(part))
        if known:
            assert course.quantiles_ms[stretch] == pytest.approx(np.quantile(known, QUANTILES))
        else:
            assert np.isnan(course.quantiles_ms[stretch]).all()


def test_all_hops_are_on_one_scale_that_single_slow_answers_do_not_stretch() -> None:
    drawn = charts(probes_of([[1.0] * 20, [8.0] * 19 + [900.0]]))

    assert drawn.most_ms == 10.0  # a quarter more than 8 ms
    assert set(drawn.by_ttl) == {1, 2}


def bars(svg: str, kind: str) -> list[tuple[float, float, float]]:
    """Return x, y and height of the bars of one kind."""
    (path,) = re.findall(rf'class="{kind}" d="([^"]*)"', svg)
    found = re.findall(r"M([\d.]+) ([-\d.]+)h[\d.]+v([\d.]+)", path)
    return [(float(x), float(y), float(height)) for x, y, height in found]


def test_losses_hang_from_the_top_as_long_as_their_share_and_silence_has_no_times() -> None:
    silent = [np.nan] * 5
    svg = chart(Course(np.array([[1, 2, 3, 4, 5], silent]), np.array([0.5, 1.0])), most_ms=5)

    assert bars(svg, "netlab-bad") == [(0, 0, 15), (120, 0, 30)]
    assert bars(svg, "netlab-outer") == [(0, 0, 24)]  # 5 to 95 % of a scale of 5 ms in 30 pixels
    assert bars(svg, "netlab-inner") == [(0, 6, 12)]
    assert "losses in 2 of 2 stretches" in svg


def test_without_probes_there_is_nothing_to_draw() -> None:
    assert charts(HOPS.empty()).by_ttl == {}


def test_a_path_of_which_nothing_answered_is_drawn_as_losses_only() -> None:
    drawn = charts(probes_of([[None] * 7]))

    svg = chart(drawn.by_ttl[1], drawn.most_ms)
    assert bars(svg, "netlab-outer") == []
    assert [height for _, _, height in bars(svg, "netlab-bad")] == [30, 30]
