from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from netlab.errors import BadInput
from netlab.frames import concat, coverage
from netlab.path import path_metrics
from netlab.schemas import HOPS


def trace(*answers: tuple[int, float | None, bool], **columns: object) -> pd.DataFrame:
    """Return the probes of a trace, one a second: TTL, round trip, and whether the target answered."""
    same = {
        "trace": "id",
        "target": "web.example",
        "target_address": "192.0.2.9",
        "protocol": "tcp",
        "port": 443,
    }
    start = pd.Timestamp("2026-11-21T10:00Z")
    return HOPS.frame(
        {name: [value] * len(answers) for name, value in (same | columns).items()}
        | {
            "ttl": [ttl for ttl, *_ in answers],
            "rtt_ms": [rtt for _, rtt, _ in answers],
            "reached": [None if rtt is None else reached for _, rtt, reached in answers],
            "sent_at": [start + pd.Timedelta(seconds=second) for second in range(len(answers))],
        }
    )


def values(frame: pd.DataFrame) -> dict[str, float]:
    short = frame["metric"].astype(str).str.removeprefix("datadog.network_path.")
    return dict(zip(short, frame["value"], strict=True))


def test_a_path_that_reached_its_target_has_a_length() -> None:
    gauges = path_metrics(trace((1, 2.0, False), (2, None, False), (3, 500.0, True)))

    assert values(gauges) == {
        "check_duration": 2.5,
        "path.monitored": 1,
        "path.hops": 3,
        "path.reachable": 1,
        "path.unreachable": 0,
    }
    assert gauges["unit"].tolist() == ["seconds", "paths", "hops", "paths", "paths"]


def test_a_path_whose_last_hop_is_a_router_is_unreachable_and_has_no_length() -> None:
    assert values(path_metrics(trace((1, 2.0, False), (2, 4.0, False)))) == {
        "check_duration": 1.004,
        "path.monitored": 1,
        "path.reachable": 0,
        "path.unreachable": 1,
    }


@pytest.mark.parametrize("reached", [False, True])
def test_an_interrupted_trace_does_not_say_that_its_target_is_unreachable(*, reached: bool) -> None:
    cut = trace((1, 2.0, False), (2, 4.0, reached))
    cut.attrs["coverage"] = [
        {"what": "interrupted runs", "kind": "incomplete", "count": 1, "detail": "the rest was not sent"}
    ]

    found = path_metrics(cut)

    assert ("path.unreachable" in values(found)) is ("path.reachable" in values(found)) is reached
    said = "interrupted before they reached the target: whether it is reachable is not known"
    assert coverage(found)["detail"].tolist()[1:] == ([] if reached else [said])
    assert coverage(found)["detail"].tolist()[0] == "the rest was not sent"


@pytest.mark.parametrize("first", [1, 10])
def test_a_target_that_answers_the_first_ttl_above_one_is_not_so_far_away(first: int) -> None:
    found = path_metrics(trace((first, 2.0, True), (first, None, False)))

    assert values(found)["path.reachable"] == 1
    assert values(found).get("path.hops") == (1 if first == 1 else None)
    said = "the target answered the first TTL, which was above 1, and may be nearer"
    assert coverage(found)["detail"].tolist() == ([] if first == 1 else [said])


def test_a_trace_that_begins_on_the_way_to_its_target_has_its_length() -> None:
    assert values(path_metrics(trace((2, 1.0, False), (3, 2.0, True))))["path.hops"] == 3


def test_an_interval_is_a_gauge_of_its_own() -> None:
    assert values(path_metrics(trace((1, 1.0, True)), interval_s=60))["check_interval"] == 60


def test_tags_say_which_path_it_is() -> None:
    gauges = path_metrics(trace((1, 1.0, True)), tags=["team:net"], origin="network_traffic")

    assert gauges["tags"][0].split(",") == [
        "collector:network_traffic",
        "destination_hostname:web.example",
        "destination_ip:192.0.2.9",
        "destination_port:443",
        "origin:network_traffic",
        "protocol:TCP",
        "team:net",
    ]


def test_a_path_without_a_port_has_none_in_its_tags() -> None:
    tags = path_metrics(trace((1, 1.0, True), protocol="icmp", port=None))["tags"]

    assert "destination_port:unspecified" in tags[0].split(",")


def test_every_trace_has_its_own() -> None:
    gauges = path_metrics(concat([trace((1, 1.0, True)), trace((1, 1.0, False), trace="other")]))

    assert gauges.groupby("trace")["metric"].size().to_dict() == {"id": 5, "other": 4}


def test_no_trace_has_no_metrics() -> None:
    assert path_metrics(HOPS.empty()).empty


@pytest.mark.parametrize(
    ("hops", "options", "message"),
    [
        (pd.DataFrame({"ttl": [1]}), {}, "needs the column 'target'"),
        (trace((1, 1.0, True)), {"interval_s": 0}, "interval_s 0 is not a number of seconds above 0"),
        (trace((1, 1.0, True)), {"tags": ["a,b"]}, "tag 'a,b' is not text without commas"),
        (trace((1, 1.0, True)), {"tags": "team:net"}, "tags 'team:net' is no list"),
        (trace((1, 1.0, True)), {"origin": ""}, "tag '' is not text"),
    ],
)
def test_what_cannot_be_right_is_refused(hops: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        path_metrics(hops, **options)
