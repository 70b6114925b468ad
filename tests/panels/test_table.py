"""The table that shows any frame: what the browser is sent, and what it may ask for."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from netlab.panels.table import Field, Table, number, said
from netlab.views.text import DASH

HOSTILE = ["<script>alert(1)</script>", "a\u202eevil\u202c", "n" * 10_000, "line\nbreak\x1b[31m"]


def frame_of(count: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "name": pd.array([f"name {n}" for n in range(count)], "string"),
            "size": pd.array([n % 7 if n % 5 else None for n in range(count)], "Int64"),
            "bad": [n % 10 == 3 for n in range(count)],
        }
    )


@pytest.fixture
def table() -> Table:
    return Table(
        [
            Field("name", "Name", "who", by="name", text=said("name", str)),
            number("size", "Size", "how big", str),
        ],
        searched=["name"],
        identity=["name"],
        order=lambda rows: np.arange(len(rows))[::-1],
        bad=lambda rows: rows["bad"].to_numpy(bool),
    )


def ask(table: Table, **change: object) -> None:
    table.asked = {**table.asked, **change}


def names(table: Table) -> list[str]:
    return [row["cells"][0] for row in table.view["rows"]]


def test_rows_come_in_the_given_order_until_the_user_sorts(table: Table) -> None:
    table.show(frame_of(5))

    assert names(table) == ["name 4", "name 3", "name 2", "name 1", "name 0"]


def test_only_a_window_of_a_long_table_is_sent(table: Table) -> None:
    table.show(frame_of(10_000))
    ask(table, offset=5_000)

    assert (table.view["total"], table.view["matching"], table.view["offset"]) == (10_000, 10_000, 5_000)
    assert names(table)[0] == "name 4999"
    assert len(table.view["rows"]) < 100


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("192.0.2.1:80", [0]),
        ("[2001:db8::1]:443", [1]),
        ("curl (17)", [0]),
        ("192.0.2.9", [2]),
        ("(", []),
        (":80", [0]),
    ],
)
def test_what_stands_in_a_cell_is_found_as_it_is_shown(words: str, found: list[int]) -> None:
    table = Table(
        [Field("peer", "Peer", "who", by="address", text=lambda rows: [str(n) for n in rows["row"]])],
        searched=["process", "pid", ("address", "port")],
        identity=["row"],
        order=lambda rows: np.arange(len(rows)),
        bad=lambda rows: np.zeros(len(rows), bool),
    )
    table.show(
        pd.DataFrame(
            {
                "row": [0, 1, 2],
                "process": pd.array(["curl", "curl", "nginx"], "string"),
                "pid": pd.array([17, 18, None], "Int64"),
                "address": pd.array(["192.0.2.1", "2001:db8::1", "192.0.2.9"], "string"),
                "port": pd.array([80, 443, None], "Int64"),
            }
        )
    )

    ask(table, words=words)

    assert [int(row["cells"][0]) for row in table.view["rows"]] == found


@pytest.mark.parametrize("descending", [False, True])
def test_sorting_by_a_number_leaves_missing_values_last(table: Table, *, descending: bool) -> None:
    table.show(frame_of(20))
    ask(table, sort="size", descending=descending)

    sizes = [row["cells"][1] for row in table.view["rows"]]
    known = [int(size) for size in sizes if size != DASH]
    assert known == sorted(known, reverse=descending)
    assert set(sizes[len(known) :]) == {DASH}


def test_every_word_of_the_filter_must_be_in_a_row(table: Table) -> None:
    table.show(frame_of(200))
    ask(table, words="NAME 19")

    assert table.view["matching"] == len([n for n in range(200) if "19" in str(n)])
    assert table.view["total"] == 200


def test_sorting_filter_and_selection_stay_when_the_frame_changes(table: Table) -> None:
    table.show(frame_of(30))
    ask(table, sort="name", words="name 1")
    ask(table, selected=table.view["rows"][2]["key"])
    before = names(table)

    changed = frame_of(30)
    changed["size"] = pd.array([99] * 30, "Int64")
    table.show(changed)

    assert names(table) == before
    assert (table.selected["name"], table.selected["size"]) == (before[2], 99)


def test_a_selected_row_that_is_gone_stays_as_it_was(table: Table) -> None:
    table.show(frame_of(3))
    ask(table, selected=table.view["rows"][0]["key"])
    table.show(frame_of(2))

    assert table.selected["name"] == "name 2"


def test_a_filter_that_leaves_less_than_the_scrolled_to_place_shows_the_end(table: Table) -> None:
    table.show(frame_of(1000))
    ask(table, offset=900, words="77")

    assert table.view["matching"] == len([n for n in range(1000) if "77" in str(n)])
    assert len(table.view["rows"]) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"offset": "x"},
        {"offset": -5},
        {"offset": 10**30},
        {"sort": "no such column"},
        {"sort": 7},
        {"words": None},
        {"selected": "9" * 40},
        {"selected": "<b>"},
        {"descending": "yes"},
    ],
    ids=str,
)
def test_nonsense_from_the_browser_is_left_out(table: Table, change: dict[str, object]) -> None:
    table.show(frame_of(5))
    ask(table, **change)

    assert table.view["total"] == 5
    assert table.view["rows"]
    assert table.selected is None


@pytest.mark.parametrize("text", HOSTILE, ids=["tag", "bidi", "long", "control"])
def test_foreign_text_is_bounded_and_shows_its_hidden_characters(table: Table, text: str) -> None:
    frame = frame_of(1)
    frame["name"] = pd.array([text], "string")
    table.show(frame)

    (shown,) = names(table)
    assert len(shown) <= 200
    assert shown.isprintable()


def test_an_empty_frame_is_shown_as_no_rows(table: Table) -> None:
    table.show(frame_of(0))

    assert table.view == {"rows": [], "offset": 0, "matching": 0, "total": 0}
