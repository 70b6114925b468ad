"""Statistics of requests: against numpy, and that parts add up to the whole."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from netlab.errors import BadInput
from netlab.frames import Gap, Missing, concat, coverage
from netlab.protocols import sketch
from netlab.protocols.stats import Tally, request_stats
from netlab.schemas import REQUESTS

STATUSES = {"200": None, "404": "Not Found", "500": "Internal Server Error", None: None}
rows = st.lists(
    st.tuples(
        st.sampled_from(["GET", "PUT", None]),
        st.sampled_from(["/a", "/b"]),
        st.sampled_from(list(STATUSES)),
        st.none() | st.floats(1e-6, 1e6),
        st.none() | st.integers(0, 10**9),
    ),
    min_size=1,
    max_size=60,
)


def frame(found: list[tuple[str | None, str, str | None, float | None, int | None]]) -> pd.DataFrame:
    operation, resource, status, latency, size = ([*column] for column in zip(*found, strict=True))
    return REQUESTS.frame(
        {
            "protocol": ["http"] * len(found),
            "operation": operation,
            "resource": resource,
            "status": status,
            "error": [STATUSES[code] for code in status],
            "outcome": ["answered" if code else "unanswered" for code in status],
            "latency_ms": latency,
            "request_bytes": size,
            "requested_at": pd.to_datetime(np.arange(len(found)), unit="s", utc=True).array,
        }
    )


def test_one_column_to_group_by_needs_no_list() -> None:
    found = frame([("GET", "/a", "200", 1.0, 1), ("PUT", "/b", "200", 1.0, 1)])

    assert request_stats(found, by="operation").equals(request_stats(found, by=["operation"]))


@settings(max_examples=30)
@given(rows)
def test_counts_are_those_of_the_rows(found: list[tuple]) -> None:
    stats = request_stats(frame(found))

    for row in stats.itertuples():
        mine = [
            one
            for one in found
            if one[1] == row.resource and one[0] == (None if row.operation is pd.NA else row.operation)
        ]
        sizes = [one[4] for one in mine if one[4] is not None]
        assert row.requests == len(mine)
        assert (row.answered, row.unanswered) == (
            sum(one[2] is not None for one in mine),
            sum(one[2] is None for one in mine),
        )
        assert row.errors == sum(one[2] in {"404", "500"} for one in mine)
        assert row.request_bytes == sum(sizes) if sizes else row.request_bytes is pd.NA
        assert row.response_bytes is pd.NA
    assert stats["requests"].sum() == len(found)


@settings(max_examples=30)
@given(rows)
def test_quantiles_are_within_a_hundredth_of_a_measured_latency(found: list[tuple]) -> None:
    for row in request_stats(frame(found), by=["resource"]).itertuples():
        latencies = [one[3] for one in found if one[1] == row.resource and one[3] is not None]
        if not latencies:
            assert [row.p50_ms, row.p90_ms, row.p99_ms, row.max_ms] == [pd.NA] * 4
            continue
        for share, told in ((0.5, row.p50_ms), (0.9, row.p90_ms), (0.99, row.p99_ms)):
            true = np.quantile(latencies, share, method="lower")
            assert told == pytest.approx(true, rel=sketch.ACCURACY * 1.0001)
        assert row.max_ms == max(latencies)


@settings(max_examples=30)
@given(rows, rows)
def test_tallies_of_two_captures_add_up_to_that_of_both(first: list[tuple], second: list[tuple]) -> None:
    both = Tally.of(frame(first)) + Tally.of(frame(second))

    pd.testing.assert_frame_equal(both.stats(), request_stats(concat([frame(first), frame(second)])))


@given(st.lists(st.floats(1e-6, 1e12), min_size=1))
def test_a_bucket_stands_for_what_it_holds(values: list[float]) -> None:
    array = np.array(values)

    assert sketch.middles(sketch.buckets(array)) == pytest.approx(array, rel=sketch.ACCURACY * 1.0001)


def test_no_time_at_all_is_a_latency_too() -> None:
    assert sketch.middles(sketch.buckets(np.array([0.0, -1.0]))).tolist() == [0, 0]


def test_the_failures_are_counted_by_status() -> None:
    stats = request_stats(frame([("GET", "/a", code, 1.0, None) for code in ("404", "500", "404", "200")]))

    assert stats["statuses"].tolist() == ["404: 2, 500: 1"]


def test_failures_of_other_protocols_are_counted_by_name() -> None:
    names = ["DEADLINE_EXCEEDED", "lock_not_available", "CANCEL"]
    rows = {"protocol": ["grpc", "postgres", "grpc"], "status": ["4", "55P03", None], "error": names}
    stats = request_stats(REQUESTS.frame(rows), by=["error"]).set_index("error")

    assert stats["statuses"].to_dict() == {name: f"{name}: 1" for name in names}


def test_of_no_requests_there_are_no_statistics() -> None:
    stats = request_stats(REQUESTS.empty(), by=("host", "process"))

    assert len(stats) == 0
    assert stats.columns[:3].tolist() == ["host", "process", "requests"]


def test_the_coverage_of_the_requests_is_kept() -> None:
    requests = frame([("GET", "/a", "200", 1.0, 1)])
    requests.attrs["coverage"] = [{"what": "requests", "kind": "lost", "count": 1, "detail": "x"}]

    assert request_stats(requests).attrs["coverage"] == requests.attrs["coverage"]


@pytest.mark.parametrize("by", [["resourc"], ["latency_ms"], []])
def test_what_cannot_be_grouped_by_is_refused(by: list[str]) -> None:
    with pytest.raises(BadInput):
        request_stats(frame([("GET", "/a", "200", 1.0, 1)]), by=by)


def test_tallies_by_other_keys_do_not_add_up() -> None:
    requests = frame([("GET", "/a", "200", 1.0, 1)])

    with pytest.raises(BadInput, match="do not add up"):
        Tally.of(requests, ["host"]) + Tally.of(requests, ["resource"])


def test_counts_of_requests_that_lost_their_coverage_do_not_claim_to_be_complete() -> None:
    seen = REQUESTS.frame({"protocol": ["http"]}, [Missing("requests", Gap.LOST, 1, "for the test")])
    both = pd.concat([seen, REQUESTS.frame({"protocol": ["http"]})])

    assert coverage(request_stats(both))["what"].tolist() == ["coverage"]
