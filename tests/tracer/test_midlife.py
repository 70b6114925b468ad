"""Captures begun while real clients of each protocol are in the middle of long conversations."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd
import pytest
from loopback import LOOPBACK, REQUESTS
from overheard import until
from speakers import CLIENTS, PATHS, Did, servers

import netlab

pytestmark = pytest.mark.privileged

ALL = [(protocol, family) for protocol in CLIENTS for family in LOOPBACK]
BEFORE = dict.fromkeys(CLIENTS, 4) | {"grpc": 1}  # of each kind of request one; of calls others follow
TOLD = ("operation", "resource", "status")
UNKNOWN = {  # what the client refers to, and said before
    ("http2", "resource"): set(PATHS.values()),  # entries of HPACK's dynamic table
    ("postgres", "resource"): {"once"},  # the table of a prepared statement
}


@dataclass(frozen=True)
class Seen:
    """What clients did since the capture began, and its rows."""

    logs: dict[tuple[str, int], list[Did]]
    ports: dict[tuple[str, int], int]
    began_at: pd.Timestamp
    requests: pd.DataFrame

    def rows(self, protocol: str, family: int, direction: str) -> pd.DataFrame:
        """Return what was asked of one server as it was seen at one end."""
        end, rows = "remote" if direction == "outgoing" else "local", self.requests
        rows = rows[(rows[f"{end}_port"] == self.ports[protocol, family]) & (rows["direction"] == direction)]
        return rows[rows[f"{end}_address"] == LOOPBACK[family]].reset_index(drop=True)

    def log(self, protocol: str, family: int) -> pd.DataFrame:
        return pd.DataFrame(self.logs[protocol, family])


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    logs = {}
    with servers(tmp_path_factory.mktemp("servers")) as ports, contextlib.ExitStack() as open_:
        asks = {which: open_.enter_context(CLIENTS[which[0]](ports[which], which[1])) for which in ALL}
        for (protocol, _), ask in asks.items():
            for number in range(BEFORE[protocol]):
                ask(number)
        began_at = pd.Timestamp.now("UTC").floor("s")
        options = {"port": sorted(set(ports.values())), "max_requests": 100 * REQUESTS}
        with netlab.capture(protocols=tuple(CLIENTS), **options) as capture:
            for which, ask in asks.items():
                logs[which] = [ask(number) for number in range(REQUESTS)]
            until(
                lambda: (capture.requests()["outcome"] == "answered").sum() >= 2 * (len(ALL) * REQUESTS - 4)
            )
            open_.close()  # then the last answers of Redis and PostgreSQL are proved to be the last
            until(lambda: (capture.requests()["outcome"] == "answered").sum() >= 2 * len(ALL) * REQUESTS)
            yield Seen(logs, ports, began_at, capture.requests())


@pytest.mark.parametrize("direction", ["outgoing", "incoming"])
@pytest.mark.parametrize(("protocol", "family"), [which for which in ALL if which[0] != "grpc"])
def test_rows_are_what_the_client_did_since(seen: Seen, protocol: str, family: int, direction: str) -> None:
    rows, log = seen.rows(protocol, family, direction), seen.log(protocol, family)

    assert len(rows) == len(log)
    for name in TOLD:
        unknown = rows[name].isna()
        assert rows.loc[~unknown, name].tolist() == log.loc[~unknown, name].tolist()
        assert set(log.loc[unknown, name]) == UNKNOWN.get((protocol, name), set())
    assert set(rows["outcome"]) == {"answered"}
    assert (rows["duration_ms"] >= rows["latency_ms"]).all()
    if direction == "outgoing":
        assert (rows["duration_ms"] <= log["took_ms"]).all()


@pytest.mark.parametrize("direction", ["outgoing", "incoming"])
@pytest.mark.parametrize("family", LOOPBACK)
def test_calls_are_known_by_what_names_them_and_else_are_requests_of_http2(
    seen: Seen, family: int, direction: str
) -> None:
    rows, log = seen.rows("grpc", family, direction), seen.log("grpc", family)
    before = log["operation"] == "Get0"  # called once before: its name is in the table now

    assert len(rows) == len(log)
    assert set(rows["outcome"]) == {"answered"}
    assert rows.loc[~before, list(TOLD)].equals(log.loc[~before, list(TOLD)].astype("string"))
    assert set(rows.loc[~before, "protocol"]) == {"grpc"}
    assert set(rows.loc[before, "protocol"]) == {"http2"}
    assert rows.loc[before, ["resource", "status"]].isna().all(axis=None)


def test_coverage_says_since_when_and_what_was_named_before(seen: Seen) -> None:
    coverage = netlab.coverage(seen.requests)

    midway = coverage[coverage["detail"].str.contains("not followed from their first byte")].iloc[0]
    assert midway["count"] >= 2 * len(ALL)
    found = re.search(r"since (\S+) UTC", midway["detail"])
    assert found
    since = pd.Timestamp(found[1], tz="UTC")
    assert seen.began_at <= since <= seen.requests["requested_at"].max()
    assert coverage.loc[coverage["detail"].str.contains("header fields of HTTP/2"), "count"].item() > 0
