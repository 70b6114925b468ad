"""Foreign text in panels."""

from __future__ import annotations

import html

import pandas as pd
import pytest
from hypothesis import given, strategies as st

from netlab.errors import BadInput
from netlab.frames import Gap, Missing
from netlab.panels import LiveConntrack
from netlab.panels.facts import facts, gaps
from netlab.panels.words import clock, ends, escaped, fault
from netlab.schemas import CONNECTIONS, CONNTRACK
from netlab.views.text import DASH


@given(st.text(alphabet="<>&\"'abc/ \u202e\n"))
def test_escaped_text_has_no_markup(text: str) -> None:
    assert not set(escaped(text)) & set("<>\"'\n\u202e")


def test_ends_of_ipv6_are_in_brackets_and_what_is_missing_is_a_dash() -> None:
    addresses = pd.Series(["192.0.2.1", "2001:db8::1", pd.NA, "192.0.2.2"], dtype="string")
    ports = pd.Series([80, 443, 5, pd.NA], dtype="Int64")

    assert ends(addresses, ports) == ["192.0.2.1:80", "[2001:db8::1]:443", DASH, "192.0.2.2"]


def test_the_facts_of_a_row_are_escaped_and_have_their_units() -> None:
    data = {"process": ["<script>alert(1)</script>"], "rtt_ms": [1.25], "bytes_sent": [7]}
    row = CONNECTIONS.frame(data).iloc[0]

    shown = facts(row, CONNECTIONS)

    assert "<script" not in shown
    assert "&lt;script&gt;" in shown
    assert "<dd>1.25 ms</dd>" in shown
    assert "<dd>7 bytes</dd>" in shown
    assert "<dt>remote_address" not in shown
    assert "remote_address" in shown.partition("Not known: ")[2]


def test_a_tracked_connection_without_an_answer_is_told_in_words_too() -> None:
    panel = LiveConntrack(translated=False)
    status = ["seen-reply|assured|confirmed", "confirmed", "confirmed", None]
    states = ["ESTABLISHED", "SYN_SENT", None, None]
    panel.table.show(CONNTRACK.frame({"state": states, "status": status, "timeout_s": [4, 3, 2, 1]}))

    rows = [(row["cells"][6], row["bad"]) for row in panel.table.view["rows"]]

    panel.close()
    assert rows == [
        ("ESTABLISHED", False),
        ("SYN_SENT, no answer", True),
        ("no answer", True),
        (DASH, False),
    ]


def test_losses_come_first_and_are_open_to_see() -> None:
    frame = CONNECTIONS.empty(
        [
            Missing("rtos", Gap.UNAVAILABLE, None, "an old kernel"),
            Missing("connections", Gap.LOST, 12, "the <ring> was full"),
        ]
    )

    shown = gaps(frame.attrs["coverage"])

    assert "<details" in shown
    assert " open>" in shown
    assert shown.index("lost (12): connections: the &lt;ring&gt; was full") < shown.index("an old kernel")


def test_nothing_missing_is_said_too() -> None:
    assert "Nothing is missing" in gaps([])


@pytest.mark.parametrize(
    ("age_s", "of_s", "said"),
    [(0.9, None, ">0:00<"), (75.2, None, ">1:15<"), (3661, None, ">1:01:01<"), (61.5, 60, ">1:00 of 1:00<")],
)
def test_how_long_it_has_lasted_is_told_in_hours_minutes_and_seconds(
    age_s: float, of_s: float | None, said: str
) -> None:
    assert said in clock(age_s, of_s)


def test_an_error_of_ours_is_told_with_its_fix_and_another_with_its_kind() -> None:
    assert ">no <such> thing. Make one<" in html.unescape(fault(BadInput("no <such> thing", fix="Make one")))
    assert ">KeyError: 'x'<" in html.unescape(fault(KeyError("x")))
