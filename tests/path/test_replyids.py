"""Numbered answers: counters of routers that lose answers, or never make them."""

from __future__ import annotations

import numpy as np
import pytest

from netlab.path.replyids import were_sent


def numbered(
    *, sent: bool, others_per_s: float = 0.0, first: int = 1, probes: int = 150, seed: int = 1
) -> tuple:
    """Return times and numbers of the answers of a router that is asked each second; a fifth is missing."""
    chance = np.random.default_rng(seed)
    at_s = np.arange(probes) + 0.01 * chance.random(probes)
    missing = chance.random(probes) < 0.2
    made = np.ones(probes) if sent else ~missing
    others = chance.poisson(others_per_s, probes)
    ids = (first + np.cumsum(made + others)) % 65536
    return at_s, np.where(missing, np.nan, ids)


@pytest.mark.parametrize("sent", [True, False])
@pytest.mark.parametrize("first", [1, 65500], ids=["", "around the end"])
def test_a_counter_tells_whether_missing_answers_were_made(*, sent: bool, first: int) -> None:
    assert were_sent(*numbered(sent=sent, first=first)) is sent


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("others_per_s", [0.05, 1, 20, 300])
@pytest.mark.parametrize("sent", [True, False])
def test_a_busy_counter_tells_the_truth_or_nothing(*, sent: bool, others_per_s: float, seed: int) -> None:
    assert were_sent(*numbered(sent=sent, others_per_s=others_per_s, seed=seed)) in {sent, None}


def test_chance_and_constants_tell_nothing() -> None:
    at_s, ids = numbered(sent=True)
    came = ~np.isnan(ids)

    assert (
        were_sent(at_s, np.where(came, np.random.default_rng(2).integers(0, 65536, len(ids)), np.nan)) is None
    )
    assert were_sent(at_s, np.where(came, 0.0, np.nan)) is None


def test_few_losses_tell_nothing() -> None:
    at_s = np.arange(30.0)
    ids = np.arange(30.0)
    ids[[5, 12]] = np.nan

    assert were_sent(at_s, ids) is None


def test_ipv6_tells_nothing() -> None:
    assert were_sent(np.arange(30.0), np.full(30, np.nan)) is None
