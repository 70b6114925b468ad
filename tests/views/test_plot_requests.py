"""The picture of requests: what it says, and that it can be read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from pictures import assert_legible, words

from netlab.errors import BadInput
from netlab.frames import Gap, Missing
from netlab.schemas import DNS, REQUESTS
from netlab.views.requests import plot_requests


def requests(*rows: dict[str, Any], missing: tuple[Missing, ...] = ()) -> pd.DataFrame:
    usual = {
        "protocol": "http",
        "operation": "GET",
        "host": "shop.example",
        "resource": "/",
        "outcome": "answered",
    }
    whole = [{**usual, "status": "200", **row} for row in rows]
    names = {name for row in whole for name in row}
    return REQUESTS.frame({name: [row.get(name) for row in whole] for name in names}, missing)


def answered(*times_ms: float, **row: Any) -> list[dict[str, Any]]:
    return [{"latency_ms": time_ms, **row} for time_ms in times_ms]


REFUSED = {"status": "500", "error": "Internal Server Error", "latency_ms": 3.0, "resource": "/pay"}
UNANSWERED = {"status": None, "outcome": "unanswered", "resource": "/hang"}
LONG = {"resource": "/" + "very/long/" * 20, "latency_ms": 900.0}
SQL = {
    "protocol": "postgres",
    "operation": "SELECT",
    "host": None,
    "resource": "orders",
    "status": "42P01",
    "error": "undefined_table",
}
MIXED = [*answered(*np.geomspace(0.2, 40, 300)), REFUSED, UNANSWERED, LONG, {**SQL, "latency_ms": 2.0}]


@pytest.mark.parametrize("rows", [answered(1.0), MIXED, [UNANSWERED]], ids=["one", "mixed", "no answer"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_text_overlaps_another_or_leaves_the_picture(rows: list[dict[str, Any]], theme: str) -> None:
    assert_legible(plot_requests(requests(*rows), theme=theme))


def test_what_fails_comes_first_and_then_what_is_slow() -> None:
    said = words(plot_requests(requests(*MIXED)))
    asked = [text for text in said if text.startswith(("GET ", "SELECT "))]

    assert set(asked[:3]) == {"GET shop.example/pay", "GET shop.example/hang", "SELECT orders"}
    assert asked[3].startswith("GET shop.example/very/long/")
    assert asked[4] == "GET shop.example/"


def test_paths_behind_a_long_host_can_be_told_apart() -> None:
    host = "payments-gateway.production.eu-central-1.svc.cluster.local"
    rows = [{"host": host, "resource": path, "latency_ms": 1.0} for path in ("/v1/pay", "/v1/refund")]

    said = words(plot_requests(requests(*rows)))

    asked = [text for text in said if text.startswith("GET payments-gateway.")]
    assert [text[-7:] for text in asked] == ["/v1/pay", "/refund"]


def test_requests_without_an_answer_are_no_time_and_no_zero() -> None:
    said = words(plot_requests(requests(*answered(1.0), UNANSWERED)))

    assert "✕ closed first" in said
    assert "2 requests · 1 failed (50 %)" in said


def test_what_is_left_out_and_what_is_missing_is_said() -> None:
    gap = Missing("requests", Gap.LOST, 3, "packets")

    said = " ".join(words(plot_requests(requests(*MIXED, missing=(gap,)), resources=2)))

    assert "1 gap in this data" in said
    assert "2 of 5 questions" in said


def test_an_empty_frame_says_so() -> None:
    assert "There are no requests in this frame" in words(plot_requests(REQUESTS.empty()))


def test_another_frame_is_refused() -> None:
    with pytest.raises(BadInput, match=r"plot_requests\(\) needs the column"):
        plot_requests(DNS.empty())


def test_answers_and_questions_of_grpc_are_named_as_its_users_know_them() -> None:
    call = {"protocol": "grpc", "operation": "Reserve", "host": "shop:50051", "resource": "shop.Stock"}
    late = {**call, "status": "4", "error": "DEADLINE_EXCEEDED", "latency_ms": 300.0}
    said = words(plot_requests(requests(late, {**call, "status": "0", "latency_ms": 1.0})))

    assert {"Reserve shop:50051/shop.Stock", "DEADLINE_EXCEEDED", "OK"} <= set(said)
