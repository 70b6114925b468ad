from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib import colors
from pictures import assert_legible, words

from netlab.errors import BadInput
from netlab.frames import Gap, Missing
from netlab.schemas import CONNECTIONS, DNS
from netlab.views.dns import plot_dns
from netlab.views.theme import LIGHT


def lookups(*rows: dict[str, Any], missing: tuple[Missing, ...] = ()) -> pd.DataFrame:
    whole = [{"rcode": "NOERROR", "server_address": "192.0.2.53", "retries": 0, **row} for row in rows]
    names = {name for row in whole for name in row}
    return DNS.frame({name: [row.get(name) for row in whole] for name in names}, missing)


def answers(*times_ms: float, **row: Any) -> list[dict[str, Any]]:
    return [{"answer_ms": time_ms, **row} for time_ms in times_ms]


TIMEOUT = {"rcode": "timeout", "answer_ms": None}
SILENT = {"server_address": "2001:db8:1234:5678:9abc:def0:1234:5353", **TIMEOUT}
MIXED = [
    *answers(*np.geomspace(0.2, 40, 300)),
    *answers(0.4, 0.5, rcode="NXDOMAIN"),
    *answers(900, 1100, rcode="SERVFAIL", server_address="192.0.2.54"),
    TIMEOUT,
    SILENT,
]


@pytest.mark.parametrize(
    "rows",
    [answers(1.0), MIXED, [TIMEOUT], [SILENT] * 3, [{**answers(0.0)[0], "silent_servers": "192.0.2.9"}]],
    ids=["one", "mixed", "a timeout", "silence", "an answer at once"],
)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_text_overlaps_another_or_leaves_the_picture(rows: list[dict[str, Any]], theme: str) -> None:
    assert_legible(plot_dns(lookups(*rows), theme=theme))


def test_every_answer_is_a_dot_at_the_server_s_own_time() -> None:
    (axes,) = plot_dns(lookups(*answers(1.0, 2.0, 5.0, latency_ms=5000.0))).axes

    assert sorted(x for line in axes.lines for x in line.get_xdata()) == [1.0, 2.0, 5.0]


def test_of_very_many_answers_the_slowest_and_fastest_are_among_the_dots() -> None:
    times = np.linspace(1, 50, 10_000)

    (axes,) = plot_dns(lookups(*answers(*times))).axes
    (dots,) = (line.get_xdata() for line in axes.lines)

    assert (len(dots), dots[0], dots[-1]) == (200, 1, 50)


def test_servers_in_trouble_come_first_and_are_marked() -> None:
    picture = plot_dns(
        lookups(*answers(1, 2, 3), *answers(4, server_address="192.0.2.54"), SILENT), theme="light"
    )

    said = words(picture)
    bad = {text.get_text() for text in picture.texts if colors.to_hex(text.get_color()) == LIGHT.bad}

    assert said.index(SILENT["server_address"]) < said.index("192.0.2.53") < said.index("192.0.2.54")
    assert "timeout" in bad
    assert any("no answer" in word for word in said)


def test_what_netlab_has_not_seen_is_no_fault_of_a_server() -> None:
    unseen = {"rcode": "missed", "answer_ms": None, "server_address": "192.0.2.54"}
    picture = plot_dns(lookups(*answers(1, 2), unseen, TIMEOUT), theme="light")

    said = words(picture)
    bad = {text.get_text() for text in picture.texts if colors.to_hex(text.get_color()) == LIGHT.bad}

    assert said.index("192.0.2.53") < said.index("192.0.2.54")
    assert "missed" not in bad
    assert "timeout" in bad


def test_a_server_that_others_stood_in_for_has_a_row() -> None:
    said = words(plot_dns(lookups(*answers(1, silent_servers="192.0.2.9 192.0.2.9", retries=2))))

    assert {"192.0.2.9", "others answered"} <= set(said)


def test_servers_beyond_the_limit_and_gaps_are_told() -> None:
    rows = [row for n in range(5) for row in answers(1, server_address=f"192.0.2.{n}")]
    gap = Missing("dns", Gap.LOST, 3, "too many")

    said = " ".join(words(plot_dns(lookups(*rows, missing=(gap,)), servers=2)))

    assert "2 of 5 servers" in said
    assert "1 gap in this data" in said


def test_an_empty_frame_says_so_and_another_frame_is_refused() -> None:
    assert "There are no lookups in this frame" in words(plot_dns(DNS.empty()))
    with pytest.raises(BadInput, match="plot_dns"):
        plot_dns(CONNECTIONS.empty())
