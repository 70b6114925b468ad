"""What client and server on one host both tell is one request, unless it is asked what each did."""

from __future__ import annotations

import pandas as pd
import pytest

import netlab
from netlab.schemas import DNS, REQUESTS

CLIENT, SERVER, ELSEWHERE = ("127.0.0.1", 40000), ("127.0.0.1", 80), ("192.0.2.7", 5555)


def ends(near: tuple[str, int], far: tuple[str, int], direction: str, count: int) -> dict[str, list]:
    one = {
        "local_address": near[0],
        "local_port": near[1],
        "remote_address": far[0],
        "remote_port": far[1],
        "direction": direction,
        "process": {"outgoing": "curl", "incoming": "nginx"}[direction],
    }
    return {name: [value] * count for name, value in one.items()}


@pytest.fixture
def requests() -> pd.DataFrame:
    """Two requests that both ends tell, and three of a client elsewhere."""
    parts = [(ends(CLIENT, SERVER, "outgoing", 2), 1.5), (ends(SERVER, CLIENT, "incoming", 2), 1.0)]
    parts += [(ends(SERVER, ELSEWHERE, "incoming", 3), 1.0)]
    same = {"protocol": "http", "operation": "GET", "resource": "/", "status": "200", "outcome": "answered"}
    frames = []
    for columns, latency_ms in parts:
        count = len(columns["direction"])
        of_all = {name: [value] * count for name, value in same.items()}
        frames.append(REQUESTS.frame({**columns, **of_all, "latency_ms": [latency_ms] * count}))
    return netlab.concat(frames)


@pytest.mark.parametrize("by", [["protocol"], ["host", "resource"]])
def test_it_counts_once_as_the_client_saw_it(requests: pd.DataFrame, by: list[str]) -> None:
    stats = netlab.request_stats(requests, by=by)

    assert stats["requests"].tolist() == [5]
    assert stats["max_ms"].tolist() == [1.5]


@pytest.mark.parametrize(
    ("by", "counts"),
    [
        ("direction", {"outgoing": 2, "incoming": 5}),
        ("process", {"curl": 2, "nginx": 5}),
        ("remote_address", {"127.0.0.1": 4, "192.0.2.7": 3}),
    ],
)
def test_each_end_has_its_own_where_it_is_asked_for(
    requests: pd.DataFrame, by: str, counts: dict[str, int]
) -> None:
    assert netlab.request_stats(requests, by=by).set_index(by)["requests"].to_dict() == counts


def test_one_end_alone_keeps_all_it_tells(requests: pd.DataFrame) -> None:
    incoming = requests[requests["direction"] == "incoming"]

    assert netlab.request_stats(incoming, by="protocol")["requests"].tolist() == [5]


def test_lookups_at_a_resolver_on_this_host_count_once_in_every_table() -> None:
    resolver = ("127.0.0.53", 53)
    parts = [ends(CLIENT, resolver, "outgoing", 1), ends(resolver, CLIENT, "incoming", 1)]
    same = {"name": ["db1"], "type": ["A"], "rcode": ["NOERROR"], "server_address": ["127.0.0.53"]}
    lookups = netlab.concat([DNS.frame({**part, **same, "retries": [0]}) for part in parts])

    assert netlab.dns_stats(lookups)["lookups"].tolist() == [1]
    assert netlab.dns_stats(lookups, by=["name", "process"])["lookups"].tolist() == [1, 1]
    assert netlab.protocol_stats(lookups)["requests"].tolist() == [1]


def test_what_the_frame_lacks_is_still_said(requests: pd.DataFrame) -> None:
    requests.attrs["coverage"] = [{"what": "requests", "kind": "lost", "count": 7, "detail": "ring"}]

    assert netlab.request_stats(requests, by="protocol").attrs["coverage"] == requests.attrs["coverage"]
