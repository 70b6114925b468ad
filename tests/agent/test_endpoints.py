"""Endpoints answer what netlab's functions do, each client its own account, each error with its reason."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from prometheus_client.parser import text_string_to_metric_families

import netlab
from netlab.agent.client import Host
from tests.support.programs import wait_until

pytestmark = pytest.mark.privileged
INSPECTED = [
    f"/debug/{what}"
    for what in (
        "state", "maps", "ebpf_maps", "processes", "telemetry", "conntrack/host", "conntrack/cached"
    )
]  # fmt: skip
REFUSED = tomllib.loads((Path(__file__).parent / "refused.toml").read_text(encoding="utf-8"))["refused"]


def http(agent: Path) -> httpx.Client:
    return httpx.Client(transport=httpx.HTTPTransport(uds=str(agent)), base_url="http://agent", timeout=30)


def connect_and_close(times: int) -> int:
    """Connect so often to a server of one's own on loopback; return its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        for _ in range(times):
            with socket.create_connection(server.getsockname()) as client:
                accepted, _ = server.accept()
                accepted.close()
                client.recv(1)
        port: int = server.getsockname()[1]
        return port


def test_routes_are_those_of_the_function(host: Host) -> None:
    assert_frame_equal(host.routes(), netlab.routes())


def test_a_way_is_that_of_the_function(host: Host) -> None:
    assert_frame_equal(host.gateway("127.0.0.1"), netlab.gateway("127.0.0.1"))


def test_a_frame_brings_its_coverage(host: Host) -> None:
    here, there = netlab.connections(), host.connections()

    assert there.columns.tolist() == here.columns.tolist()
    assert {gap["what"] for gap in there.attrs["coverage"]} == {gap["what"] for gap in here.attrs["coverage"]}


def test_a_trace_is_that_of_the_function(host: Host) -> None:
    hops = host.traceroute("::1", timeout_s=0.5, queries=2)

    assert hops["address"].tolist() == ["::1", "::1"]
    assert hops["reply"].tolist() == ["port-unreachable"] * 2


def test_each_client_is_told_every_connection_once(host: Host) -> None:
    for client in ("one", "two"):
        host.register(client)
    port = connect_and_close(20)
    seen: dict[str, list[pd.DataFrame]] = {"one": [], "two": []}

    def closed(client: str) -> int:
        seen[client].append(host.delta(client))
        rows = netlab.concat(seen[client])
        return int(((rows["remote_port"] == port) & rows["closed_at"].notna()).sum())

    for client in seen:
        wait_until(lambda client=client: closed(client) == 20)
    assert closed("one") == closed("two") == 20


def test_a_client_whose_answers_somebody_else_takes_is_told_so(host: Host, agent: Path) -> None:
    host.register("twice")
    with http(agent) as web:
        for _ in range(2):
            assert web.get("/connections", params={"client": "twice"}).status_code == 200

    with pytest.raises(netlab.CaptureError, match=r"got answer 2 last, not 0\. Somebody else asks"):
        host.delta("twice")


def test_an_answer_that_gets_lost_twice_is_told_by_the_third(host: Host) -> None:
    host.register("unlucky")
    port = connect_and_close(5)
    for _ in range(2):
        host.frame("/connections", client="unlucky", after=0)  # what it told is thrown away
    rows: list[pd.DataFrame] = []

    def told() -> int:
        rows.append(host.delta("unlucky"))
        together = netlab.concat(rows)
        return int(((together["remote_port"] == port) & together["closed_at"].notna()).sum())

    wait_until(lambda: told() == 5)


def test_two_who_ask_in_turn_under_one_name_do_not_count_anything_twice(host: Host, agent: Path) -> None:
    with netlab.connect(agent) as other:
        for each in (host, other):
            each.register("dashboard")
        host.delta("dashboard")
        other.delta("dashboard")

        with pytest.raises(netlab.CaptureError, match=r"Somebody else asks under this name"):
            host.delta("dashboard")


def test_what_a_capture_hides_is_not_shown_to_others(host: Host, agent: Path) -> None:
    host.capture(protocols="http", mask={"secret": "*"}, mask_names="hidden.example").start().stop()

    with http(agent) as web:
        listed = web.get("/captures").text

    assert "1 of its own" in listed
    assert "secret" not in listed
    assert "hidden" not in listed


def test_more_connections_than_the_agent_serves_are_said_to_be_too_many(host: Host, agent: Path) -> None:
    with contextlib.ExitStack() as held:
        for _ in range(520):
            held.enter_context(socket.socket(socket.AF_UNIX)).connect(str(agent))

        with pytest.raises(netlab.CaptureError, match=r"more connections open than it serves"):
            host.health()


def test_captures_that_have_ended_make_room_for_new_ones(host: Host) -> None:
    ended = []
    for _ in range(10):  # as who runs a cell again and again; eight may run
        with host.capture(port=9) as capture:
            pass
        ended.append(capture)

    assert ended[-1].connections().empty
    with pytest.raises(netlab.NetlabError, match="made room for others"):
        ended[0].connections()


