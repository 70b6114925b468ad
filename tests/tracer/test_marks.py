"""The firewall mark of sockets, and the way that policy rules make of it, against `ip route get … mark`."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator

import pandas as pd
import pytest
from loopback import AF, LOOPBACK, Echo, cookie, finish
from programs import wait_until
from routers import Router, router, run

import netlab

FAMILIES = pytest.mark.parametrize("family", [4, 6])
TARGETS = {4: "198.51.100.1", 6: "2001:db8::1"}


def marked(family: int, mark: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
    client = socket.socket(AF[family], kind)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark.to_bytes(4, sys.byteorder))
    client.settimeout(10)
    return client


def mark_of(frame: pd.DataFrame, number: int) -> int | None:
    (found,) = frame.loc[frame["cookie"] == number, "mark"]
    return None if pd.isna(found) else int(found)


@pytest.fixture
def middle() -> Iterator[Router]:
    with router() as built:
        yield built


@pytest.mark.privileged
@FAMILIES
def test_a_marked_socket_and_one_without_get_the_ways_that_the_kernel_routes_them(
    middle: Router, family: int
) -> None:
    with contextlib.ExitStack() as opened:
        marks = {}
        with middle.entered():
            for mark in (7, 0):
                client = opened.enter_context(marked(family, mark, socket.SOCK_DGRAM))
                client.connect((TARGETS[family], 9))
                marks[cookie(client)] = (mark, client.getsockname()[0])
            found = netlab.with_gateway(netlab.connections(protocol="udp"))

    ways = found.set_index("cookie").loc[list(marks), ["mark", "via_gateway", "via_interface", "via_address"]]
    says = [middle.way(TARGETS[family], "from", source, "mark", str(mark)) for mark, source in marks.values()]
    assert ways.to_numpy().tolist() == [
        [mark, way["gateway"], way["dev"], source]
        for (mark, source), way in zip(marks.values(), says, strict=True)
    ]
    assert len(set(ways["via_gateway"])) == 2
    assert not [gap for gap in found.attrs["coverage"] if "mark" in gap["detail"]]


@pytest.mark.privileged
def test_a_mark_that_is_not_known_is_said_where_a_rule_looks_at_it(middle: Router) -> None:
    with middle.entered(), marked(4, 7, socket.SOCK_DGRAM) as client:
        client.connect((TARGETS[4], 9))
        frame = netlab.connections(protocol="udp")
        untold = frame.assign(mark=pd.array([None] * len(frame), "Int64"))
        recorded = frame.drop(columns="mark")  # by a version that had no such column

        for lacking in (untold, recorded):
            found = netlab.with_gateway(lacking)
            (gap,) = [gap for gap in found.attrs["coverage"] if "policy rules look" in gap["detail"]]
            assert (gap["what"], gap["kind"], gap["count"]) == ("via_*", "approximate", 1)


@pytest.mark.privileged
def test_marks_that_netfilter_may_set_are_said_where_a_rule_looks_at_them(middle: Router) -> None:
    """The packets go by another way than their socket's mark would have them."""
    rule = "type route hook output priority mangle\nudp dport 9 meta mark set 7"
    table = f"table ip netlab_marks {{\nchain out {{\n{rule}\n}}\n}}"
    run("ip", "netns", "exec", middle.netns, "nft", "-f", "-", text=table)
    with middle.entered(), marked(4, 0, socket.SOCK_DGRAM) as client:
        client.connect((TARGETS[4], 9))
        found = netlab.with_gateway(netlab.connections(protocol="udp"))

    (gap,) = [gap for gap in found.attrs["coverage"] if "netfilter" in gap["detail"]]
    assert (gap["what"], gap["kind"], gap["count"]) == ("via_*", "approximate", 1)


@pytest.mark.privileged
@FAMILIES
def test_a_capture_tells_the_mark_of_what_was_open_is_open_and_has_ended(echo: Echo, family: int) -> None:
    with contextlib.ExitStack() as opened:
        older = opened.enter_context(marked(family, 5))
        older.connect((LOOPBACK[family], echo.port))
        with netlab.capture(port=echo.port) as capture:
            running = opened.enter_context(marked(family, 6))
            running.connect((LOOPBACK[family], echo.port))
            ended = opened.enter_context(marked(family, 0xFFFFFFFE))
            ended.connect((LOOPBACK[family], echo.port))
            number = cookie(ended)
            finish(ended)
            ended.close()
            now = capture.connections()
            older_number, running_number = cookie(older), cookie(running)
            running.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 66)
            finish(running)
            running.close()
            wait_until(lambda: outcome(capture.connections(), running_number) == "closed")
        later = capture.connections()

    assert [mark_of(now, one) for one in (older_number, running_number, number)] == [5, 6, 0xFFFFFFFE]
    assert [mark_of(later, one) for one in (older_number, running_number, number)] == [5, 66, 0xFFFFFFFE]


def outcome(frame: pd.DataFrame, number: int) -> str:
    (state,) = frame.loc[frame["cookie"] == number, "state"]
    return str(state)


@pytest.mark.privileged
@FAMILIES
def test_an_attempt_that_failed_before_its_syn_has_its_mark(family: int) -> None:
    target = {4: "240.0.0.1", 6: "2001:db8::1"}[family]
    with router() as built, netlab.capture(netns=built.netns) as capture, built.entered():
        built.ip(f"-{family}", "route", "add", "unreachable", target)
        built.ip(f"-{family}", "route", "add", "unreachable", target, "table", "100")
        with marked(family, 7) as client, pytest.raises(OSError, match=r"unreachable|route"):
            client.connect((target, 9))
        found = capture.connections()

    assert found.loc[found["remote_address"] == target, "mark"].tolist() == [7]


@pytest.mark.privileged
@FAMILIES
def test_a_flow_of_udp_has_the_mark_of_its_socket(closed_port: int, family: int) -> None:
    with socket.socket(AF[family], socket.SOCK_DGRAM) as server:
        server.bind((LOOPBACK[family], closed_port))
        with netlab.capture(port=closed_port, protocol="udp") as capture:
            client = marked(family, 8, socket.SOCK_DGRAM)
            client.connect((LOOPBACK[family], closed_port))
            client.send(b"x")
            number = cookie(client)
            now = capture.connections()
            client.close()
        later = capture.connections()

    assert [mark_of(now, number), mark_of(later, number)] == [8, 8]


@pytest.mark.privileged
def test_without_the_capability_marks_are_missing_and_the_coverage_says_so(echo: Echo) -> None:
    script = (
        "import netlab; found = netlab.connections(protocol='tcp', state='established'); "
        "print(len(found) > 0, found['mark'].isna().all(), "
        "[gap['count'] for gap in found.attrs['coverage'] if gap['what'] == 'mark'] == [len(found)])"
    )
    with marked(4, 7) as client:
        client.connect((LOOPBACK[4], echo.port))
        command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-c", script]
        told = subprocess.run(command, text=True, check=True, capture_output=True).stdout

    assert told.split() == ["True"] * 3
