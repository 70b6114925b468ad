"""The interface that sockets are bound to, and the way that follows from it, against `ip route get … oif`."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pandas as pd
import pytest
from loopback import AF, cookie
from routers import Router, router

import netlab

pytestmark = pytest.mark.privileged
FAMILIES = pytest.mark.parametrize("family", [4, 6])
TARGETS = {4: "198.51.100.77", 6: "2001:db8:77::1"}


@pytest.fixture
def middle(family: int) -> Iterator[Router]:
    """A router that sends to the target by the one neighbour, and by the other where a socket asks for it."""
    with router() as built:
        for metric, interface in (("10", "east"), ("20", "west")):
            route = ("dev", interface, "metric", metric)
            for table in ("main", "100"):
                built.ip(f"-{family}", "route", "add", TARGETS[family], *route, "table", table)
        yield built


@contextlib.contextmanager
def bound(family: int, interface: str, kind: int = socket.SOCK_DGRAM) -> Iterator[socket.socket]:
    with socket.socket(AF[family], kind) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        yield client


def row(frame: pd.DataFrame, number: int) -> pd.Series:
    return frame[frame["cookie"] == number].iloc[0]


@FAMILIES
def test_the_way_is_that_of_the_interface_that_the_socket_is_bound_to(middle: Router, family: int) -> None:
    with middle.entered(), bound(family, "west") as client:
        client.connect((TARGETS[family], 9))
        mine = row(netlab.with_gateway(netlab.connections(protocol="udp")), cookie(client))
        source = client.getsockname()[0]

    says = middle.way(TARGETS[family], "oif", "west")
    assert middle.way(TARGETS[family])["dev"] == "east"
    assert (mine["via_interface"], mine["via_address"]) == (says["dev"], source) == ("west", source)


@FAMILIES
def test_a_row_is_explained_by_the_interface_that_its_socket_is_bound_to(middle: Router, family: int) -> None:
    with middle.entered(), bound(family, "west") as client:
        client.connect((TARGETS[family], 9))
        told = netlab.explain(row(netlab.connections(protocol="udp"), cookie(client))).frame

    assert set(told["interface"].dropna()) == {"west"}


@FAMILIES
def test_a_capture_tells_the_interface_of_attempts_and_of_flows(middle: Router, family: int) -> None:
    with (
        netlab.capture(netns=middle.netns) as capture,
        middle.entered(),
        bound(family, "west", socket.SOCK_STREAM) as attempt,
        bound(family, "west") as flow,
    ):
        attempt.setblocking(False)
        attempt.connect_ex((TARGETS[family], 9))
        flow.sendto(b"x", (TARGETS[family], 9))
        numbers, index = [cookie(attempt), cookie(flow)], socket.if_nametoindex("west")
        while_open = capture.connections()
        attempt.close()
        flow.close()
        ended = capture.connections()

    for frame in (while_open, ended):
        assert [row(frame, number)["bound_ifindex"] for number in numbers] == [index, index]
