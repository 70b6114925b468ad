"""HTTP/1 that goes on as HTTP/2, read from packets of curl and nghttpx, against what curl says it did."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from loopback import LOOPBACK
from overheard import Heard, cut, nginx, overhearing, read, until, upgrading

import netlab
from netlab.protocols.dialog import Outcome
from netlab.protocols.h2c import Upgradable

pytestmark = pytest.mark.privileged

PATHS = {"/plain.txt": "200", "/none": "404", "/busy": "503"}
ROWS = [("http", "/plain.txt", "101"), *(("http2", path, status) for path, status in PATHS.items())]


def fetch(port: int, address: str = "127.0.0.1") -> list[str]:
    """Ask for each path over one connection, and return version and status as curl has them."""
    host = f"[{address}]" if ":" in address else address
    wanted = [word for path in PATHS for word in (f"http://{host}:{port}{path}", "-o", "/dev/null")]
    command = ["curl", "-s", "--http2", "-w", "%{http_version} %{http_code}\n", *wanted]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    return run.stdout.split("\n")[:-1]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with nginx(tmp_path_factory.mktemp("web")) as web, upgrading(web) as port:
        yield port


@pytest.fixture(scope="module")
def heard(server: int) -> Heard:
    with overhearing(server) as relay:
        fetch(relay.port)
        return [(side, data, number) for number, (side, data, _) in enumerate(relay.whole(1)[0])]


def test_a_request_that_changes_the_protocol_is_a_row_of_both_and_others_are_rows_of_the_second(
    server: int,
) -> None:
    with netlab.capture(protocols=("http", "http2"), port=server) as capture:
        for address in LOOPBACK.values():
            assert fetch(server, address) == [f"2 {status}" for status in PATHS.values()]
        until(lambda: len(capture.requests()) >= 2 * 2 * len(ROWS))
        requests, connections = capture.requests(), capture.connections()

    for _, rows in requests.groupby(["cookie"]):
        assert list(zip(rows["protocol"], rows["resource"], rows["status"], strict=True)) == ROWS
        assert rows["stream"].tolist() == [pd.NA, 1, 3, 5]
        assert rows["requested_at"].iloc[0] == rows["requested_at"].iloc[1]
    assert set(requests["outcome"]) == {"answered"}
    assert netlab.coverage(requests).empty
    assert set(connections["protocol_stack"]) == {"http2"}


def test_where_only_the_first_protocol_is_read_the_change_is_counted(server: int) -> None:
    with netlab.capture(protocols="http", port=server) as capture:
        fetch(server)
        until(lambda: len(capture.requests()) >= 2)
        requests = capture.requests()

    assert requests["status"].tolist() == ["101"] * 2
    coverage = netlab.coverage(requests)
    assert coverage.loc[coverage["detail"].str.contains("an upgrade"), "count"].tolist() == [2]


@settings(max_examples=20)
@given(sizes=st.lists(st.integers(1, 300), min_size=3, max_size=20))
def test_where_packets_are_cut_changes_nothing(heard: Heard, sizes: list[int]) -> None:
    whole = read(Upgradable(whole=True), heard)

    assert [(one.protocol, one.resource, one.status) for one in whole] == ROWS
    assert read(Upgradable(whole=True), cut(heard, sizes)) == whole


def test_a_gap_behind_the_change_makes_no_wrong_row(heard: Heard) -> None:
    for gap in range(len(heard)):
        dialog, found = Upgradable(whole=True), []
        for number, (side, data, at) in enumerate(heard):
            found += dialog.missed(side, len(data), at) if number == gap else dialog.said(side, data, at)
        found += dialog.ended(len(heard))

        rows = [(one.protocol, one.resource, one.status) for one in found if one.outcome is Outcome.ANSWERED]
        assert all(row in ROWS or None in row for row in rows)
