"""Requests in TLS of real clients to real servers of each protocol, against what the clients say.

NETLAB_REQUESTS=10000 in the environment makes it as many of each; -rP prints how far latencies are apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from apart import capturing, punctual
from bothends import BothEnds
from loopback import LOOPBACK, REQUESTS
from overheard import until
from sealed import CLIENTS, servers
from shares import told_apart
from speakers import Did

import netlab

pytestmark = pytest.mark.privileged

PROTOCOLS = {name: "http" if name == "gnutls" else name for name in CLIENTS}
ALL = [(server, family) for server in CLIENTS for family in LOOPBACK]
EACH = pytest.mark.parametrize(("server", "family"), ALL)


@dataclass(frozen=True)
class Seen(BothEnds):
    """The logs of the clients by server and family, and the capture's rows."""

    logs: dict[tuple[str, int], list[Did]]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    logs: dict[tuple[str, int], list[Did]] = {}
    with servers(tmp_path_factory.mktemp("servers")) as ports:
        options = {"port": sorted(set(ports.values())), "max_requests": 100 * REQUESTS}
        wanted = tuple(sorted(set(PROTOCOLS.values())))
        with capturing(protocols=wanted, clear_text=True, **options) as capture:
            for which in ALL:
                with punctual(), CLIENTS[which[0]](ports[which], which[1]) as ask:
                    logs[which] = [ask(number) for number in range(REQUESTS)]
            until(lambda: BothEnds(ports, capture.requests()).least() >= REQUESTS)
            rows = capture.requests()
        yield Seen(ports, rows, logs)


@pytest.mark.parametrize("direction", ["outgoing", "incoming"])
@EACH
def test_rows_are_what_the_client_did(seen: Seen, server: str, family: int, direction: str) -> None:
    rows = seen.rows(server, family, direction)

    told = zip(rows["operation"], rows["resource"], rows["status"], strict=True)
    assert list(told) == [(did.operation, did.resource, did.status) for did in seen.logs[server, family]]
    assert set(rows["protocol"]) == {PROTOCOLS[server]}
    assert set(rows["seen"]) == {"tls"}
    assert set(rows["outcome"]) == {"answered"}
    assert (rows["duration_ms"] >= rows["latency_ms"]).all()


@EACH
def test_the_client_waits_longer_than_its_row_says_and_that_longer_than_the_server_s(
    seen: Seen, server: str, family: int
) -> None:
    rows, served = seen.rows(server, family), seen.rows(server, family, "incoming")
    waited = np.array([did.took_ms for did in seen.logs[server, family]]) - rows["duration_ms"].to_numpy()

    told_apart(f"{server} IPv{family} in TLS: client", waited)
    assert (waited >= 0).all()
    assert (served["latency_ms"].to_numpy() <= rows["latency_ms"].to_numpy()).all()


def test_nothing_that_was_said_is_missing(seen: Seen) -> None:
    details = netlab.coverage(seen.requests)["detail"]

    assert not details.str.contains("connections that are read|not followed").any(), details.tolist()
