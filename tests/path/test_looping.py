"""Routing loops: two real kernels that send packets to each other, and hops made by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from netlab.path.evidence import Hop
from netlab.path.looping import Loop, find
from netlab.path.monitoring import monitor
from netlab.path.trace import traceroute
from netlab.path.verdicts import explain

Chain = Any  # the fixture's class lives in conftest.py

LOST = {4: "10.50.0.1", 6: "fd50::1"}


@pytest.fixture
def loop(chain: Chain) -> Iterator[Chain]:
    """Return the chain with a network that r1 takes to be behind r2, and r2 behind r1."""
    routes = {
        "client": ("10.99.1.2", "fd99:1::2"),
        "r1": ("10.99.2.2", "fd99:2::2"),
        "r2": ("10.99.2.1", "fd99:2::1"),
    }
    for node, (gateway, gateway_6) in routes.items():
        chain.ip(node, f"route add 10.50.0.0/16 via {gateway}", f"route add fd50::/16 via {gateway_6}")
    yield chain
    for node in routes:
        chain.ip(node, "route del 10.50.0.0/16", "route del fd50::/16")


@pytest.mark.privileged
@pytest.mark.parametrize("family", [4, 6])
def test_a_loop_of_real_kernels_is_told_from_where_it_begins(loop: Chain, family: int) -> None:
    second = "10.99.2.2" if family == 4 else "fd99:2::2"

    verdicts = explain(traceroute(LOST[family], netns=loop.client, max_ttl=9))

    assert verdicts["verdict"].tolist() == ["ok"] + ["loop"] * 8
    assert f"come back to {second}, which answers at TTL 2, 4, 6, 8" in verdicts["why"].iloc[1]
    assert verdicts["why"].tolist()[2:] == ["as at TTL 2"] * 7


@pytest.mark.privileged
def test_a_monitor_tells_a_loop_whose_routers_limit_their_answers(loop: Chain) -> None:
    def limit(ms: int) -> None:
        for node in ("r1", "r2"):
            loop.run(node, "sysctl", "-qw", f"net.ipv4.icmp_ratelimit={ms}")

    limit(100)
    try:
        with monitor(LOST[4], netns=loop.client, every_s=0.2, duration_s=3, max_ttl=12) as watched:
            watched.wait()
    finally:
        limit(0)

    assert watched.explain()["verdict"].tolist()[1:] == ["loop"] * (len(watched.explain()) - 1)


def hops(text: str) -> list[Hop]:
    """Return hops by their addresses, `*` for silence."""
    answered = np.array([True])
    return [
        Hop(
            ttl=ttl,
            address=None if address == "*" else address,
            addresses=int(address != "*"),
            at_s=np.zeros(1),
            answered=answered,
            reply_ids=np.zeros(1),
        )
        for ttl, address in enumerate(text.split(), 1)
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a b c b c b", Loop(2, 2, "b", (2, 4, 6))),
        ("a b c d b c d", Loop(2, 3, "b", (2, 5))),
        ("a b * b * b *", Loop(2, 2, "b", (2, 4, 6))),
        ("a b c * b c *", Loop(2, 3, "b", (2, 5))),
        ("a b c b c * b", None),
        ("a b c b", None),  # it came back once
        ("a b b b b b", None),
        ("a n * n n * n", None),
        ("a b c d e f", None),
        ("a b c b c b x", None),
        ("* * * *", None),
    ],
)
def test_a_loop_is_what_goes_on_in_turn_to_the_end(text: str, found: Loop | None) -> None:
    assert find(hops(text)) == found


def test_a_target_that_rejects_ends_no_loop() -> None:
    rejecting = hops("a b c b c b")
    rejecting[-1].rejected = 1

    assert find(rejecting) is None
