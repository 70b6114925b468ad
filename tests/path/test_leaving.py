"""Routes and addresses of the own host that change while it probes: two ways to a server, wired by hand."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from netlab.frames import coverage
from netlab.path.monitoring import Monitor, monitor
from netlab.path.multipath import multipath
from netlab.path.trace import traceroute

Fork = Any  # the fixture's class lives in conftest.py

pytestmark = pytest.mark.privileged


def eventually(holds: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def met(watched: Monitor, address: str) -> int:
    return int((watched.hops()["address"] == address).sum())


@pytest.mark.parametrize("method", ["raw", "unprivileged"])
@pytest.mark.parametrize("family", [4, 6])
def test_each_round_has_the_gateway_that_it_left_by(fork: Fork, family: int, method: str) -> None:
    first, second = fork.far(1, family), fork.far(2, family)

    with monitor(fork.SERVER[family], netns=fork.netns("client"), every_s=0.1, method=method) as watched:
        eventually(lambda: met(watched, first) > 3)
        fork.go_by("b")
        eventually(lambda: met(watched, second) > 3)

    hops = watched.hops().dropna(subset=["address"]).query("ttl == 1").iloc[1:-1]
    ways = hops[["address", "gateway", "interface"]].drop_duplicates()
    assert [tuple(way) for way in ways.to_numpy()] == [(first, first, "to-a"), (second, second, "to-b")]
    assert len(set(hops["trace"])) == 1


@pytest.mark.parametrize("method", ["raw", "unprivileged"])
@pytest.mark.parametrize("family", [4, 6])
def test_probes_from_an_address_that_is_gone_are_not_sent_and_no_loss(
    fork: Fork, family: int, method: str
) -> None:
    def unsent() -> pd.DataFrame:
        gaps = coverage(watched.hops())
        return gaps[gaps["detail"].str.contains(f"no longer has the address {fork.CLIENT[family]}")]

    with monitor(fork.SERVER[family], netns=fork.netns("client"), every_s=0.1, method=method) as watched:
        eventually(lambda: met(watched, fork.SERVER[family]) > 3)
        fork.ip("client", f"address del {fork.CLIENT[family]} dev lo")
        eventually(lambda: unsent()["count"].sum() > 20)
        answered = met(watched, fork.far(1, family))
        fork.go_by("a")
        eventually(lambda: met(watched, fork.far(1, family)) > answered + 3)

    assert watched.stats()["loss"].max() < 0.2  # of what was sent just before


class Meanwhile:
    """An event that is never set; the first to ask has something done."""

    def __init__(self, what: Callable[[], object]) -> None:
        self._what = [what]

    def is_set(self) -> bool:
        while self._what:
            self._what.pop()()
        return False


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("trace", [traceroute, multipath])
def test_a_long_trace_says_that_its_way_out_has_changed(fork: Fork, trace: Any, family: int) -> None:
    changing = Meanwhile(lambda: fork.go_by("b"))

    with fork.dead("server"):
        hops = trace(fork.SERVER[family], netns=fork.netns("client"), max_ttl=3, timeout_s=1.2, stop=changing)

    gaps = coverage(hops).set_index("what")
    assert gaps.loc["gateway, interface", "kind"] == "approximate"


def test_a_trace_from_an_address_that_went_says_so(fork: Fork) -> None:
    leaving = Meanwhile(lambda: fork.ip("client", f"address del {fork.CLIENT[6]} dev lo"))

    with fork.dead("server"):
        hops = traceroute(fork.SERVER[6], netns=fork.netns("client"), max_ttl=3, timeout_s=1.2, stop=leaving)

    told = coverage(hops)["detail"]
    assert told.str.contains(f"no longer has {fork.CLIENT[6]}").any()
