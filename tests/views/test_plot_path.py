from __future__ import annotations

import networkx as nx
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from pictures import assert_legible, attempts, place, texts, trace, words

from netlab.errors import BadInput
from netlab.frames import Gap, Missing, concat
from netlab.path.graph import path_graph
from netlab.schemas import HOPS
from netlab.views.path import plot_path
from netlab.views.theme import LIGHT

LINE = [["10.1.0.1"], ["10.2.0.1"], ["192.0.2.7"]]
DIAMOND = [["10.1.0.1"], ["10.2.0.1", "10.2.0.2", "10.2.0.3"], ["192.0.2.7"]]
V6 = [[f"2001:db8:1234:5678:9abc:def0:{ttl:x}234:5678"] for ttl in range(1, 15)]
NAMES = {
    hop[0]: f"xe-{ttl}.a-router-with-a-very-long-name.backbone.example.net" for ttl, hop in enumerate(V6)
}
FAN = [["10.1.0.1"], [f"2001:db8:1234:5678:9abc:def0:1234:{host:x}" for host in range(6)], ["192.0.2.7"]]
LOOP = [["10.1.0.1"], ["10.2.0.1"], ["10.3.0.1"], ["10.2.0.1"], ["192.0.2.7"]]


@pytest.mark.parametrize(
    "hops",
    [
        trace([["127.0.0.1"]]),
        trace(DIAMOND, runs=6, lost=[(0, 1), (1, 2)]),
        trace(V6, names=NAMES),
        trace(FAN, runs=12),
        trace(LOOP),
        trace([["10.1.0.1"], None, None, ["10.4.0.1"], *[None] * 20]),
        pd.concat([trace(DIAMOND), trace(LINE, target="other.example")], ignore_index=True),
    ],
    ids=["one hop", "diamond", "long v6", "fan", "loop", "silence", "two targets"],
)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_text_overlaps_another_or_leaves_the_picture(hops: pd.DataFrame, theme: str) -> None:
    assert_legible(plot_path(hops, theme=theme))


def test_a_box_says_what_else_is_known_of_its_address() -> None:
    known = trace(LINE).assign(asn=64500, as_name="EXAMPLE", mpls="L=16001,E=0,S=0,T=1/L=24005,E=5,S=1,T=1")
    graph = path_graph(known)
    graph.nodes["10.1.0.1"].update(balances="flow", confidence=0.98749, rewrites="checksum")

    said = words(plot_path(graph))

    assert "AS64500 EXAMPLE" in said
    assert "MPLS 16001, 24005" in said
    assert "rewrites checksum" in said
    assert "balances by flow · 98.7 % sure" in said
    assert any(line.startswith("sure: how likely") for line in said)
    assert_legible(plot_path(graph))


def test_several_hosts_are_boxes_with_their_names() -> None:
    hops = concat([trace(LINE).assign(host="web1"), trace(DIAMOND).assign(host="web2")])

    said = words(plot_path(hops))

    assert "web1" in said
    assert "web2" in said
    assert "this host" not in said


def test_targets_that_could_not_be_probed_are_not_drawn_but_counted() -> None:
    failed = HOPS.frame({"target": ["no such host"], "error": ["cannot resolve"]})
    said = "1 target could not be probed: see the column error"

    drawn = words(plot_path(concat([trace(LINE), failed])))

    assert sorted(drawn) == sorted([said, *words(plot_path(trace(LINE)))])
    assert said in words(plot_path(failed))


def test_every_node_is_a_box_and_every_step_a_line() -> None:
    hops = trace(DIAMOND, runs=3)
    graph = path_graph(hops)

    (axes,) = plot_path(hops).axes

    assert sum(isinstance(patch, FancyBboxPatch) for patch in axes.patches) == len(graph)
    assert sum(isinstance(patch, FancyArrowPatch) for patch in axes.patches) == graph.number_of_edges()


def test_a_graph_is_drawn_as_the_frame_that_it_was_made_of() -> None:
    hops = trace(DIAMOND)

    assert words(plot_path(path_graph(hops))) == words(plot_path(hops))