def test_looking_at_a_clients_state_takes_nothing_from_its_account(host: Host, agent: Path) -> None:
    host.register("watched")
    port = connect_and_close(3)
    with http(agent) as web:
        for _ in range(2):
            for path in (*INSPECTED, "/metrics", "/conntrack/cached", "/debug/maps/netlab_open"):
                assert web.get(path, params={"client": "watched"}).status_code == 200, path
    rows: list[pd.DataFrame] = []

    def told() -> bool:
        rows.append(host.delta("watched"))
        together = netlab.concat(rows)
        return int(((together["remote_port"] == port) & together["closed_at"].notna()).sum()) == 3

    wait_until(told)


def test_the_cached_translations_are_those_that_connections_are_joined_with(host: Host, agent: Path) -> None:
    host.register("translated")
    with netlab.lab.practice() as net, http(agent) as web:
        fetch = ["curl", "-s", "-o", "/dev/null", f"http://{net.web.address4}:{net.ports.http}/"]

        def cached() -> list[tuple[str, int, str]]:
            net.client.run(fetch, check=True)
            rows = web.get("/conntrack/cached").json()["rows"]
            return [
                (row["protocol"], row["family"], row["reply_dst"])
                for row in rows
                if row["netns"] == net.gateway.inode and row["dst"] == net.web.address4
            ]

        wait_until(lambda: ("tcp", 4, net.nat_address4) in cached())


def test_a_process_that_was_met_is_told_with_its_command_line(host: Host, agent: Path) -> None:
    host.register("processes")
    connect_and_close(1)
    with http(agent) as web:
        met = {one["pid"]: one["cmdline"] for one in web.get("/debug/processes").json()}

    assert met[os.getpid()] == " ".join(sys.orig_argv)


def test_a_capture_follows_only_what_was_asked_for(host: Host) -> None:
    with host.capture(process="curl", protocol="tcp", drops=True) as cap:
        port = connect_and_close(1)
        subprocess.run(["curl", "-s", f"http://127.0.0.1:{port}/"], check=False)
        wait_until(lambda: len(cap.failures()))
        failed = cap.failures()

    assert failed[["process", "remote_port", "error"]].to_numpy().tolist() == [["curl", port, "ECONNREFUSED"]]
    assert cap.state == "stopped"
    assert len(cap.failures()) == 1


@pytest.mark.parametrize("case", REFUSED, ids=[case["why"] for case in REFUSED])
def test_what_cannot_be_served_is_refused_with_the_reason(agent: Path, case: dict[str, Any]) -> None:
    with http(agent) as web:
        web.post("/register", params={"client": "asking"})  # one case is about the capture of everybody
        answer = web.request(
            case.get("method", "GET"),
            case["path"],
            headers={"Accept": case.get("accept", "*/*")},
            json=case.get("body"),
        )
    told = answer.json()

    assert answer.status_code == told["status"] == case["status"]
    assert told["code"] == case["code"]
    assert case["says"] in told["message"]
    assert told["field"] == case.get("field")


def test_an_error_comes_back_as_what_the_function_raises(host: Host) -> None:
    with pytest.raises(netlab.BadInput, match="is not an IP address"):
        host.gateway("nowhere")
    with pytest.raises(netlab.CaptureError, match="no client 'nobody' is registered"):
        host.delta("nobody")
    with pytest.raises(netlab.ProbeError, match="cannot resolve"):
        host.traceroute("no such host")


def test_people_get_json_and_spreadsheets_csv(agent: Path) -> None:
    with http(agent) as web:
        told = web.get("/routes/127.0.0.1").json()
        rows = web.get("/routes/127.0.0.1", headers={"Accept": "text/csv"})

    assert told["schema"] == "gateway"
    assert told["coverage"] == []
    assert told["rows"][0]["interface"] == "lo"
    assert next(csv.DictReader(io.StringIO(rows.text)))["interface"] == "lo"
    assert rows.headers["netlab-schema"] == "gateway"


def test_prometheus_can_read_the_metrics(host: Host, agent: Path) -> None:
    host.register("metrics")
    with http(agent) as web:
        families = {
            family.name: family for family in text_string_to_metric_families(web.get("/metrics").text)
        }

    assert families["netlab_captures"].samples[0].value >= 1
    assert sum(sample.value for sample in families["netlab_clients"].samples) >= 1  # of all captures
    assert {sample.labels["endpoint"] for sample in families["netlab_request_seconds"].samples} > {
        "/register"
    }
    served = {tuple(sample.labels.values()) for sample in families["netlab_requests"].samples}
    assert ("/register", "200") in served
    assert {sample.labels["capture"] for sample in families["netlab_bpf_memory_bytes"].samples} >= {"shared"}
