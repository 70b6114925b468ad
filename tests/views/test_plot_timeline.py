from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from pictures import assert_legible, attempts, place, texts, trace, words

from netlab.errors import BadInput
from netlab.frames import Gap, Missing
from netlab.schemas import CONNECTIONS
from netlab.views.theme import LIGHT
from netlab.views.timeline import plot_timeline

LONG = {
    "process": "a-process-with-a-name-longer-than-comm",
    "remote_address": "2001:db8:1234:5678:9abc:def0:1234:5678",
    "remote_port": 65535,
    "protocol": "udp",
}


def many(count: int, every_s: float) -> pd.DataFrame:
    errors = ["ECONNREFUSED", None, None, "ETIMEDOUT", None]
    return attempts(
        [
            {"at_s": row * every_s, "end_s": (row + 3) * every_s, "error": errors[row % 5]} | LONG
            for row in range(count)
        ]
    )


def bars(axes: Axes, colour: str) -> list[tuple[float, float]]:
    """Return from where to where opaque bars of *colour* go, in order of their rows."""
    found = [
        patch
        for patch in axes.patches
        if isinstance(patch, Rectangle)
        and patch.get_alpha() is None
        and colors.to_hex(patch.get_facecolor()) == colour
    ]
    found.sort(key=lambda bar: bar.get_y())
    return [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in found]


@pytest.mark.parametrize(
    "connections",
    [
        attempts([{"at_s": 0, "end_s": 0}]),
        many(12, 1),
        many(200, 10),
        many(40, 0.0001),
        many(40, 7200),
        many(30, 86_400),
        attempts([{"at_s": row, "age_s": 50.0 - row} for row in range(40)]),
    ],
    ids=["no time", "seconds", "cut", "milliseconds", "days", "weeks", "all open"],
)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_text_overlaps_another_or_leaves_the_picture(connections: pd.DataFrame, theme: str) -> None:
    assert_legible(plot_timeline(connections, theme=theme))


def test_every_attempt_is_a_bar_from_its_opening_to_its_closing_in_order_of_opening() -> None:
    picture = plot_timeline(attempts([{"at_s": 5, "end_s": 6}, {"at_s": 1, "end_s": 9}]), theme="light")

    assert bars(picture.axes[0], LIGHT.main) == [pytest.approx((0, 8)), pytest.approx((4, 5))]


def test_the_handshake_has_its_own_tone_and_its_true_length() -> None:
    picture = plot_timeline(attempts([{"at_s": 0, "end_s": 2, "connect_ms": 250.0}]), theme="light")

    assert bars(picture.axes[0], LIGHT.second) == [pytest.approx((0, 0.25))]


def test_a_datagram_nobody_answered_is_not_drawn_as_a_connection() -> None:
    udp = {"protocol": "udp", "direction": "outgoing", "at_s": 0, "end_s": 3}
    picture = plot_timeline(attempts([{**udp, "assured": False}, {**udp, "assured": True}]), theme="light")

    assert bars(picture.axes[0], LIGHT.second) == [pytest.approx((0, 3))]
    assert bars(picture.axes[0], LIGHT.main) == [pytest.approx((0, 3))]
    assert "connecting · no answer (UDP)" in words(picture)


def test_an_attempt_that_failed_before_its_first_packet_does_not_go_on() -> None:
    unsent = {"at_s": 1, "error": "ENETUNREACH", "state": "closed"}
    picture = plot_timeline(attempts([{"at_s": 0, "end_s": 9}, unsent]), theme="light")

    assert bars(picture.axes[0], LIGHT.bad) == [pytest.approx((1, 1))]


def test_an_attempt_that_never_connected_is_in_the_failing_colour_with_its_errno() -> None:
    picture = plot_timeline(
        attempts([{"at_s": 0, "end_s": 3, "error": "ETIMEDOUT"}, {"at_s": 1, "end_s": 2}]), theme="light"
    )
    (errno,) = [text for text in texts(picture) if text.get_text() == "ETIMEDOUT"]
    (label, _) = [text for text in texts(picture) if "curl" in text.get_text()]

    assert bars(picture.axes[0], LIGHT.bad) == [pytest.approx((0, 3))]
    assert errno.get_color() == LIGHT.bad
    assert abs(place(errno).y0 - place(label).y0) < 5


def test_a_connection_that_broke_later_is_not_drawn_as_one_that_never_was() -> None:
    broken = attempts([{"at_s": 0, "end_s": 3, "connect_ms": 10.0, "error": "ECONNRESET"}])

    picture = plot_timeline(broken, theme="light")

    assert bars(picture.axes[0], LIGHT.bad) == []
    assert bars(picture.axes[0], LIGHT.main) == [pytest.approx((0, 3))]
    assert "ECONNRESET" in words(picture)


def fading(axes: Axes) -> list[float]:
    return [patch.get_x() for patch in axes.patches if patch.get_alpha() is not None]


