"""A queue of this host that is full: a token bucket in front of the first link of real namespaces."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from netlab.frames import coverage
from netlab.path.crowding import WHAT, Crowding
from netlab.path.monitoring import monitor
from netlab.path.trace import traceroute

Chain = Any  # the fixture's class lives in conftest.py

pytestmark = pytest.mark.privileged


@contextmanager
def narrow(chain: Chain, rate: str) -> Iterator[None]:
    """Run the block with a first link whose queue holds a few probes and drops the next."""
    bucket = ("root", "tbf", "rate", rate, "burst", "1600", "limit", "200")
    chain.run("client", "tc", "qdisc", "add", "dev", "to-r1", *bucket)
    try:
        yield
    finally:
        chain.run("client", "tc", "qdisc", "del", "dev", "to-r1", "root")


# Unprivileged, a SYN waits for the one before; of echo requests over IPv6 the kernel does not tell.
@pytest.mark.parametrize(
    ("method", "protocol", "family"),
    [
        *[("raw", protocol, family) for protocol in ("udp", "tcp", "icmp") for family in (4, 6)],
        *[("unprivileged", "udp", family) for family in (4, 6)],
        ("unprivileged", "icmp", 4),
    ],
)
def test_what_the_own_queue_drops_is_no_loss_of_the_path(
    chain: Chain, method: str, protocol: str, family: int
) -> None:
    chain.run("client", "sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647")

    with narrow(chain, "200kbit"):
        hops = traceroute(
            chain.target(family), protocol=protocol, method=method, netns=chain.client, queries=20
        )

    assert hops["address"].notna().tolist() == [True] * 80
    gaps = coverage(hops).set_index("detail")
    assert gaps.loc[WHAT, "what"] == "probes"


def test_a_monitor_counts_what_had_to_wait(chain: Chain) -> None:
    with (
        narrow(chain, "8kbit"),
        monitor(chain.target(4), netns=chain.client, every_s=0.1, duration_s=3) as watched,
    ):
        watched.wait()

    assert WHAT in coverage(watched.hops())["detail"].tolist()
    assert watched.stats()["loss"].max() == 0


@pytest.mark.parametrize("method", ["raw", "unprivileged"])
@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_a_queue_that_stays_full_is_an_error_that_names_it(chain: Chain, protocol: str, method: str) -> None:
    with narrow(chain, "1kbit"):
        hops = traceroute(chain.target(4), protocol=protocol, method=method, netns=chain.client, queries=20)

    assert hops["error"].dropna().str.contains("tc -s qdisc").tolist() == [True]


def test_another_refusal_is_told_at_once() -> None:
    crowding = Crowding()

    def refuse() -> None:
        raise OSError(errno.EPERM, "")

    with pytest.raises(PermissionError):
        crowding.sent(refuse)
    assert crowding.held == 0
