"""Conntrack entries heard as they are made, in the practice network's gateway."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

import netlab
from netlab.lab.network import PracticeNetwork
from tests.support.programs import wait_until

pytestmark = pytest.mark.privileged


@pytest.fixture(scope="module")
def net() -> Iterator[PracticeNetwork]:
    with netlab.lab.practice() as network:
        yield network


def connect(net: PracticeNetwork, family: int, port: int) -> int:
    """Connect from the client through the gateway; return the local port."""
    with net.client.entered():
        client = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6)
    with client:
        client.bind(("", 0))
        with contextlib.suppress(ConnectionRefusedError):
            client.connect((net.web.address4 if family == 4 else net.web.address6, port))
        return int(client.getsockname()[1])


def heard(entries: pd.DataFrame, port: int) -> pd.DataFrame:
    return entries[(entries["protocol"] == "tcp") & (entries["sport"] == port)]


@pytest.mark.parametrize("family", [4, 6])
def test_a_refused_connection_is_heard_with_its_translation(net: PracticeNetwork, family: int) -> None:
    with netlab.conntrack_events(netns=net.gateway.netns) as events:
        port = connect(net, family, net.ports.refuses)

    entry = heard(events.entries(), port)
    assert entry["reply_dst"].tolist() == [net.nat_address4 if family == 4 else net.nat_address6]
    assert entry["family"].tolist() == [family]
    assert entry["bytes"].isna().all()


def test_entries_made_before_the_start_and_after_the_end_are_not_heard(net: PracticeNetwork) -> None:
    before = connect(net, 4, net.ports.http)
    with netlab.conntrack_events(netns=net.gateway.netns) as events:
        during = connect(net, 4, net.ports.http)
    after = connect(net, 4, net.ports.http)

    entries = events.entries()
    assert [len(heard(entries, port)) for port in (before, during, after)] == [0, 1, 0]


@pytest.fixture
def telling(net: PracticeNetwork) -> Iterator[Callable[[int], None]]:
    """Yield what sets nf_conntrack_events of the gateway."""
    setting = Path("/proc/sys/net/netfilter/nf_conntrack_events")

    def tell(value: int) -> None:
        with net.gateway.entered():
            setting.write_text(str(value))

    yield tell
    tell(2)


def test_a_namespace_that_tells_of_no_entry_is_said_to_be_silent(
    net: PracticeNetwork, telling: Callable[[int], None]
) -> None:
    telling(0)
    with netlab.conntrack_events(netns=net.gateway.netns) as events:
        left = connect(net, 4, net.ports.http)
        connect(net, 4, net.ports.refuses)

    entries = events.entries()
    assert entries["sport"].tolist() == [left]  # by the dump at the end; the refused one was gone then
    assert events.events()["event"].eq("found").all()
    assert netlab.coverage(entries)["detail"].str.contains("nf_conntrack_events was 0").any()


def untold(frame: pd.DataFrame) -> list[str]:
    gaps = netlab.coverage(frame)
    return gaps.loc[gaps["kind"] == "unseen", "detail"].tolist()


@pytest.mark.parametrize("back", [False, True])
def test_a_namespace_that_falls_silent_while_it_is_listened_in_is_said_to(
    net: PracticeNetwork, telling: Callable[[int], None], back: bool
) -> None:
    with netlab.conntrack_events(netns=net.gateway.netns) as events:
        heard_of = connect(net, 4, net.ports.refuses)
        assert untold(events.entries()) == []
        telling(0)
        connect(net, 4, net.ports.refuses)
        left = connect(net, 4, net.ports.http)
        wait_until(lambda: untold(events.entries()))
        if back:
            telling(1)
            after = connect(net, 4, net.ports.refuses)

    for frame in (events.entries(), events.events(), events.table()):
        (detail,) = untold(frame)
        assert "nf_conntrack_events was 0 at some time between" in detail
    assert set(events.entries()["sport"]) == {heard_of, left, *([after] if back else [])}
    assert left in set(events.table()["sport"])
