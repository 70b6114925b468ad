"""Requests of real clients to real servers of each protocol, against what both the clients and the wire say.

NETLAB_REQUESTS=10000 in the environment makes it as many of each; -rP prints how far latencies are apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import redis
from apart import breathe, capturing, punctual
from bothends import BothEnds
from loopback import LOOPBACK, REQUESTS
from overheard import until
from shares import told_apart
from sniffed import sniffing
from speakers import CLIENTS, Did, servers

import netlab
from netlab.protocols.stats import request_stats

pytestmark = pytest.mark.privileged

ALL = [(protocol, family) for protocol in CLIENTS for family in LOOPBACK]
EACH = pytest.mark.parametrize(("protocol", "family"), ALL)


@dataclass(frozen=True)
class Seen(BothEnds):
    """The logs of the clients and of the wire by protocol and family, and the capture's rows."""

    logs: dict[tuple[str, int], list[Did]]
    wire_ms: dict[tuple[str, int], list[float]]

    def turns(self, protocol: str, family: int) -> pd.DataFrame:
        """Return the last rows of the client's connection, what is in no log among them."""
        rows = self.all_rows(protocol, family)
        rows = rows[rows["cookie"] == self.rows(protocol, family)["cookie"].iloc[0]]
        return (rows if protocol != "kafka" else rows[rows["operation"] == "Produce"]).tail(REQUESTS)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    logs, wire_ms = {}, {}
    with servers(tmp_path_factory.mktemp("servers")) as ports, sniffing(set(ports.values())) as wire:
        options = {"port": sorted(set(ports.values())), "max_requests": 100 * REQUESTS}
        with capturing(protocols=tuple(CLIENTS), **options) as capture:
            for which in ALL:
                protocol, family = which
                logs[which] = log = []
                with punctual(), CLIENTS[protocol](ports[which], family) as ask:
                    for number in range(REQUESTS):
                        log.append(ask(number))
                        wire.drain()
                        breathe(number)
                wire_ms[which] = wire.latencies_ms(protocol, ports[which])[-REQUESTS:]
            _monitor(ports["redis", 4])
            until(lambda: BothEnds(ports, capture.requests()).least() >= REQUESTS)
            rows = capture.requests()
        yield Seen(ports, rows, logs, wire_ms)


def _monitor(port: int) -> None:
    with redis.Redis(port=port) as client, client.monitor() as monitor:
        client.ping()
        until(lambda: "PING" in monitor.next_command()["command"])


@pytest.mark.parametrize("direction", ["outgoing", "incoming"])
@EACH
def test_rows_are_what_the_client_did(seen: Seen, protocol: str, family: int, direction: str) -> None:
    rows = seen.rows(protocol, family, direction)

    told = zip(rows["operation"], rows["resource"], rows["status"], strict=True)
    assert list(told) == [(did.operation, did.resource, did.status) for did in seen.logs[protocol, family]]
    assert set(rows["protocol"]) == {protocol}
    assert set(rows["outcome"]) == {"answered"}
    assert rows["error"].isna().tolist() == [status in {"OK", "0", "200"} for status in rows["status"]]
    assert (rows["duration_ms"] >= rows["latency_ms"]).all()


@EACH
def test_latencies_are_those_of_the_wire_and_within_those_of_the_client(
    seen: Seen, protocol: str, family: int
) -> None:
    rows = seen.rows(protocol, family)
    waited = np.array([did.took_ms for did in seen.logs[protocol, family]]) - rows["duration_ms"].to_numpy()
    apart = np.abs(seen.turns(protocol, family)["latency_ms"].to_numpy() - seen.wire_ms[protocol, family])
    told_apart(f"{protocol} IPv{family}: client", waited)
    told_apart(f"{protocol} IPv{family}: wire", apart)
    assert (waited >= 0).all()
    assert (
        apart > 1
    ).mean() < 0.05  # either may be kept waiting between its look at a packet and the other's


def test_statistics_count_the_failures_and_once_what_both_ends_tell(seen: Seen) -> None:
    rows = pd.concat([seen.rows(*which, "incoming") for which in ALL])
    both = pd.concat([rows, *(seen.rows(*which) for which in ALL)])
    stats = request_stats(both, by=["protocol"]).set_index("protocol")

    assert stats["requests"].to_dict() == dict.fromkeys(CLIENTS, 2 * REQUESTS)
    rows["answer"] = rows["status"].where(rows["protocol"].isin(["http", "http2"]), rows["error"])
    failed = rows[rows["error"].notna()].groupby(["protocol", "answer"], observed=True).size()
    for protocol, statuses in stats["statuses"].dropna().items():
        assert dict(one.split(": ") for one in statuses.split(", ")) == failed[protocol].astype(str).to_dict()


def test_no_value_and_no_query_is_in_any_row(seen: Seen) -> None:
    text = seen.requests.to_csv()

    assert not [word for word in ("secret", "token", "hunter2") if word in text]


def test_connections_that_go_on_in_another_protocol_are_counted(seen: Seen) -> None:
    coverage = netlab.coverage(seen.requests)

    assert coverage.loc[coverage["detail"].str.contains("MONITOR"), "count"].tolist() == [2]  # at both ends
