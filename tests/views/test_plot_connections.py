from __future__ import annotations

import itertools
from typing import Any

import networkx as nx
import pandas as pd
import pytest
from matplotlib import colors
from matplotlib.patches import FancyBboxPatch, PathPatch
from pictures import assert_legible, place, texts, trace, words

import netlab
from netlab.errors import BadInput
from netlab.frames import Gap, Missing
from netlab.schemas import CONNECTIONS
from netlab.views.connections import plot_connections
from netlab.views.flows import Column, flows
from netlab.views.theme import LIGHT

WAY = {"via_gateway": "10.0.0.254", "via_mac": "02:00:00:00:00:01", "via_interface": "eth0"}
SERVICE = {
    "remote_address": "10.96.0.10",
    "remote_port": 80,
    "nat_remote_address": "10.1.1.1",
    "nat_remote_port": 8080,
    "nat_local_address": "198.51.100.7",
}
CALLED = {
    "direction": "incoming",
    "local_port": 443,
    "remote_address": "10.3.0.1",
    "remote_port": 50000,
    "process": "nginx",
    "container": "4f3a9cd01122",
}
BEHIND = {
    **CALLED,
    "nat_remote_address": "10.79.1.2",
    "nat_local_address": "10.96.0.9",
    "nat_local_port": 443,
}
LONG = {
    "process": "a-process-with-a-name-longer-than-comm" * 3,
    "remote_address": "2001:db8:1234:5678:9abc:def0:1234:5678",
    "remote_name": "a-server-with-a-very-long-name.backbone.example.net",
    "protocol": "udp",
    "error": "EAFNOSUPPORT",
    "via_gateway": "fe80::1234:5678:9abc:def0",
    "via_interface": "a-long-interface",
    "container": "4f3a9cd01122" * 5,
}


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
    names = {name for row in whole for name in row}
    return CONNECTIONS.frame({name: [row.get(name) for row in whole] for name in names}, missing)


def many(processes: int, addresses: int) -> pd.DataFrame:
    pairs = itertools.product(range(processes), range(addresses))
    rows = [
        {
            "process": f"worker-{process}",
            "remote_address": f"10.0.{address // 250}.{address % 250}",
            "error": "ECONNREFUSED" if (process + address) % 40 == 0 else None,
            **WAY,
        }
        for process, address in pairs
        if (process * address) % 7 < 3
    ]
    return frame(*rows)


EVERYTHING = frame(
    {**WAY, "rtt_ms": 0.3, "bytes_sent": 1200, "bytes_received": 53_000},
    {**WAY, **SERVICE, "process": "checkout"},
    {**WAY, **SERVICE, "process": "checkout", "error": "ECONNREFUSED"},
    {"process": "checkout", "remote_address": "10.2.0.6", "remote_port": 6379, "error": "ETIMEDOUT"},
    {**CALLED, **WAY},
    {**BEHIND, "process": "apache"},
    {"direction": "unknown", "remote_address": "10.9.9.9"},
    {"process": None, "pid": None, "remote_address": "127.0.0.1"},
)


@pytest.mark.parametrize(
    "connections",
    [
        frame({}),
        EVERYTHING,
        frame(*[{**LONG, "remote_port": port} for port in range(1, 9)], {**LONG, "direction": "incoming"}),
        frame(*[{**CALLED, "remote_address": f"10.3.0.{last}"} for last in range(40)]),
        many(30, 470),
    ],
    ids=["one", "everything", "long", "many callers", "500 nodes"],
)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_text_overlaps_another_or_leaves_the_picture(connections: pd.DataFrame, theme: str) -> None:
    assert_legible(plot_connections(connections, theme=theme))


def outlines(picture: Any) -> list[FancyBboxPatch]:
    return [patch for patch in picture.axes[0].patches if isinstance(patch, FancyBboxPatch)]


@pytest.mark.parametrize("connections", [EVERYTHING, many(30, 470)], ids=["everything", "500 nodes"])
def test_no_box_overlaps_another_and_every_text_of_a_box_is_inside_it(connections: pd.DataFrame) -> None:
    picture = plot_connections(connections)
    picture.canvas.draw()
    boxes = [box.get_window_extent() for box in outlines(picture)]
    inside = [text for text in texts(picture) if any(box.contains(*place(text).p0) for box in boxes)]

    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
    for text in inside:
        box = next(box for box in boxes if box.contains(*place(text).p0))
        assert box.contains(*place(text).p1), text.get_text()
    assert len(inside) > len(boxes)


