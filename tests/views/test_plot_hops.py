from __future__ import annotations

import pandas as pd
import pytest
from matplotlib import colors
from matplotlib.collections import LineCollection
from pictures import assert_legible, attempts, place, texts, trace, words

from netlab.errors import BadInput
from netlab.frames import Gap, Missing, concat
from netlab.schemas import HOPS
from netlab.views.hops import plot_hops
from netlab.views.theme import DARK, LIGHT

V6 = [[f"2001:db8:1234:5678:9abc:def0:{ttl:x}234:5678"] for ttl in range(1, 15)]
BRANCHES = [["10.1.0.1"], ["10.2.0.1", "10.2.0.2", "10.2.0.3"], None, ["192.0.2.7"]]
LOOP = trace([["10.1.0.1"], *[["10.2.0.1"], ["10.2.0.2"]] * 4], reached=False)
NAMES = {
    hop[0]: f"xe-{ttl}.a-router-with-a-very-long-name.backbone.example.net" for ttl, hop in enumerate(V6)
}


@pytest.mark.parametrize(
    "hops",
    [
        trace([["127.0.0.1"]], runs=1, target="127.0.0.1"),
        trace(V6, names=NAMES, target="a-database-with-a-very-long-name.eu-central-1.example.net"),
        trace(BRANCHES, names={"10.2.0.2": "core.example"}, lost=[(0, 1)]),
        trace([["10.0.0.1"], *[None] * 29]),
        trace([None] * 5),
        LOOP,
        trace([[f"10.0.0.{hop}"] for hop in range(12)], rtt_ms=lambda ttl: 0.05 * 2.5**ttl),
        pd.concat([trace(BRANCHES), trace(V6, target="other.example")], ignore_index=True),
    ],
    ids=["one hop", "long v6", "branches", "dead end", "silence", "loop", "wide range", "two targets"],
)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_text_overlaps_another_or_leaves_the_picture(hops: pd.DataFrame, theme: str) -> None:
    assert_legible(plot_hops(hops, theme=theme))


def test_targets_that_could_not_be_probed_are_not_drawn_but_counted() -> None:
    failed = HOPS.frame({"target": ["no such host"], "error": ["cannot resolve"]})
    said = "1 target could not be probed: see the column error"

    drawn = words(plot_hops(concat([trace(BRANCHES), failed])))

    assert sorted(drawn) == sorted([said, *words(plot_hops(trace(BRANCHES)))])
    assert said in words(plot_hops(failed))


def test_every_address_has_its_row_with_ttl_median_and_loss() -> None:
    picture = plot_hops(trace([["10.1.0.1"], ["10.2.0.1"], ["192.0.2.7"]], lost=[(0, 2)]))
    rows: dict[float, list[str]] = {}
    for text in sorted(texts(picture), key=lambda text: place(text).x0):
        middle = (place(text).y0 + place(text).y1) / 2
        rows.setdefault(round(middle / 6), []).append(text.get_text())

    assert ["1", "10.1.0.1", "3.30 ms", "0 %"] in rows.values()
    assert ["2", "10.2.0.1", "6.90 ms", "33 % (1/3)"] in rows.values()
    assert ["3", "192.0.2.7", "9.90 ms", "0 %"] in rows.values()


def test_every_probe_is_a_dot_at_its_time() -> None:
    hops = trace([["10.1.0.1"], ["192.0.2.7"]])

    (axes,) = plot_hops(hops).axes
    drawn = sorted(x for line in axes.lines for x in line.get_xdata())

    assert drawn == pytest.approx(sorted(hops["rtt_ms"]))


def test_bars_span_the_least_to_the_most_and_lines_mark_the_median() -> None:
    (axes,) = plot_hops(trace([["192.0.2.7"]])).axes
    ends = [
        tuple(segment[:, 0])
        for collection in axes.collections
        if isinstance(collection, LineCollection)
        for segment in collection.get_segments()
    ]

    assert pytest.approx((3.0, 3.6)) in ends
    assert pytest.approx((3.3, 3.3)) in ends


def test_a_silent_hop_says_no_answer_and_long_silence_takes_one_row() -> None:
    shown = words(plot_hops(trace([["10.1.0.1"], None, ["10.3.0.1"], *[None] * 27], reached=False)))

    assert shown.count("no answer") == 2
    assert "4\u201330" in shown
    assert "100 % (81/81)" in shown


