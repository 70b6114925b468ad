"""The stopping points, against published tables and against balancers that are played through."""

from __future__ import annotations

import random
from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given, strategies as st

from netlab.path.stopping import Points, missed, points

# Augustin, Friedman, Teixeira, "Multipath tracing with Paris traceroute" (E2EMON 2007) and the tools after
# it. They leave aside that a router may have been left at an earlier point: ours may be one higher.
PUBLISHED = {
    0.05: [6, 11, 16, 21, 27, 33, 38, 44, 51, 57, 63, 70, 76, 83, 90, 96],
    0.01: [8, 15, 21, 28, 36, 43, 51, 58, 66, 74, 82, 90],
}


@pytest.mark.parametrize("failure", PUBLISHED)
def test_points_are_the_published_ones_or_one_more(failure: float) -> None:
    ours = Points(failure)

    for found, published in enumerate(PUBLISHED[failure], 1):
        assert ours(found) - published in {0, 1}


@pytest.mark.parametrize(("found", "flows"), [(1, 2), (1, 6), (2, 5), (2, 7), (3, 6)])
def test_missed_is_the_share_of_all_outcomes_in_which_one_next_hop_is_unseen(found: int, flows: int) -> None:
    width = found + 1
    outcomes = [len(set(outcome)) for outcome in product(range(width), repeat=flows)]

    assert missed(found, flows) == pytest.approx(
        float(Fraction(sum(seen < width for seen in outcomes), len(outcomes)))
    )


def test_too_few_flows_always_miss_one() -> None:
    assert missed(3, 3) == 1


@pytest.mark.parametrize("width", [2, 3, 4, 8, 16])
def test_a_router_is_left_too_early_no_more_often_than_stated(width: int) -> None:
    failure, trials, chance = 0.05, 4000, random.Random(width)
    stop = Points(failure)
    early = 0
    for _ in range(trials):
        seen: set[int] = set()
        flows = 0
        while not seen or flows < stop(len(seen)):
            seen.add(chance.randrange(width))
            flows += 1
        early += len(seen) < width

    assert early / trials <= failure + 3 * (failure / trials) ** 0.5


@given(st.floats(0.5, 0.999), st.integers(0, 40), st.integers(0, 40))
def test_what_may_fail_is_shared_by_all_balancers_and_one_that_hides(
    confidence: float, twos: int, wider: int
) -> None:
    stop = points(confidence, twos, wider)
    of_two = 2.0 ** (1 - stop(1))

    assert (twos + 1) * of_two + wider * stop.failure <= 1 - confidence + 1e-12
    assert (twos - 1) * of_two + (wider + 1) * stop.failure <= 1 - confidence + 1e-12 or not twos
    assert [stop(k) for k in range(1, 6)] == sorted({stop(k) for k in range(1, 6)})
