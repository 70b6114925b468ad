"""Connections as a graph, held against a slow loop over the rows."""

from __future__ import annotations

import contextlib
import socket
from collections import Counter, defaultdict
from statistics import median
from typing import Any

import networkx as nx
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

import netlab
from netlab.frames import Gap, Missing, Schema
from netlab.schemas import CONNECTIONS, DELTAS, EVENTS, REQUESTS

VIP = {
    "remote_address": "10.96.0.10",
    "remote_port": 80,
    "nat_remote_address": "10.1.1.1",
    "nat_remote_port": 8080,
    "nat_local_address": "10.0.0.2",
    "nat_local_port": 4000,
}
WAY = {"via_gateway": "10.0.0.1", "via_mac": "02:00:00:00:00:01", "via_interface": "eth0"}


def frame(*rows: dict[str, Any], missing: tuple[Missing, ...] = ()) -> pd.DataFrame:
    base = {
        "protocol": "tcp",
        "direction": "outgoing",
        "local_address": "10.0.0.2",
        "local_port": 4000,
        "remote_address": "192.0.2.9",
        "remote_port": 443,
        "process": "curl",
        "pid": 7,
    }
    whole = [{**base, **row} for row in rows]
    names = {name for row in whole for name in row} - {"host"}
    built = CONNECTIONS.frame({name: [row.get(name) for row in whole] for name in names}, missing)
    if any("host" in row for row in whole):
        built["host"] = [row.get("host") for row in whole]
    return built


def node(graph: nx.MultiDiGraph, kind: str, **attributes: object) -> tuple[object, ...]:
    found = [
        name
        for name, data in graph.nodes(data=True)
        if data["kind"] == kind and all(data[key] == value for key, value in attributes.items())
    ]
    assert len(found) == 1, found
    return found[0]


def test_connections_of_a_process_to_an_address_and_port_are_one_edge() -> None:
    graph = netlab.connection_graph(
        frame(
            {"bytes_sent": 10, "bytes_received": 1, "rtt_ms": 1.0},
            {"bytes_sent": 20, "bytes_received": 2, "rtt_ms": 9.0, "local_port": 4001},
            {"bytes_sent": 30, "bytes_received": 3, "rtt_ms": 2.0, "error": "ECONNRESET"},
            {"remote_port": 80},
        )
    )

    curl, server = node(graph, "process"), node(graph, "address")
    assert set(graph[curl][server]) == {"tcp/443", "tcp/80"}
    assert graph[curl][server]["tcp/443"] == {
        "kind": "connects",
        "direction": "outgoing",
        "protocol": "tcp",
        "port": 443,
        "connections": 3,
        "failures": 1,
        "error": "ECONNRESET",
        "errors": 1,
        "bytes_sent": 60,
        "bytes_received": 6,
        "retransmits": None,
        "rtt_ms": 2.0,
    }
    assert graph[curl][server]["tcp/80"]["bytes_sent"] is None
    assert [graph.nodes[curl][name] for name in ("connections", "failures", "pids")] == [4, 1, 1]


def test_an_incoming_connection_leads_to_the_process_and_its_own_port() -> None:
    rows = [
        {"direction": "incoming", "local_port": 443, "remote_port": port, "process": "nginx"}
        for port in (50001, 50002)
    ]
    graph = netlab.connection_graph(frame(*rows))

    assert [(near[0], far[0], key) for near, far, key in graph.edges(keys=True)] == [
        ("address", "process", "tcp/443")
    ]


def test_who_called_is_not_guessed_where_it_is_not_known() -> None:
    graph = netlab.connection_graph(frame({"direction": "unknown"}, {"direction": None}))

    ((near, far, key, data),) = graph.edges(keys=True, data=True)
    assert (near[0], far[0], key) == ("process", "address", "tcp")
    assert [data[name] for name in ("port", "direction", "connections")] == [None, "unknown", 2]


def test_a_translated_connection_goes_through_its_translation() -> None:
    graph = netlab.connection_graph(frame({**VIP, "bytes_sent": 5}))

    curl, real = node(graph, "process"), node(graph, "address", address="10.1.1.1")
    nat = node(graph, "translation", nat="dnat", service="10.96.0.10", service_port=80, client=None)
    assert list(nx.all_simple_paths(graph, curl, real)) == [[curl, nat, real]]
    assert graph[curl][nat]["tcp/80"]["bytes_sent"] == 5
    assert graph[nat][real]["tcp/8080"]["bytes_sent"] == 5
    assert graph[nat][real]["tcp/8080"]["kind"] == "translated"
    assert len(graph) == 3