def columns(picture: Any) -> dict[str, float]:
    return {text.get_text(): place(text).x0 for text in texts(picture)}


def test_who_calls_is_left_of_who_is_called_with_translations_in_between() -> None:
    where = columns(plot_connections(EVERYTHING))

    order = ["10.3.0.1 → :443", "10.96.0.9:443 → 10.0.0.2:443", "checkout", "10.96.0.10:80 → 10.1.1.1:8080"]
    places = [where[word] for word in (*order, "10.1.1.1:8080")]
    assert places == sorted(places)
    assert where["processes"] < where["called"] < where["next hop"]


def test_boxes_say_how_many_how_long_how_much_and_what_failed() -> None:
    shown = words(plot_connections(EVERYTHING))

    assert "1 connection · 0.30 ms · 54.2 kB" in shown
    assert "1 failed: ECONNREFUSED" in shown
    assert "2 failed: ECONNREFUSED, ETIMEDOUT" in shown  # of checkout
    assert {"DNAT and SNAT", "caller seen as 198.51.100.7", "unknown process", "in 4f3a9cd01122"} <= set(
        shown
    )
    assert "who called is not known" in shown
    assert "eth0 · 02:00:00:00:00:01" in shown


def test_a_caller_that_is_only_masked_takes_no_box() -> None:
    picture = plot_connections(frame({**WAY, "nat_local_address": "198.51.100.7"}))

    assert {"192.0.2.9:443", "caller seen as 198.51.100.7", "10.0.0.254"} <= set(words(picture))
    assert len(outlines(picture)) == 3


def test_the_next_hop_is_that_of_each_direction() -> None:
    """One address calls and is called, by two ways."""
    called = {**CALLED, "remote_address": "192.0.2.9", "via_gateway": "10.0.0.253"}

    found = flows(netlab.connection_graph(frame(WAY, called, {**BEHIND, **WAY})))

    hops = {
        tuple(found.boxes[end].title for end in pair) for pair, tally in found.lines.items() if tally is None
    }
    assert hops == {
        ("192.0.2.9:443", "10.0.0.254"),
        ("10.0.0.253", "192.0.2.9 → :443"),
        ("10.0.0.254", "10.79.1.2 → :443"),
    }


def test_a_node_for_each_process_id_says_which_one() -> None:
    graph = netlab.connection_graph(frame({}, {"pid": 8}, {"pid": 9, "process": None}), by="pid")

    assert {"pid 7", "pid 8", "pid 9"} <= set(words(plot_connections(graph)))


def test_loopback_addresses_of_several_namespaces_say_whose_they_are() -> None:
    home = {"remote_address": "127.0.0.1", "netns": 4026531840}

    alone = words(plot_connections(frame(home, {})))
    several = words(plot_connections(frame(home, {**home, "netns": 4026532000}, {})))

    assert not any("netns" in text for text in alone)
    assert {"in netns 4026531840", "in netns 4026532000"} <= set(several)


def test_the_notes_have_the_totals() -> None:
    shown = words(plot_connections(EVERYTHING))

    assert "8 connections · 2 failed (25 %) · 5 processes · 7 addresses" in shown
    assert any("orange, dashed: failed attempts" in text for text in shown)
    assert not any("orange" in text for text in words(plot_connections(frame({}))))


@pytest.mark.parametrize("ports", [[80, 80, 80], [80, 81, 82], [80, 80, 81]])
def test_errors_that_a_box_has_no_room_for_are_not_passed_over(ports: list[int]) -> None:
    errors = ["ECONNREFUSED", "ETIMEDOUT", "EHOSTUNREACH"]
    rows = [{"error": error, "remote_port": port} for error, port in zip(errors, ports, strict=True)]
    failed = next(word for word in words(plot_connections(frame(*rows))) if word.startswith("3 failed"))

    assert failed.endswith(", others")


