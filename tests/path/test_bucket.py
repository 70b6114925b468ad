"""The fit of token buckets, to what the simulated internet's own buckets and its losses do."""

from __future__ import annotations

import numpy as np
import pytest

from netlab.lab.internet.router import Bucket
from netlab.path.bucket import Flags, Reals, fit, longest


class Limiter:
    """A router's limit, as `netlab.lab.internet.router.Bucket` reads it."""

    def __init__(self, per_s: float, burst: int) -> None:
        self.icmp_per_s, self.icmp_burst = per_s, burst

    def answers(self, at_s: Reals, chance: np.random.Generator, loss: float = 0.0) -> Flags:
        bucket = Bucket(self.icmp_burst)
        arrivals = at_s + 0.002 * chance.random(len(at_s))
        lost = chance.random(len(at_s)) < loss
        return np.array(
            [
                not gone and bucket.take(round(at * 10**9), self)
                for at, gone in zip(arrivals, lost, strict=True)
            ]
        )


def every(step_s: float, probes: int) -> Reals:
    return np.arange(probes) * step_s


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("per_s", "burst", "step_s"), [(1, 6, 0.5), (1, 6, 0.2), (2, 1, 0.3), (0.3, 3, 1.0), (10, 5, 0.03)]
)
def test_a_limit_is_recognised_with_its_rate(per_s: float, burst: int, step_s: float, seed: int) -> None:
    at_s = every(step_s, 150)

    found = fit(at_s, Limiter(per_s, burst).answers(at_s, np.random.default_rng(seed)))

    assert found is not None
    # Of a limit that answers each nth of evenly spaced probes, n is all that shows of its rate.
    assert 1 / found.per_s == pytest.approx(1 / per_s, abs=step_s)


@pytest.mark.parametrize("seed", range(5))
def test_a_limit_is_recognised_behind_a_lossy_link(seed: int) -> None:
    at_s = every(0.3, 250)

    found = fit(at_s, Limiter(1, 6).answers(at_s, np.random.default_rng(seed), loss=0.15), background=0.15)

    assert found is not None
    assert found.per_s == pytest.approx(1, rel=0.1)


def test_linux_limit_is_recognised_in_one_burst_of_twelve() -> None:
    at_s = every(0.004, 12)

    found = fit(at_s, Limiter(1, 6).answers(at_s, np.random.default_rng(1)))

    assert found is not None
    assert (found.per_s, found.burst, found.misfit) == (1, 6, 0)


def test_a_bucket_that_another_trace_has_emptied_is_recognised() -> None:
    at_s = every(0.4, 60) + 0.001
    limiter, chance = Limiter(1, 6), np.random.default_rng(1)
    answered = limiter.answers(np.concatenate([np.zeros(20), at_s]), chance)[20:]

    assert fit(at_s, answered) is not None


@pytest.mark.parametrize("probes", [12, 50, 200, 600])
@pytest.mark.parametrize("loss", [0.02, 0.1, 0.3, 0.5, 0.8])
def test_random_loss_is_no_limit(loss: float, probes: int) -> None:
    chance = np.random.default_rng(probes)

    found = [fit(every(1.0, probes), chance.random(probes) > loss) for _ in range(10)]

    assert found == [None] * 10


def test_loss_in_bursts_is_no_limit() -> None:
    chance = np.random.default_rng(4)
    for _ in range(10):
        bad = np.zeros(300, bool)
        for place in range(1, 300):  # Gilbert's model of a link with good and bad times
            bad[place] = chance.random() < (0.7 if bad[place - 1] else 0.05)
        assert fit(every(1.0, 300), ~bad) is None


@pytest.mark.parametrize("break_at", [6, 10, 50])
def test_a_link_that_breaks_is_no_limit(break_at: int) -> None:
    assert fit(every(1.0, 100), np.arange(100) < break_at) is None


def test_nothing_lost_and_nothing_answered_fit_no_limit() -> None:
    assert fit(every(1.0, 30), np.ones(30, bool)) is None
    assert fit(every(1.0, 30), np.zeros(30, bool)) is None


@pytest.mark.parametrize(("flags", "length"), [([], 0), ([0, 0], 0), ([1, 1, 0, 1], 2), ([0, 1, 1, 1], 3)])
def test_the_longest_stretch_is_counted(flags: list[int], length: int) -> None:
    assert longest(np.array(flags, bool)) == length