def test_the_title_names_the_target_and_the_notes_say_what_was_sent() -> None:
    shown = words(plot_hops(trace([["10.1.0.1"], ["192.0.2.7"]], lost=[(1, 1)])))

    assert "Round-trip time per hop to db.example (192.0.2.7)" in shown
    assert any("6 probes · 3 runs · 1 flow · 1 without answer (17 %)" in text for text in shown)
    assert any("destination reached at TTL 2" in text for text in shown)
    assert any("udp port 33434 · 2025-11-21 01:30:32 UTC" in text for text in shown)


def test_the_destination_stands_out_and_an_unreached_one_is_said() -> None:
    reached, unreached = (plot_hops(trace([["10.1.0.1"], ["192.0.2.7"]], reached=r)) for r in (True, False))
    weights = {text.get_text(): text.get_weight() for text in texts(reached)}

    assert (weights["10.1.0.1"], weights["192.0.2.7"]) == ("normal", "bold")
    assert any("destination not reached" in text for text in words(unreached))


def test_a_routing_loop_is_named() -> None:
    said = "a routing loop of 2 routers: packets come back to 10.2.0.1, which answers at TTL 2, 4, 6, 8"

    assert any(text.startswith(said) for text in words(plot_hops(LOOP)))


def test_the_axis_has_its_unit_and_is_logarithmic_only_for_a_wide_range() -> None:
    near, far = (
        plot_hops(trace([["10.1.0.1"], ["192.0.2.7"]], rtt_ms=f)) for f in (float, lambda t: 200.0**t)
    )

    assert near.axes[0].get_xscale() == "linear"
    assert near.axes[0].get_xlim()[0] == 0
    assert "(ms)" in near.axes[0].get_xlabel()
    assert far.axes[0].get_xscale() == "log"
    assert "(ms, logarithmic)" in far.axes[0].get_xlabel()


def test_an_axis_of_very_long_times_has_plain_numbers() -> None:
    axes = plot_hops(trace([["10.1.0.1"], ["192.0.2.7"]], rtt_ms=lambda ttl: 1e6 * ttl)).axes[0]

    axes.figure.canvas.draw()

    assert axes.xaxis.get_offset_text().get_text() == ""
    assert "1000000" in [label.get_text() for label in axes.get_xticklabels()]


def test_what_the_frame_lacks_is_noted_and_nothing_when_it_lacks_nothing() -> None:
    gap = Missing("answers", Gap.LOST, 3, "the socket's queue was full")

    noted, silent = (words(plot_hops(trace([["192.0.2.7"]], missing=gaps))) for gaps in ([gap], []))

    assert "1 gap in this data: see netlab.coverage()" in noted
    assert not any("coverage" in text for text in silent)


def test_more_targets_than_fit_are_said_to_be_left_out() -> None:
    many = pd.concat([trace([["192.0.2.7"]], target=f"host{number}.example") for number in range(6)])

    picture = plot_hops(many)

    assert len(picture.axes) == 4
    assert "showing the first 4 of 6 targets" in words(picture)


def test_more_addresses_than_fit_are_said_to_be_left_out() -> None:
    wide = trace([[f"10.0.0.{host}" for host in range(100)]], runs=100, reached=False)

    assert "showing the first 64 of 100 rows" in words(plot_hops(wide))


@pytest.mark.parametrize(("name", "theme"), [("light", LIGHT), ("dark", DARK)])
def test_the_paper_has_the_colour_of_the_theme(name: str, theme: object) -> None:
    picture = plot_hops(trace([["192.0.2.7"]]), theme=name)

    assert colors.to_hex(picture.get_facecolor()) == theme.background  # type: ignore[attr-defined]


def test_an_empty_frame_is_a_picture_that_says_so() -> None:
    assert "There are no probes in this frame" in words(plot_hops(HOPS.empty()))


@pytest.mark.parametrize(
    ("frame", "problem"),
    [
        (attempts([{}]), "needs the column 'target', which this connections frame lacks"),
        (trace([["192.0.2.7"]]).drop(columns="rtt_ms"), "needs the column 'rtt_ms'"),
        (trace([["192.0.2.7"]]).assign(ttl=pd.NA), "'ttl' in every row"),
        (trace([["192.0.2.7"]]).assign(rtt_ms="fast"), "cannot read"),
        ("192.0.2.7", "not str objects"),
    ],
)
def test_another_kind_of_frame_is_refused_with_what_makes_the_right_one(frame: object, problem: str) -> None:
    with pytest.raises(BadInput, match=problem) as refusal:
        plot_hops(frame)

    assert "netlab.traceroute()" in refusal.value.fix


def test_an_unknown_option_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(BadInput, match="Did you mean 'theme'"):
        plot_hops(trace([["192.0.2.7"]]), them="dark")
