"""The agent's counters as Prometheus would have them: every series once, and the same at each reading."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from netlab.agent.client import Host
from netlab.agent.telemetry import _lost
from netlab.frames import Gap, Missing
from tests.support.programs import wait_until


def test_a_reason_whose_own_numbers_grow_stays_one_series() -> None:
    first, later = (
        _lost([Missing("translations", Gap.LOST, count, f"messages were lost; {dumps} dumps made up for it")])
        for count, dumps in ((3, 1), (5, 12))
    )
    assert list(first) == list(later)
    assert list(later.values()) == [5]


def test_what_is_missing_twice_for_one_reason_is_one_sample() -> None:
    gaps = [Missing("connections", Gap.LOST, count, "no room") for count in (2, 3)]
    assert dict(_lost(gaps)) == {("connections", "lost", "no room"): 5}


def test_what_cannot_be_counted_is_no_sample() -> None:
    assert not _lost([Missing("connections", Gap.UNSEEN, None, "short ones")])


def test_connections_open_before_a_capture_count_as_open_until_they_end(host: Host, agent: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)), server.accept()[0]:
            host.capture(port=port, cost=True).start()  # with programs of its own

            assert _open(agent) == 2
        wait_until(lambda: _open(agent) == 0)


def _open(agent: Path) -> float:
    """Return how many connections /metrics says are open, in the one capture that runs."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(agent)), base_url="http://agent") as web:
        families = text_string_to_metric_families(web.get("/metrics").text)
    (sample,) = (s for one in families if one.name == "netlab_connections_open" for s in one.samples)
    return sample.value