def test_hops_stand_below_each_other_by_ttl_and_branches_beside_each_other() -> None:
    where = {text.get_text(): place(text) for text in texts(plot_path(trace(DIAMOND)))}
    heights = [where[word].y0 for word in ("this host", "10.1.0.1", "10.2.0.1", "192.0.2.7")]
    branches = [where[f"10.2.0.{host}"] for host in (1, 2, 3)]

    assert heights == sorted(heights, reverse=True)
    assert len({round(box.y0) for box in branches}) == 1
    assert len({round(box.x0) for box in branches}) == 3


def test_boxes_have_name_median_and_loss_and_lines_the_increase() -> None:
    hops = trace(LINE, lost=[(0, 2)], names={"10.2.0.1": "core.example"})
    hops["run"] = 0  # three probes of one run

    shown = words(plot_path(hops))

    assert "core.example" in shown
    assert "6.90 ms · loss 33 %" in shown  # the median of 6.6 and 7.2
    assert "+3.60 ms" in shown  # 6.9 after 3.3
    assert "TTL 2" in shown


def test_each_line_of_a_small_diamond_has_a_label_of_its_own() -> None:
    graph = path_graph(trace(DIAMOND, runs=6))
    graph.edges["10.2.0.2", "192.0.2.7"].update(probes=10, answers=7)  # which makes its label long

    assert sum(word.startswith("+") for word in words(plot_path(graph))) == graph.number_of_edges()


def test_of_several_ways_the_one_that_loses_is_in_the_failing_colour() -> None:
    graph = path_graph(trace(DIAMOND))
    graph.edges["10.2.0.2", "192.0.2.7"].update(probes=10, answers=7)

    picture = plot_path(graph, theme="light")

    lines = [patch for patch in picture.axes[0].patches if isinstance(patch, FancyArrowPatch)]
    assert [to_hex(line.get_edgecolor()) for line in lines].count(LIGHT.bad) == 1
    (lost,) = (text for text in texts(picture) if text.get_text().endswith("loss 30 %"))
    assert lost.get_color() == LIGHT.bad


def test_loss_that_may_be_anothers_is_the_most_that_it_can_be() -> None:
    graph = path_graph(trace(LINE))
    graph.nodes["10.2.0.1"].update(probes=6, answers=6, shared=2, loss=None)

    assert any(line.endswith("loss up to 25 %") for line in words(plot_path(graph)))


def test_a_fall_of_the_median_has_a_minus_sign() -> None:
    shown = words(plot_path(trace(LINE, rtt_ms=lambda ttl: 10.0 - ttl)))

    assert "\N{MINUS SIGN}1.10 ms" in shown


def test_a_silent_step_is_a_dashed_box_that_says_no_answer() -> None:
    picture = plot_path(trace([["10.1.0.1"], None, ["192.0.2.7"]]))
    styles = [patch.get_linestyle() for patch in picture.axes[0].patches if isinstance(patch, FancyBboxPatch)]

    assert "no answer" in words(picture)
    assert styles.count("--") == 1
    assert any("1 silent step" in text for text in words(picture))


def test_the_destination_has_a_border_of_its_own_and_an_unreached_one_is_said() -> None:
    picture = plot_path(trace(LINE), theme="light")
    edges = [patch.get_linewidth() for patch in picture.axes[0].patches if isinstance(patch, FancyBboxPatch)]
    (bold,) = [text for text in texts(picture) if text.get_text() == "192.0.2.7"]

    assert len([width for width in edges if width > 2]) == 1
    assert bold.get_weight() == "bold"
    assert any("1 destination reached" in text for text in words(picture))
    assert any("destination not reached" in text for text in words(plot_path(trace(LINE, reached=False))))


def test_a_line_that_may_be_no_link_is_dashed_and_explained() -> None:
    # One trace that met two addresses at each of two TTLs: four lines, of which two are real.
    hops = trace([["10.1.0.1", "10.1.0.2"], ["10.2.0.1", "10.2.0.2"], ["192.0.2.7"]], runs=2)
    hops["run"] = 0

    picture = plot_path(hops)
    styles = [line.get_linestyle() for line in picture.axes[0].patches if isinstance(line, FancyArrowPatch)]

    assert styles.count("--") == 4
    assert any(text.startswith("dashed:") for text in words(picture))