def test_an_open_connection_fades_out_after_the_last_known_time() -> None:
    (axes,) = plot_timeline(attempts([{"at_s": 0, "age_s": 10.0}])).axes

    assert min(fading(axes)) == pytest.approx(10)
    assert max(fading(axes)) < axes.get_xlim()[1]


def test_a_connection_open_before_the_start_fades_in_and_comes_first() -> None:
    picture = plot_timeline(attempts([{"at_s": 0, "end_s": 10}, {"end_s": 4, "process": "sshd"}]))
    names = [text for text in words(picture) if "192.0.2.1" in text]

    assert min(fading(picture.axes[0])) < 0
    assert names == ["sshd → 192.0.2.1:443", "curl → 192.0.2.1:443"]


@pytest.mark.parametrize(
    ("row", "label"),
    [
        ({}, "curl → 192.0.2.1:443"),
        ({"direction": "incoming"}, "curl ← 192.0.2.1:443"),
        ({"direction": "unknown"}, "curl \u2013 192.0.2.1:443"),
        ({"remote_address": "2001:db8::1"}, "curl → [2001:db8::1]:443"),
        ({"remote_name": "db.example", "remote_port": 5432}, "curl → db.example:5432"),
        ({"protocol": "udp", "remote_port": 53}, "curl → 192.0.2.1:53/udp"),
        ({"process": None, "pid": 17}, "pid 17 → 192.0.2.1:443"),
        ({"process": None}, "unknown process → 192.0.2.1:443"),
        ({"process": "$x^2$\n" + "a" * 99}, "$x^2$\\naaaaaaaaaaaaaaaa… → 192.0.2.1:443"),
    ],
)
def test_labels_say_who_talks_to_whom(row: dict[str, Any], label: str) -> None:
    assert label in words(plot_timeline(attempts([{"at_s": 0, "end_s": 1} | row])))


def test_failures_are_kept_when_there_are_too_many_rows_and_the_cut_is_said() -> None:
    rows = [{"at_s": at, "end_s": at + 1, "error": "ECONNREFUSED" if at >= 95 else None} for at in range(100)]

    shown = words(plot_timeline(attempts(rows), rows=20))

    assert shown.count("ECONNREFUSED") == 5
    assert sum("curl" in text for text in shown) == 20
    assert "showing 20 of 100: failures first, then the earliest" in shown
    assert "100 attempts · 5 failed · 0 still open" in shown


@pytest.mark.parametrize(
    ("span_s", "label"),
    [
        (0.02, "milliseconds since 2025-11-21 01:30:32.123456 UTC"),
        (20, "seconds since 2025-11-21 01:30:32.123456 UTC"),
        (2000, "time (UTC), 2025-11-21 01:30:32 to 2025-11-21 02:03:52"),
    ],
)
def test_the_time_axis_names_its_unit_and_utc(span_s: float, label: str) -> None:
    (axes,) = plot_timeline(attempts([{"at_s": 0, "end_s": span_s}])).axes

    assert axes.get_xlabel() == label


def test_clock_times_stand_where_they_belong() -> None:
    (axes,) = plot_timeline(attempts([{"at_s": 0, "end_s": 2000}])).axes
    ticks = {
        label.get_text(): place
        for place, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
    }

    assert ticks["01:40"] == pytest.approx(9 * 60 + 28 - 0.123456789)


def test_midnight_carries_the_date() -> None:
    (axes,) = plot_timeline(attempts([{"at_s": 0, "end_s": 2 * 86_400}])).axes

    assert "00:00\n11-22" in [label.get_text() for label in axes.get_xticklabels()]


def test_what_the_frame_lacks_is_noted() -> None:
    lost = Missing("events", Gap.LOST, 3, "the ring buffer was full")

    assert "1 gap in this data: see netlab.coverage()" in words(
        plot_timeline(attempts([{"at_s": 0}], [lost]))
    )


def test_an_empty_frame_is_a_picture_that_says_so() -> None:
    assert "There are no connections in this frame" in words(plot_timeline(CONNECTIONS.empty()))


def test_a_snapshot_without_times_says_what_would_have_them() -> None:
    shown = words(plot_timeline(attempts([{}, {}])))

    assert "2 connections, none with a known time: netlab.capture() sees when they open and close" in shown


def test_another_kind_of_frame_is_refused_with_what_makes_the_right_one() -> None:
    with pytest.raises(BadInput, match="hops frame lacks") as refusal:
        plot_timeline(trace([["192.0.2.7"]]))

    assert "netlab.capture().connections()" in refusal.value.fix


@pytest.mark.parametrize("rows", [0, 501, 1.5, True])
def test_a_row_limit_out_of_range_is_refused(rows: Any) -> None:
    with pytest.raises(BadInput, match="rows"):
        plot_timeline(attempts([{"at_s": 0}]), rows=rows)
