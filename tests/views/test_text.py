from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest
from hypothesis import given, strategies as st

from netlab.foreign import visible
from netlab.views.text import DASH, counted, legible, milliseconds, octets, seconds, share


@pytest.mark.parametrize("shown_by", [legible, visible])
@given(text=st.text(), most=st.integers(1, 50))
def test_foreign_text_is_bounded_and_on_one_line(
    shown_by: Callable[[object, int], str], text: str, most: int
) -> None:
    shown = shown_by(text, most)

    assert len(shown) <= most
    assert shown.isprintable()


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30))
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert legible(text, 30) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("two\nlines", "two\\nlines"),
        ("gpj.\u202eexe", "gpj.\\u202eexe"),  # right-to-left override
        ("e\u0301\u0301", "e\\u0301\\u0301"),  # combining marks stack
        ("\U0001f4a9", "\\U0001f4a9"),  # no glyph in matplotlib's own font
        ("$x^2$", "$x^2$"),
        ("wörter слово", "wörter слово"),
    ],
)
def test_what_cannot_be_drawn_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert legible(text, 40) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [("gpj.\u202eexe", "gpj.\\u202eexe"), ("\x1b[31m", "\\x1b[31m"), ("\U0001f4a9 é", "\U0001f4a9 é")],
)
def test_a_browser_is_spared_only_what_is_not_seen(text: str, shown: str) -> None:
    assert visible(text, 40) == shown


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 9, "0 %"),
        (9, 9, "100 %"),
        (1, 3, "33 %"),
        (1, 1000, "under 1 %"),
        (999, 1000, "over 99 %"),
        (0, 0, "\u2013"),
    ],
)
def test_a_share_is_0_or_100_percent_only_when_it_is_exactly_that(part: int, whole: int, text: str) -> None:
    assert share(part, whole) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0424, "0.042 ms"),
        (0.5, "0.50 ms"),
        (12.34, "12.3 ms"),
        (99.96, "100 ms"),
        (999_999, "999999 ms"),
        (3e6, "50.0 min"),  # an answer to a long poll
        (None, "\u2013"),
    ],
)
def test_round_trip_times_have_two_or_three_digits(value: float | None, text: str) -> None:
    assert milliseconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.25, "250 ms"),
        (1, "1.00 s"),
        (119, "119 s"),
        (600, "10.0 min"),
        (9000, "2.50 h"),
        (864_000, "10.0 d"),
    ],
)
def test_durations_are_in_the_unit_they_are_read_best_in(value: float, text: str) -> None:
    assert seconds(value) == text


def test_nouns_agree_with_their_number() -> None:
    assert [counted(1, "hop"), counted(0, "hop"), counted(2, "address", "addresses")] == [
        "1 hop",
        "0 hops",
        "2 addresses",
    ]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (12_345, "12.3 kB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (54_200_000_000, "54.2 GB"),
        (3 * 10**15, "3000 TB"),
        (pd.NA, DASH),
    ],
)
def test_bytes_are_told_in_the_unit_they_are_read_best_in(value: object, shown: str) -> None:
    assert octets(value) == shown