def test_the_way_back_in_a_loop_is_an_arrow_around_the_right_side_of_the_boxes() -> None:
    picture = plot_path(trace(LOOP))
    picture.canvas.draw()
    lines = [line for line in picture.axes[0].patches if isinstance(line, FancyArrowPatch)]
    boxes = [box.get_window_extent().x1 for box in picture.axes[0].patches if isinstance(box, FancyBboxPatch)]
    around = [line.get_window_extent().x1 for line in lines if line.get_window_extent().x1 > max(boxes) + 10]

    assert len(around) == 2  # back from TTL 3 to 2, and on from 2 to 5
    assert max(around) < picture.bbox.x1


def test_a_router_that_answers_twice_in_a_row_is_noted() -> None:
    shown = words(plot_path(trace([["10.1.0.1"], ["10.1.0.1"], ["192.0.2.7"]])))

    assert "1 router answered at two TTLs in a row (not drawn)" in shown


def test_lines_that_carried_more_probes_are_wider() -> None:
    hops = trace([["10.1.0.1"], ["10.2.0.1", "10.2.0.1", "10.2.0.2"], ["192.0.2.7"]], runs=3)

    (axes,) = plot_path(hops).axes
    widths = {round(line.get_linewidth(), 3) for line in axes.patches if isinstance(line, FancyArrowPatch)}

    assert widths == {3.5, round(1 + 2.5 * 2 / 3, 3), round(1 + 2.5 / 3, 3)}


def test_more_branches_than_fit_are_said_to_be_left_out() -> None:
    wide = trace([["10.1.0.1"], [f"10.2.0.{host}" for host in range(30)], ["192.0.2.7"]], runs=30)

    picture = plot_path(wide)

    said = words(picture)
    shown = sum(text.startswith("10.2.0.") for text in said)
    assert f"showing {shown + 3} of 33: at each TTL those that answered most" in said
    assert f"+ {30 - shown} more" in said
    assert picture.get_size_inches()[0] < 14
    assert_legible(picture)


def test_what_the_frame_lacks_is_noted() -> None:
    lost = Missing("answers", Gap.LOST, 3, "the socket's queue was full")

    assert "1 gap in this data: see netlab.coverage()" in words(plot_path(trace(LINE, missing=[lost])))


def test_foreign_names_are_drawn_as_they_stand() -> None:
    shown = words(plot_path(trace(LINE, names={"10.2.0.1": "$\\frac{1}{0}$"}, target="<b>$x$</b>")))

    assert "$\\frac{1}{0}$" in shown
    assert "Path to <b>$x$</b>" in shown


@pytest.mark.parametrize("hops", [HOPS.empty(), trace([None, None])], ids=["empty", "silent"])
def test_data_without_an_answer_is_a_picture_that_says_so(hops: pd.DataFrame) -> None:
    assert "There are no answered probes in this data" in words(plot_path(hops))


@pytest.mark.parametrize(
    ("path", "fix"),
    [
        (attempts([{}]), "netlab.traceroute()"),
        (nx.DiGraph([("a", "b")]), "netlab.path_graph()"),
        (nx.Graph(), "netlab.traceroute()"),
        (None, "netlab.traceroute()"),
    ],
)
def test_anything_else_is_refused_with_what_makes_the_right_thing(path: object, fix: str) -> None:
    with pytest.raises(BadInput) as refusal:
        plot_path(path)

    assert fix in refusal.value.fix


def test_light_and_dark_differ_and_the_paper_is_the_themes() -> None:
    light, dark = (plot_path(trace(LINE), theme=theme) for theme in ("light", "dark"))

    assert light.get_facecolor() != dark.get_facecolor()
    assert {text.get_color() for text in light.texts} <= {LIGHT.text, LIGHT.muted, LIGHT.bad}