def test_a_masqueraded_client_is_the_real_one_behind_a_translation() -> None:
    accepted = {
        "direction": "incoming",
        "local_address": "10.1.1.1",
        "local_port": 8080,
        "remote_address": "10.1.1.254",
        "remote_port": 61000,
        "nat_local_address": "10.1.1.1",
        "nat_local_port": 8080,
        "nat_remote_address": "10.0.0.2",
        "nat_remote_port": 4000,
        "process": "nginx",
    }
    graph = netlab.connection_graph(frame(accepted, {**accepted, "remote_port": 61001}))

    nat = node(graph, "translation", nat="snat", client="10.1.1.254", new_service=None)
    client = node(graph, "address", address="10.0.0.2")
    assert graph[client][nat]["tcp/8080"]["connections"] == 2
    assert graph[nat][node(graph, "process")]["tcp/8080"]["connections"] == 2


def test_who_talks_to_whom_is_not_lost_behind_one_address_for_all() -> None:
    masked = {"nat_local_address": "198.51.100.7", **WAY}
    rows = [{**masked, "process": name, "remote_address": f"192.0.2.{name}"} for name in "12"]
    back = {**masked, "direction": "incoming", "remote_address": "198.51.100.7", "nat_local_address": None}
    graph = netlab.connection_graph(
        frame(*rows, {**back, "process": "3", "nat_remote_address": "192.0.2.3", "via_gateway": "10.0.0.9"})
    )

    ends = {data["process"]: name for name, data in graph.nodes(data=True) if data["kind"] == "process"}
    reached = {
        process: {one[-1] for one in nx.descendants(graph, node) if one[0] == "address"}
        for process, node in ends.items()
    }
    assert reached == {"1": {"192.0.2.1"}, "2": {"192.0.2.2"}, "3": set()}
    gateways = {
        process: {one[2] for one in nx.descendants(graph, node) if one[0] == "gateway"}
        for process, node in ends.items()
    }
    assert gateways == {"1": {"10.0.0.1"}, "2": {"10.0.0.1"}, "3": set()}


def test_an_entry_that_changes_nothing_is_no_translation() -> None:
    same = {
        "nat_local_address": "10.0.0.2",
        "nat_local_port": 4000,
        "nat_remote_address": "192.0.2.9",
        "nat_remote_port": 443,
    }
    graph = netlab.connection_graph(frame(same))

    assert {kind for _, kind in graph.nodes(data="kind")} == {"process", "address"}


def test_what_is_reached_by_a_gateway_leads_to_it() -> None:
    graph = netlab.connection_graph(frame(WAY, WAY, {**WAY, **VIP}, {"remote_address": "10.0.0.3"}))

    gateway = node(graph, "gateway", address="10.0.0.1", interface="eth0", mac="02:00:00:00:00:01")
    assert sorted((near[0], data["connections"]) for near, _, data in graph.in_edges(gateway, data=True)) == [
        ("address", 2),
        ("translation", 1),
    ]
    assert graph.nodes[gateway]["connections"] == 3


def test_processes_are_apart_by_container_and_host_and_by_pid_on_request() -> None:
    rows = frame(
        {"pid": 1, "cmdline": "curl a"},
        {"pid": 2, "cmdline": "curl b"},
        {"pid": 3, "container": "c1"},
        {"pid": 4, "host": "h2"},
        {"pid": 5, "process": None},
        {"pid": None, "process": None},
    )

    graph = netlab.connection_graph(rows)
    each = netlab.connection_graph(rows, by="pid")

    processes = [data for _, data in graph.nodes(data=True) if data["kind"] == "process"]
    assert [(one["process"], one["container"], one["host"], one["pid"]) for one in processes] == [
        ("curl", None, None, None),
        ("curl", "c1", None, None),
        ("curl", None, "h2", None),
        (None, None, None, 5),
        (None, None, None, None),
    ]
    assert [one["cmdline"] for one in processes[:2]] == [None, None]  # two, which differ; none
    assert [one["pids"] for one in processes] == [2, 1, 1, 1, None]
    assert sum(kind == "process" for _, kind in each.nodes(data="kind")) == 6