def test_failures_have_a_colour_and_a_pattern_of_their_own() -> None:
    picture = plot_connections(frame({"error": "ECONNREFUSED"}, {"process": "wget"}), theme="light")
    lines = [patch for patch in picture.axes[0].patches if isinstance(patch, PathPatch)]

    said = {(colors.to_hex(line.get_edgecolor()), line.get_linestyle()) for line in lines}
    assert said == {(LIGHT.bad, "--"), (LIGHT.second, "-")}
    assert [text.get_color() for text in texts(picture) if "failed:" in text.get_text()] == [LIGHT.bad] * 2
    assert sum(colors.to_hex(box.get_edgecolor()) == LIGHT.bad for box in outlines(picture)) == 2


def test_an_unanswered_measure_is_left_out_and_not_zero() -> None:
    shown = words(plot_connections(frame({})))

    assert shown.count("1 connection") == 2  # of the process, and of the address
    assert not any(" ms" in text or " B" in text for text in shown)


def test_what_does_not_fit_is_one_box_that_says_how_many_they_are() -> None:
    connections = frame(
        *[{"remote_address": f"10.0.0.{last}"} for last in range(1, 30)],
        {"remote_address": "10.0.0.200", "error": "ETIMEDOUT"},
    )
    shown = words(plot_connections(connections, rows=5))

    assert "… and 26 more" in shown
    assert "26 connections" in shown
    assert "10.0.0.200:443" in shown  # failures first
    assert "the 4 in each column that failed or were used most, the others together" in shown


@pytest.mark.parametrize("rows", [2, 12, 60])
def test_cutting_loses_no_connection(rows: int) -> None:
    connections = many(30, 470)

    kept = flows(netlab.connection_graph(connections)).kept(rows)

    failures = int(connections["error"].notna().sum())
    for column in (Column.PROCESS, Column.CALLED):
        boxes = [kept.boxes[name] for name in kept.column(column)]
        assert len(boxes) <= rows
        assert sum(box.tally.connections for box in boxes) == len(connections)
        assert sum(box.tally.failures for box in boxes) == failures
    lines = [tally for tally in kept.lines.values() if tally]
    assert sum(tally.connections for tally in lines) == len(connections)


def test_a_graph_is_drawn_as_the_frame_that_it_was_made_of() -> None:
    assert words(plot_connections(netlab.connection_graph(EVERYTHING))) == words(plot_connections(EVERYTHING))


def test_foreign_names_are_drawn_as_they_stand_and_bounded() -> None:
    name = "$\\frac{1}{0}$\n<b>"
    shown = words(plot_connections(frame({"process": name, "remote_name": name * 20})))

    assert "$\\frac{1}{0}$\\n<b>" in shown
    assert max(map(len, shown)) < 120


def test_what_the_data_lack_is_noted() -> None:
    lost = Missing("attempts", Gap.LOST, 3, "the ring was full")
    connections = frame({"bytes_sent": 1, "bytes_received": 1}, missing=(lost,))

    assert "1 gap in this data: see netlab.coverage()" in words(plot_connections(connections))


@pytest.mark.parametrize("connections", [CONNECTIONS.empty(), frame({"remote_address": None})])
def test_data_without_a_connection_are_a_picture_that_says_so(connections: pd.DataFrame) -> None:
    assert "There are no connections with a peer in this data" in words(plot_connections(connections))


@pytest.mark.parametrize(
    ("connections", "fix"),
    [
        (trace([["192.0.2.7"]]), "netlab.connections()"),
        (nx.DiGraph([("a", "b")]), "netlab.connection_graph()"),
        (nx.MultiDiGraph([("a", "b")]), "netlab.connection_graph()"),
        (None, "netlab.connections()"),
    ],
)
def test_anything_else_is_refused_with_what_makes_the_right_thing(connections: Any, fix: str) -> None:
    with pytest.raises(BadInput) as refusal:
        plot_connections(connections)

    assert fix in refusal.value.fix


@pytest.mark.parametrize("options", [{"rows": 1}, {"rows": 61}, {"theme": "sepia"}, {"row": 3}])
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        plot_connections(EVERYTHING, **options)


def test_light_and_dark_differ_and_the_paper_is_the_themes() -> None:
    light, dark = (plot_connections(EVERYTHING, theme=theme) for theme in ("light", "dark"))

    assert light.get_facecolor() != dark.get_facecolor()
    assert {text.get_color() for text in light.texts} <= {LIGHT.text, LIGHT.muted, LIGHT.bad}
