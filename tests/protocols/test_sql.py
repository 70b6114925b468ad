from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from netlab.protocols.sql import Statement, fingerprint, statement

CASES = tomllib.loads((Path(__file__).parents[1] / "data/protocols/sql.toml").read_text())["cases"]
HIDDEN = "hunter2"
FORMS = [
    "'{}'",
    "'x''{}'",
    "E'\\'{}'",
    "$tag${}$tag$",
    "$${}$$",
    "N'{}'",
    "U&'{}'",
    "/* {} */ 1",
    "1 -- {}\n",
    "'x\\'{}'",
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["sql"][:40])
def test_a_statement_has_its_command_and_tables(case: dict[str, Any]) -> None:
    found = statement(case["sql"])

    assert (found.operation, list(found.tables)) == (case.get("operation"), case["tables"])


@given(st.sampled_from(FORMS), st.sampled_from(FORMS), st.integers(0, 60))
def test_no_value_is_left_in_a_fingerprint(one: str, other: str, end: int) -> None:
    values = one.format(HIDDEN), other.format(HIDDEN)
    text = "SELECT a FROM t WHERE x = {} AND y IN (123456789, {}) AND z = 1".format(*values)  # noqa: S608
    cut = text[: len(text) - end]

    for bare in (fingerprint(text), fingerprint(cut)):
        assert HIDDEN not in bare
        assert "123456789" not in bare
    assert HIDDEN not in repr(statement(text))


@pytest.mark.parametrize(
    "text",
    [
        "select 1 --x\r, 'a\n from hunter2 '",  # a carriage return ends a comment,
        "select 1 --x\f from hunter2",  # and these are blanks within it
        "select 1 --x\v from hunter2",
        "select 1 --x\u2028 from hunter2",
        "select 1 --x\x85 from hunter2",
        "select a#'b' from t --' from hunter2",  # an operator
        "select 1 a$$, '$$ from hunter2 '",  # dollars of a name
        "select 1 a\u20ac$$, '$$ from hunter2 '",
        "select 1 \xa0$$, '$$ from hunter2 '",
        "select $\u20ac$ from hunter2 $\u20ac$",  # a name of a text
        "select $1$$ from hunter2 $$",
        "select 1e5$$ from hunter2 $$",
        "select 0x1F$$ from hunter2 $$",  # a text behind a number, since PostgreSQL 16,
        "select 0x1F$$, '$$ from hunter2 '",  # before that a name behind 0
        "select 1._0$$, '$$ from hunter2 '",
        "select 1*/* 'a */ 'b' --' from hunter2",
        "copy /*/ from hunter2 */ t to 'hunter2'",
    ],
)
def test_what_postgresql_takes_for_a_value_or_a_comment_is_not_shown(text: str) -> None:
    for shown in (fingerprint(text), repr(statement(text))):
        assert HIDDEN not in shown


@given(st.text(alphabet="selct frominwh*(),;'\"$\\/-e1_\u20ac\r\n", max_size=200))
def test_any_text_is_read(text: str) -> None:
    found = statement(text)

    assert found.operation is None or found.operation.isidentifier()


def test_the_same_statement_with_other_values_has_the_same_fingerprint() -> None:
    one = fingerprint("INSERT INTO t VALUES (1, 'a'), (2, 'b')")

    assert (
        one
        == fingerprint("INSERT  INTO t VALUES (7, 'c'),\n (8, 'd'), (9, '')")
        == "INSERT INTO t VALUES (0)"
    )


@pytest.mark.parametrize(
    "text",
    ["SELECT * FROM a /* b /* c */, secret --*/", "SELECT * FROM a /* b/c /*/ d */, secret */ --*/"],
)
def test_of_a_statement_with_a_comment_in_a_comment_only_its_command_is_left(text: str) -> None:
    assert statement(text) == Statement("SELECT")