def test_an_address_that_every_namespace_has_is_another_one_in_each() -> None:
    rows = [{"remote_address": "127.0.0.1", "netns": netns} for netns in (1, 2)]
    rows += [{"remote_address": "::1", "netns": 1, "host": "h1"}, {"remote_address": "192.0.2.1", "netns": 3}]
    graph = netlab.connection_graph(frame(*rows))

    found = [data for _, data in graph.nodes(data=True) if data["kind"] == "address"]
    assert [(one["address"], one["netns"], one["host"]) for one in found] == [
        ("127.0.0.1", 1, None),
        ("127.0.0.1", 2, None),
        ("::1", 1, "h1"),
        ("192.0.2.1", None, None),
    ]


def test_sockets_without_a_peer_are_left_out_and_counted() -> None:
    lost = Missing("attempts", Gap.LOST, 3, "the ring was full")
    rows = frame({"remote_address": None}, {"remote_address": "::"}, {"bytes_sent": 1}, missing=(lost,))

    graph = netlab.connection_graph(rows)

    told = [(gap["what"], gap["kind"], gap["count"]) for gap in graph.graph["coverage"]]
    assert told == [("attempts", "lost", 3), ("connections", "incomplete", 2), ("bytes", "approximate", 1)]
    assert graph.number_of_edges() == 1


def test_hostile_names_are_kept_as_they_are() -> None:
    name = "<script>10.0.0.1:80</script>\n"
    graph = netlab.connection_graph(frame({"process": name, "cmdline": name * 3, "remote_name": name}))

    assert graph.nodes[node(graph, "process")]["process"] == name
    assert graph.nodes[node(graph, "process")]["cmdline"] == name * 3
    assert graph.nodes[node(graph, "address")]["name"] == name


@pytest.mark.parametrize("empty", [CONNECTIONS.empty(), frame({"remote_address": None})])
def test_no_connection_is_an_empty_graph(empty: pd.DataFrame) -> None:
    assert len(netlab.connection_graph(empty)) == 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "NoneType"),
        (pd.DataFrame(), "no column"),
        (netlab.schemas.HOPS.empty(), "frame of hops"),
        ({}, "dict objects"),
    ],
)
def test_anything_else_is_refused(given: Any, said: str) -> None:
    with pytest.raises(netlab.BadInput, match=said):
        netlab.connection_graph(given)
    with pytest.raises(netlab.BadInput, match="by"):
        netlab.connection_graph(frame({}), by="name")


@pytest.mark.parametrize("kind", [EVENTS, REQUESTS])
def test_frames_of_another_kind_with_the_same_columns_are_refused(kind: Schema) -> None:
    rows = frame({}, {"error": "ECONNREFUSED"})
    other = kind.frame({name: rows[name] for name in rows if name in kind.names and name != "protocol"})

    with pytest.raises(netlab.BadInput, match=f"takes connections, and this is a frame of {kind.name}"):
        netlab.connection_graph(other)


def test_deltas_are_a_graph_of_the_connections_that_changed() -> None:
    graph = netlab.connection_graph(DELTAS.frame(dict(frame({}, {"error": "ECONNREFUSED"}))))

    assert [data["failures"] for *_, data in graph.edges(data=True)] == [1]


def test_sockets_that_are_open_now_are_a_graph() -> None:
    with contextlib.ExitStack() as held:
        server = held.enter_context(socket.create_server(("127.0.0.1", 0)))
        for _ in range(5):
            held.enter_context(socket.create_connection(server.getsockname()))
        port = server.getsockname()[1]
        graph = netlab.connection_graph(netlab.connections(port=port))

    edges = {(near[0], far[0]): data["connections"] for near, far, data in graph.edges(data=True)}
    assert edges == {("process", "address"): 5, ("address", "process"): 5}


# -- against a loop over the rows -------------------------------------------------------------------------

ROWS = st.fixed_dictionaries(
    {
        "protocol": st.sampled_from(["tcp", "udp"]),
        "direction": st.sampled_from(["outgoing", "incoming", "unknown", None]),
        "local_address": st.sampled_from(["10.0.0.1", "10.0.0.2"]),
        "local_port": st.sampled_from([80, 40000]),
        "remote_address": st.sampled_from(["10.0.0.2", "fd00::1", "10.96.0.1"]),
        "remote_port": st.sampled_from([80, 443]),
        "process": st.sampled_from(["a", "b", None]),
        "container": st.sampled_from(["c", None]),
        "pid": st.sampled_from([1, 2, None]),
        "nat_remote_address": st.sampled_from(["10.0.0.9", "10.96.0.1", None]),
        "nat_remote_port": st.sampled_from([8080, 80, None]),
        "nat_local_address": st.sampled_from(["10.0.0.1", "10.0.0.8", None]),
        "via_gateway": st.sampled_from(["10.0.0.254", None]),
        "bytes_sent": st.one_of(st.none(), st.integers(0, 2**60)),
        "rtt_ms": st.one_of(st.none(), st.floats(0, 1000)),
        "error": st.sampled_from(["ECONNREFUSED", "ETIMEDOUT", None]),
        "host": st.sampled_from(["h1", "h2"]),
    }
)


