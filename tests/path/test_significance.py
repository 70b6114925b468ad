"""Statistics against counting every case, and against published figures."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from netlab.path import significance
from netlab.path.significance import fisher, fisher_greater, mann_whitney, mann_whitney_least, wilson


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634), (81, 263, 0.2553, 0.3662)],
)
def test_wilsons_interval_has_the_published_ends(
    successes: int, trials: int, low: float, high: float
) -> None:
    # 81 of 263 is the example of Newcombe, Statistics in Medicine 17 (1998), table I.
    found = wilson([successes], [trials])

    assert [float(end[0]) for end in found] == pytest.approx([low, high], abs=5e-5)


def test_wilsons_interval_of_no_trials_is_unknown() -> None:
    assert all(np.isnan(end[0]) for end in wilson([0], [0]))


def by_counting(losses: int, probes: int, other_losses: int, other_probes: int) -> float:
    """Fisher's tail: the share of all ways to place the losses among the probes."""
    total = range(probes + other_probes)
    ways = [sum(i < probes for i in way) for way in itertools.combinations(total, losses + other_losses)]
    return sum(count >= losses for count in ways) / len(ways)


@given(
    st.tuples(st.integers(1, 6), st.integers(1, 6)).flatmap(
        lambda n: st.tuples(st.integers(0, n[0]), st.just(n[0]), st.integers(0, n[1]), st.just(n[1]))
    )
)
def test_fishers_tail_is_the_share_of_all_ways_to_place_the_losses(counts: tuple[int, ...]) -> None:
    assert fisher_greater(*counts) == pytest.approx(by_counting(*counts))


def test_fishers_test_does_not_care_which_sample_comes_first() -> None:
    assert fisher(3, 10, 40, 60) == pytest.approx(fisher(40, 60, 3, 10))


def test_large_counts_do_not_overflow() -> None:
    assert 0 <= fisher(3_000, 100_000, 3_300, 100_000) < 0.001


def exact_mann_whitney(before: list[float], after: list[float]) -> float:
    """The share of all ways to split the values that are at least as uneven as this one."""
    values = [*before, *after]

    def unevenness(chosen: tuple[int, ...]) -> float:
        rest = [values[i] for i in range(len(values)) if i not in chosen]
        u = sum((values[i] > v) + (values[i] == v) / 2 for i in chosen for v in rest)
        return abs(u - len(chosen) * len(rest) / 2)

    seen = unevenness(tuple(range(len(before))))
    ways = [unevenness(way) for way in itertools.combinations(range(len(values)), len(before))]
    return sum(way >= seen for way in ways) / len(ways)


@given(st.lists(st.integers(0, 20), min_size=2, max_size=11), st.data())
def test_the_rank_test_of_few_values_is_exact_with_ties_too(values: list[int], data: st.DataObject) -> None:
    n = data.draw(st.integers(1, len(values) - 1))
    before, after = values[:n], values[n:]

    found = mann_whitney(np.array(before, float), np.array(after, float))

    assert found == pytest.approx(exact_mann_whitney(before, after))


@pytest.mark.parametrize("shift", [0.0, 0.4, 0.8])
def test_the_rank_test_of_many_values_is_near_the_exact_one(
    shift: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(7)
    values, more = rng.normal(size=20), rng.normal(shift, size=20)
    exact = mann_whitney(values, more)

    monkeypatch.setattr(significance, "_FEW", 0)

    assert mann_whitney(values, more) == pytest.approx(exact, abs=0.005)


@pytest.mark.parametrize(("n", "m"), [(3, 3), (5, 5), (4, 9)])
def test_the_least_p_of_the_rank_test_is_that_of_two_ways_of_all(n: int, m: int) -> None:
    assert mann_whitney_least(n, m) == pytest.approx(2 / math.comb(n + m, n))


def test_the_least_p_of_the_rank_test_of_many_values_is_what_it_says_of_them() -> None:
    found = mann_whitney(np.arange(30.0), np.arange(30.0, 60.0))

    assert mann_whitney_least(30, 30) == found < 1e-9


def test_the_rank_test_of_equal_values_sees_no_difference() -> None:
    assert mann_whitney(np.ones(5), np.ones(9)) == 1.0


def test_the_rank_test_without_values_says_nothing() -> None:
    assert math.isnan(mann_whitney(np.array([]), np.ones(3)))
