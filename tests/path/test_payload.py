"""NetworkPath payloads; those in tests/data/network_path/ are as Go encodes the agent's structs."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import networkx as nx
import pandas as pd
import pytest
from hypothesis import given, strategies as st
from walked import WalkedChannel, watch

from netlab.errors import BadInput
from netlab.frames import concat, coverage
from netlab.path import from_network_path, rows, to_network_path
from netlab.path.graph import path_graph
from netlab.path.state import Probe, Run
from netlab.path.trace import traceroute
from netlab.schemas import HOPS

DATA = Path(__file__).parents[1] / "data" / "network_path"
LAYOUTS = ["2024", "2025", "2026"]
layouts = pytest.mark.parametrize("layout", LAYOUTS)
KEPT = [
    "trace", "host", "source_address", "target", "target_address", "run", "flow", "attempt", "ttl", "address",
    "name", "rtt_ms", "protocol", "family", "source_port", "port",
]  # fmt: skip


def example(layout: str) -> dict[str, Any]:
    return json.loads((DATA / f"{layout}.json").read_text())


def hops(*answers: str | None, rtt_ms: float = 1.5, **columns: object) -> pd.DataFrame:
    """Return one query to each TTL; the target is d."""
    count = len(answers)
    constant: dict[str, object] = {
        "trace": "id", "host": "here", "source_address": "192.0.2.1", "target": "d.example",
        "target_address": "192.0.2.9", "run": 0, "flow": 0, "attempt": 0, "protocol": "udp", "family": 4,
        "source_port": 4000, "port": 33434, "sent_at": pd.Timestamp("2026-11-21T10:00:00.25Z"),
    }  # fmt: skip
    return HOPS.frame(
        {name: [value] * count for name, value in (constant | columns).items()}
        | {
            "ttl": [*range(1, count + 1)],
            "address": [*answers],
            "rtt_ms": [rtt_ms * ttl if answer else None for ttl, answer in enumerate(answers, 1)],
            "reached": [answer == "192.0.2.9" if answer else None for answer in answers],
        }
    )


WHOLE = hops("192.0.2.2", None, "192.0.2.9")


@st.composite
def traces(draw: st.DrawFn) -> pd.DataFrame:
    """Return the hops of any one trace, by run, flow, attempt and TTL."""
    family = draw(st.sampled_from([4, 6]))
    network = "198.51.100.0/24" if family == 4 else "2001:db8::/32"
    address = st.ip_addresses(network=network).map(str)
    text = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=8)
    same = {"trace": draw(text), "host": draw(text), "target": draw(text), "target_address": draw(address)}
    same |= {"protocol": draw(st.sampled_from(["udp", "tcp", "icmp"])), "family": family}
    port = st.none() | st.integers(1, 65535)
    same |= {"port": draw(port), "sent_at": pd.Timestamp(draw(st.integers(1, 2**42)), unit="ms", tz="UTC")}
    rows = []
    for run, attempts in enumerate(draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))):
        wire = {"source_address": draw(address), "source_port": draw(port), "run": run, "flow": run}
        for attempt in range(attempts):
            for ttl in sorted(draw(st.sets(st.integers(1, 255), min_size=1, max_size=5))):
                answer = draw(st.none() | address)
                found = {"address": answer, "reached": None, "rtt_ms": None, "name": None}
                if answer:
                    found |= {"reached": draw(st.booleans()), "name": draw(st.none() | text)}
                    found |= {"rtt_ms": draw(st.floats(0.001, 1e6))}
                rows.append(same | wire | found | {"attempt": attempt, "ttl": ttl})
    return HOPS.frame({name: [row[name] for row in rows] for name in rows[0]})


@given(traces())
def test_hops_come_back_as_they_went(trace: pd.DataFrame) -> None:
    back = from_network_path(json.dumps(to_network_path(trace)))

    pd.testing.assert_frame_equal(back[KEPT], trace[KEPT], check_categorical=False)


@given(traces(), st.sampled_from(LAYOUTS))
def test_payloads_come_back_as_they_went(trace: pd.DataFrame, layout: str) -> None:
    payload = to_network_path(trace, layout=layout, tags=["a:b"], source={"service": "shop"})

    assert to_network_path(from_network_path(payload), layout=layout) == payload


@layouts
def test_what_the_agent_wrote_has_its_hops(layout: str) -> None:
    back = from_network_path((DATA / f"{layout}.json").read_bytes())

    wanted = {
        "2024": [("192.0.2.1", "gw.example", 0.52, False), None, ("203.0.113.9", None, 9.125, True)],
        "2025": [None, ("2001:db8::9", "web.example", 3.5, True)],
        "2026": [("10.0.0.1", "gw.example", 0.25, False), None, ("203.0.113.9", None, 7.75, True)],
    }[layout]
    found = back[["address", "name", "rtt_ms", "reached"]].astype(object)
    rows = [
        None if pd.isna(row[0]) else row for row in found.where(found.notna(), None).itertuples(False, None)
    ]
    assert rows == wanted
    assert back["ttl"].tolist() == [*range(1, len(wanted) + 1)]


@layouts
def test_what_the_agent_wrote_says_where_and_when(layout: str) -> None:
    payload, back = example(layout), from_network_path(example(layout))
    first = back.iloc[0]

    assert first["trace"] == payload.get("path_id", payload.get("pathtrace_id", payload.get("test_run_id")))
    assert first["host"] == payload["source"]["hostname"]
    assert first["protocol"] == payload["protocol"].lower()
    assert first["sent_at"].value == payload["timestamp"] * 10**6
    assert pd.isna(first["port"]) == (payload["destination"]["port"] == 0)
    assert coverage(back)["what"].tolist() == ["sent_at", "reached"]


@layouts
def test_what_there_is_no_column_for_is_given_back(layout: str) -> None:
    payload = example(layout)

    back = to_network_path(from_network_path(payload), layout=layout)

    lost = {"hops", "traceroute", "tags", "new_in_2027", "destination"}
    assert {name: back[name] for name in payload if name not in lost} == {
        name: value for name, value in payload.items() if name not in lost
    }


def test_payloads_joined_and_parted_again_come_back_as_they_went() -> None:
    payloads = [to_network_path(hops("192.0.2.9", trace=name), tags=[f"of:{name}"]) for name in ("a", "b")]
    joined = concat(map(from_network_path, payloads))

    assert [to_network_path(part) for _, part in joined.groupby("trace")] == payloads


def test_a_payload_is_a_graph() -> None:
    graph = path_graph(from_network_path(example("2026")))

    assert list(nx.topological_sort(graph)) == ["source", "10.0.0.1", "* ttl 2", "203.0.113.9"]


def test_nothing_that_is_missing_is_written_as_zero_or_empty() -> None:
    hop = to_network_path(WHOLE)["traceroute"]["runs"][0]["hops"][1]

    assert hop == {"ttl": 2, "reachable": False}


def test_a_target_that_did_not_answer_has_no_times_from_end_to_end() -> None:
    probe = to_network_path(hops("192.0.2.2", None, None))["e2e_probe"]

    assert probe == {"packets_sent": 1, "packets_received": 0, "packet_loss_percentage": 1.0}


def test_probes_from_end_to_end_are_those_to_the_last_ttl() -> None:
    answers = ("192.0.2.2", "192.0.2.9")
    parts = [
        hops(*answers, attempt=0),
        hops("192.0.2.2", None, attempt=1),
        hops(*answers, attempt=2, rtt_ms=2.5),
    ]

    probe = to_network_path(concat(parts))["e2e_probe"]

    assert probe == {
        "rtts": [3, 5],
        "packets_sent": 3,
        "packets_received": 2,
        "packet_loss_percentage": pytest.approx(1 / 3),
        "jitter": 2,
        "rtt": {"avg": 4, "min": 3, "max": 5},
    }


def test_an_answer_met_behind_a_lost_one_is_no_probe_from_end_to_end() -> None:
    parts = [
        hops("192.0.2.2", "192.0.2.9", run=0),
        hops("192.0.2.2", None, "192.0.2.9", run=1),
        hops("192.0.2.2", "192.0.2.9", run=2),
    ]

    probe = to_network_path(concat(parts))["e2e_probe"]

    assert (probe["packets_sent"], probe["packets_received"]) == (3, 2)


def test_a_run_that_sent_nothing_to_the_end_says_nothing_of_it() -> None:
    parts = [
        hops("192.0.2.2", None, "192.0.2.9", run=0),
        hops("192.0.2.2", None, None, run=1),
        hops("192.0.2.2", run=2),  # interrupted, or a monitor's that probed its end with another TTL
    ]

    found = to_network_path(concat(parts))

    assert found["e2e_probe"]["packets_sent"] == 2
    assert found["e2e_probe"]["packet_loss_percentage"] == 0.5
    assert found["traceroute"]["hop_count"] == {"avg": 2, "min": 1, "max": 3}


def test_a_trace_that_was_interrupted_before_its_end_has_no_loss() -> None:
    channel = WalkedChannel(nx.path_graph(["client", "r1", "r2", "web"]))
    run = Run(0)
    for ttl in (1, 2):
        wall_ns = channel.send(0, ttl, ttl)
        run.probes[ttl] = Probe(mark=ttl, ttl=ttl, attempt=0, wall_ns=wall_ns, sent_ns=channel.now_ns())
    for answer in channel.receive(10**9):
        run.take(answer)
    run.cut_short = True
    origin = {"host": "here", "trace": "id"}
    cut = rows.frame([run], channel.target, "udp", channel.ports).assign(**origin)

    found = to_network_path(cut)

    assert "e2e_probe" not in found
    assert "hop_count" not in found["traceroute"]


@pytest.mark.parametrize("duration_s", [8, 9])
def test_the_rounds_of_a_monitor_lose_nothing_that_was_not_lost(duration_s: float) -> None:
    graph = nx.path_graph(["client", "r1", "r2", "web"])
    watched, _ = watch(WalkedChannel(graph), duration_s=duration_s)

    found = to_network_path(watched.assign(host="here", trace="id"))

    assert found["e2e_probe"]["packet_loss_percentage"] == 0
    assert found["traceroute"]["hop_count"] == {"avg": 3, "min": 3, "max": 3}


def test_hops_are_counted_to_the_last_answer_of_each_run() -> None:
    parts = [
        hops("192.0.2.2", None, "192.0.2.9", run=0),
        hops("192.0.2.2", None, None, run=1),
        hops(None, None, None, run=2),
    ]

    assert to_network_path(concat(parts))["traceroute"]["hop_count"] == {"avg": 2, "min": 1, "max": 3}


@pytest.mark.parametrize(("first", "count"), [(1, {"avg": 1, "min": 1, "max": 1}), (10, None)])
def test_a_target_that_answers_the_first_ttl_above_one_is_not_so_far_away(first: int, count: object) -> None:
    found = to_network_path(hops("192.0.2.9").assign(ttl=first))

    assert found["traceroute"].get("hop_count") == count
    assert found["e2e_probe"]["packets_received"] == 1


def test_a_single_list_of_hops_is_of_one_flow() -> None:
    parts = [
        hops("192.0.2.2", None),
        hops("192.0.2.3", "192.0.2.9", flow=1),
        hops(None, "192.0.2.4", attempt=1),
    ]

    found = to_network_path(concat(parts), layout="2025")["hops"]

    assert [hop["ip_address"] for hop in found] == ["192.0.2.2", "192.0.2.4"]


@layouts
def test_options_are_in_the_payload(layout: str) -> None:
    options = {"source": {"service": "shop"}, "destination": {"service": "db"}}
    payload = to_network_path(WHOLE, layout=layout, namespace="lab", tags=("a:b",), **options)

    assert (payload["namespace"], payload["tags"]) == ("lab", ["a:b"])
    assert (payload["source"]["service"], payload["destination"]["service"]) == ("shop", "db")


@pytest.mark.parametrize(
    ("frame", "options", "message"),
    [
        (None, {}, "needs the column 'trace'"),
        (pd.DataFrame({"ttl": [1]}), {}, "needs the column 'trace'"),
        (HOPS.empty(), {}, "this frame has 0"),
        (concat([hops("192.0.2.9"), hops("192.0.2.9", trace="other")]), {}, "this frame has 2"),
        (hops("192.0.2.9", host=None), {}, "source.hostname is missing"),
        (WHOLE, {"layout": "2023"}, "layout '2023' is not known"),
        (WHOLE, {"source": {"servcie": "x"}}, "field of source 'servcie' is not known"),
        (WHOLE, {"destination": {"port": 70000}}, "destination.port is '70000'"),
        (WHOLE, {"tags": "team:net"}, "tags 'team:net' is no list"),
        (WHOLE, {"source": 5}, "source 5 is no dict"),
        (WHOLE, {"tags": [1]}, r"tags\[0\] is '1', which is not text"),
        (WHOLE, {"tag": []}, "no option 'tag'"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_payload_is_refused(frame: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        to_network_path(frame, **options)


def broken(layout: str, *path: str | int, value: object) -> dict[str, Any]:
    payload: Any = example(layout)
    inside = payload
    for step in path[:-1]:
        inside = inside[step]
    if value is None:
        del inside[path[-1]]
    else:
        inside[path[-1]] = value
    return payload


HOP = ("traceroute", "runs", 0, "hops", 0)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ("{", "no JSON"),
        ([], "a list is no NetworkPath payload"),
        ({}, "neither `traceroute` nor `hops`"),
        (broken("2026", "timestamp", value=None), "timestamp is missing"),
        (broken("2026", "timestamp", value=True), "timestamp is 'True', which is not a whole number"),
        (broken("2026", "timestamp", value=2**62), "timestamp is .* milliseconds before the year 2262"),
        (broken("2026", "source", "hostname", value="\ud800"), "source.hostname is .* which is not text"),
        (broken("2025", "hops", value=5), "hops is '5', which is not a list"),
        ("[" * 100_000, "no JSON"),
        (broken("2026", "protocol", value="SCTP"), "protocol is 'SCTP', which is not one of UDP, TCP, ICMP"),
        (broken("2026", "source", value=None), "source.hostname is missing"),
        (broken("2026", "traceroute", "runs", value={}), "traceroute.runs is '{}', which is not a list"),
        (broken("2026", *HOP, "ttl", value=0), r"runs\[0\].hops\[0\].ttl is '0', which is not a TTL"),
        (broken("2026", *HOP, "rtt", value=-1), "rtt is '-1', which is not a number from 0"),
        (broken("2026", *HOP, "rtt", value=float("nan")), "rtt is 'nan'"),
        (broken("2026", *HOP, "ip_address", value="10.0.0"), "ip_address is '10.0.0', which is not an IP"),
        (broken("2026", *HOP, "reachable", value=1), "reachable is '1', which is not true or false"),
        (broken("2026", *HOP, value="hop"), r"hops\[0\] is 'hop', which is not a table"),
        (broken("2025", "destination", "ip_address", value=""), "destination.ip_address is ''"),
        (broken("2024", "hops", 1, "success", value=None), r"hops\[1\].success is missing"),
    ],
)
def test_what_is_no_payload_is_refused_by_the_name_of_its_field(payload: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        from_network_path(payload)


def test_reading_changes_nothing_of_what_was_given() -> None:
    payload = example("2026")
    before = copy.deepcopy(payload)

    to_network_path(from_network_path(payload))

    assert payload == before


@pytest.mark.privileged
@layouts
def test_a_trace_over_a_real_network_is_a_payload(chain: Any, layout: str) -> None:
    trace = traceroute(chain.target(4), netns=chain.client)
    payload = to_network_path(trace, layout=layout)
    back = from_network_path(json.dumps(payload))

    one = trace if layout == "2026" else trace[trace["attempt"] == 0]
    assert sorted(back["address"]) == sorted(one["address"])
    assert back.loc[back["reached"], "address"].unique().tolist() == [chain.target(4)]
    assert payload["source"]["hostname"] == trace["host"][0]