def slowly(rows: list[dict[str, Any]]) -> dict[Any, dict[str, Any]]:
    """Return the edges between kinds of nodes and their keys' main parts, one row after the other."""
    found: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        incoming, known = row["direction"] == "incoming", row["direction"] in {"incoming", "outgoing"}
        way = row["direction"] or "unknown"
        service, client = ("local", "remote") if incoming else ("remote", "local")
        changed = {
            end: any(
                row.get(f"nat_{end}_{what}") is not None and row[f"nat_{end}_{what}"] != row[f"{end}_{what}"]
                for what in ("address", "port")
            )
            for end in ("local", "remote")
        }
        process = (
            "process",
            row["host"],
            row["container"],
            row["process"],
            row["pid"] if row["process"] is None else None,
        )
        address = ("address", None, None, row["nat_remote_address"] or row["remote_address"])
        port = row[f"{service}_port"] if known else None
        first, beyond = address, port
        if any(changed.values()):
            dnat, snat = changed[service], changed[client]
            beyond = (row.get(f"nat_{service}_port") if known else None) if dnat else port
            first = (
                "translation",
                row["host"],
                way,
                row["protocol"],
                "both" if dnat and snat else "dnat" if dnat else "snat",
                row[f"{service}_address"],
                port,
                row[f"nat_{service}_address"] if dnat else None,
                beyond if dnat else None,
                (row["remote_address"] if incoming else row["nat_local_address"]) if snat else None,
            )
        ends = [(process, first, row["protocol"], port, way, "connects")]
        if first is not address:
            ends.append((first, address, row["protocol"], beyond, way, "translated"))
        if row["via_gateway"]:
            gateway = ("gateway", row["host"], row["via_gateway"], None)
            found[first, gateway, row["protocol"], port, way, "via"].append(row)
        for near, far, *rest in ends:
            found[(far, near, *rest) if incoming else (near, far, *rest)].append(row)
    return {edge: _added(some) for edge, some in found.items()}


def _added(rows: list[dict[str, Any]]) -> dict[str, Any]:
    sent = [row["bytes_sent"] for row in rows if row["bytes_sent"] is not None]
    rtts = [row["rtt_ms"] for row in rows if row["rtt_ms"] is not None]
    errors = Counter(row["error"] for row in rows if row["error"])
    return {
        "connections": len(rows),
        "failures": errors.total(),
        "errors": len(errors),
        "error": min(errors, key=lambda name: (-errors[name], name)) if errors else None,
        "bytes_sent": sum(sent) if sent else None,
        "rtt_ms": pytest.approx(median(rtts)) if rtts else None,
    }


@settings(max_examples=40)
@given(st.lists(ROWS, min_size=1, max_size=12))
def test_every_edge_is_what_a_loop_over_the_rows_finds(rows: list[dict[str, Any]]) -> None:
    graph = netlab.connection_graph(frame(*rows))

    counted = ("connections", "failures", "errors", "error", "bytes_sent", "rtt_ms")
    found = {
        (near, far, *(data[name] for name in ("protocol", "port", "direction", "kind"))): {
            name: data[name] for name in counted
        }
        for near, far, data in graph.edges(data=True)
    }
    assert found == slowly(rows)


@settings(max_examples=15)
@given(st.lists(ROWS, min_size=1, max_size=12))
def test_no_connection_is_lost_or_counted_twice(rows: list[dict[str, Any]]) -> None:
    graph = netlab.connection_graph(frame(*rows))

    edges = [data for *_, data in graph.edges(data=True) if data["kind"] == "connects"]
    nodes = [data for _, data in graph.nodes(data=True) if data["kind"] == "process"]
    assert sum(data["connections"] for data in edges) == len(rows)
    assert sum(data["connections"] for data in nodes) == len(rows)
