"""Statistics of all protocols in one table: requests, handshakes and lookups by the class of their answer."""

from __future__ import annotations

from typing import Any

import pytest

import netlab
from netlab.errors import BadInput
from netlab.protocols.overview import protocol_stats
from netlab.schemas import CONNECTIONS, DNS, PROTOCOL_STATS, REQUESTS

CLASSES = [  # protocol, status, error, outcome: class
    ("http", "204", None, "answered", "2xx"),
    ("http2", "404", "Not Found", "answered", "4xx"),
    ("http", "9x9", None, "answered", "ok"),
    ("grpc", "5", "NOT_FOUND", "answered", "error"),
    ("grpc", "0", None, "answered", "ok"),
    ("postgres", "23505", "unique_violation", "answered", "error"),
    ("redis", "OK", None, "answered", "ok"),
    ("kafka", None, None, "answered", "unknown"),
    ("grpc", None, None, "answered", "unknown"),
    ("http2", None, None, "answered", "unknown"),
    ("postgres", None, "pipeline_aborted", "answered", "error"),
    ("http", None, None, "unanswered", "unanswered"),
    ("kafka", None, None, "missed", "missed"),
    ("http", None, None, "pending", "pending"),
]
RCODES = {"NOERROR": "ok", "NXDOMAIN": "error", "timeout": "unanswered", "closed": "unanswered"} | {
    word: word for word in ("missed", "pending")
}


def requests(**columns: Any) -> Any:
    return REQUESTS.frame({name: values for name, values in columns.items() if values is not None})


@pytest.mark.parametrize(("protocol", "status", "error", "outcome", "expected"), CLASSES)
def test_an_answer_has_the_class_that_its_protocol_knows(
    protocol: str, status: str | None, error: str | None, outcome: str, expected: str
) -> None:
    row = requests(protocol=[protocol], status=[status], error=[error], outcome=[outcome])

    stats = protocol_stats(row)
    assert stats["status_class"].tolist() == [expected]
    assert stats["errors"].tolist() == [int(error is not None)]


@pytest.mark.parametrize(("rcode", "expected"), RCODES.items())
def test_a_lookup_has_the_class_of_its_code(rcode: str, expected: str) -> None:
    lookup = DNS.frame({"name": ["db1"], "type": ["A"], "rcode": [rcode], "latency_ms": [None]})

    stats = protocol_stats(lookup)
    assert stats[["protocol", "operation", "resource", "status_class"]].values.tolist() == [
        ["dns", "A", "db1", expected]
    ]
    assert stats["errors"].tolist() == [int(rcode == "NXDOMAIN")]


def test_every_request_is_counted_once_with_its_bytes_and_latency() -> None:
    heard = requests(
        protocol=["http", "http", "tls"],
        operation=["GET", "GET", "handshake"],
        resource=["/a", "/a", None],
        host=["web", "web", "db.example"],
        status=["200", "200", "OK"],
        outcome=["answered"] * 3,
        latency_ms=[1.0, 3.0, 7.0],
        response_bytes=[10, 30, None],
    )
    lookups = DNS.frame(
        {
            "name": ["db1"] * 2,
            "type": ["A"] * 2,
            "rcode": ["NOERROR"] * 2,
            "latency_ms": [2.0, 4.0],
            "answer_bytes": [50, 60],
        }
    )

    stats = protocol_stats(heard, lookups).set_index(["protocol", "resource"])
    assert stats["requests"].to_dict() == {("http", "/a"): 2, ("tls", "db.example"): 1, ("dns", "db1"): 2}
    assert stats["response_bytes"].fillna(-1).to_dict() == {
        ("http", "/a"): 40,
        ("tls", "db.example"): -1,
        ("dns", "db1"): 110,
    }
    assert stats["max_ms"].to_dict() == {("http", "/a"): 3.0, ("tls", "db.example"): 7.0, ("dns", "db1"): 4.0}
    assert stats["p50_ms"].to_dict() == {  # the lower median, within 1 %
        ("http", "/a"): pytest.approx(1.0, rel=0.01),
        ("tls", "db.example"): pytest.approx(7.0, rel=0.01),
        ("dns", "db1"): pytest.approx(2.0, rel=0.01),
    }


def test_what_the_frames_lack_the_statistics_lack() -> None:
    heard, lookups = requests(protocol=["http"], outcome=["pending"]), DNS.empty()
    heard.attrs["coverage"] = [{"what": "requests", "kind": "lost", "count": 3, "detail": "a test"}]
    lookups.attrs["coverage"] = [{"what": "dns", "kind": "unseen", "count": 4, "detail": "a test"}]

    assert netlab.coverage(protocol_stats(heard, lookups))["count"].tolist() == [3, 4]


def test_of_nothing_there_is_an_empty_table() -> None:
    assert protocol_stats().columns.tolist() == protocol_stats(DNS.empty()).columns.tolist()
    assert protocol_stats().attrs["schema"] == PROTOCOL_STATS.name


def test_what_is_no_frame_of_requests_is_refused() -> None:
    with pytest.raises(BadInput, match="counts requests and DNS lookups"):
        protocol_stats(CONNECTIONS.empty())
