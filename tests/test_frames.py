from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp

from netlab.columns import Kind, categories
from netlab.errors import BadInput
from netlab.frames import Column, Gap, Missing, Schema, attached, concat, coverage

EACH = Schema("each", tuple(Column(kind.name.lower(), kind, f"a {kind.name.lower()}") for kind in Kind))
LOST = Missing("events", Gap.LOST, 3, "the buffer was full")
UNSEEN = Missing("sockets", Gap.UNSEEN, None, "opened before")
NUMBERS = {
    "integer": (np.array([1, 0, -(2**63)]), [1, 0, -(2**63)]),
    "real": (np.array([0.0, 1.5, -2.0]), [0.0, 1.5, -2.0]),
    "flag": (np.array([True, False, True]), [True, False, True]),
    "text": (np.array(["a", "", "é"], object), ["a", "", "é"]),
    "category": (np.array(["x", "y", "x"], object), ["x", "y", "x"]),
    "time": (
        np.array([0, 1, 1_700_000_000_000_000_001]),
        [pd.Timestamp(n, unit="ns", tz="UTC") for n in (0, 1, 1_700_000_000_000_000_001)],
    ),
}


def test_joined_frames_keep_what_each_carries_besides() -> None:
    schema = Schema("kind", (Column("a", Kind.INTEGER, "a"),))
    plain, one, two = (schema.frame({"a": [1]}) for _ in range(3))
    one.attrs["account"], two.attrs["account"] = {"x": 1}, {"x": 2}

    both = concat([concat([plain, one]), two])

    assert attached(concat([plain, one]), "account") == [{"x": 1}]
    assert concat([plain, one]).attrs["account"] == {"x": 1}
    assert attached(both, "account") == [{"x": 1}, {"x": 2}]
    assert attached(plain, "account") == []
    assert (both.attrs["schema"], both.attrs["coverage"]) == ("kind", [])


@pytest.mark.parametrize("name", NUMBERS)
def test_values_come_out_as_they_went_in_typed(name: str) -> None:
    values, expected = NUMBERS[name]

    column = EACH.frame({name: values})[name]

    assert column.tolist() == expected
    assert str(column.dtype) == Kind[name.upper()].value


@pytest.mark.parametrize("name", NUMBERS)
@given(mask=hnp.arrays(bool, 3))
def test_a_masked_value_is_missing_and_no_other(name: str, mask: np.ndarray[Any, Any]) -> None:
    values, expected = NUMBERS[name]

    column = EACH.frame({name: np.ma.array(values, mask=mask)})[name]

    assert column.isna().tolist() == mask.tolist()
    kept = [value for value, hidden in zip(expected, mask, strict=True) if not hidden]
    assert column.dropna().tolist() == kept
    assert str(column.dtype) == Kind[name.upper()].value


@pytest.mark.parametrize("name", NUMBERS)
def test_none_in_a_list_is_missing(name: str) -> None:
    column = EACH.frame({name: [*NUMBERS[name][1], None]})[name]

    assert column.isna().tolist() == [False, False, False, True]
    assert str(column.dtype) == Kind[name.upper()].value


@pytest.mark.parametrize("dtype", [">u2", ">u4", "u1", "i8", ">u8"])
def test_numbers_of_any_width_and_byte_order_become_integers(dtype: str) -> None:
    assert EACH.frame({"integer": np.array([1, 2, 250], dtype)}).integer.tolist() == [1, 2, 250]


def test_columns_not_given_are_missing_in_their_dtype_and_order_is_the_schemas() -> None:
    frame = EACH.frame({"real": np.ones(2), "text": ["a", "b"]})

    assert list(frame.columns) == EACH.names
    assert frame.drop(columns=["real", "text"]).isna().all(axis=None)
    assert [str(dtype) for dtype in frame.dtypes] == [column.kind.value for column in EACH.columns]


def test_a_frame_does_not_change_with_the_arrays_it_was_made_from() -> None:
    values = np.array([1, 2])
    frame = EACH.frame({"integer": values})
    values[0] = 9

    assert frame.integer.tolist() == [1, 2]


def test_an_unknown_column_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(BadInput, match=r"each frames have no column 'intger'\. Did you mean 'integer'\?"):
        EACH.frame({"intger": np.ones(1)})


def test_an_empty_frame_is_its_own_and_no_other_one_changes_with_it() -> None:
    changed = EACH.empty([LOST])
    changed["other"] = 1
    changed.attrs["coverage"].append({})

    assert list(EACH.empty().columns) == EACH.names
    assert EACH.empty().attrs == {"schema": EACH.name, "coverage": []}
    assert EACH.empty().dtypes.equals(EACH.frame({}).dtypes)


def test_an_empty_frame_keeps_its_coverage() -> None:
    frame = EACH.empty([LOST])

    assert (len(frame), list(frame.columns)) == (0, EACH.names)
    assert coverage(frame).what.tolist() == ["events"]


def test_a_schema_describes_itself() -> None:
    assert EACH.describe().to_dict("records")[0] == {
        "column": "text",
        "dtype": "string",
        "unit": "",
        "meaning": "a text",
    }


def test_coverage_lists_the_gaps_with_unknown_counts_missing() -> None:
    found = coverage(EACH.frame({"real": np.ones(1)}, [LOST, UNSEEN]))

    assert found.what.tolist() == ["events", "sockets"]
    assert found.kind.tolist() == ["lost", "unseen"]
    assert found["count"].tolist() == [3, pd.NA]
    assert found.detail.tolist() == ["the buffer was full", "opened before"]


def test_nothing_missing_is_no_row() -> None:
    assert coverage(EACH.empty()).empty


@pytest.mark.parametrize(
    "derived",
    [
        lambda frame: frame[frame.integer > 1],
        lambda frame: frame.sort_values("integer"),
        lambda frame: frame.head(1),
        lambda frame: frame.copy(),
        copy.deepcopy,
        lambda frame: pickle.loads(pickle.dumps(frame)),  # noqa: S301 - our own bytes
    ],
    ids=["filter", "sort", "head", "copy", "deepcopy", "pickle"],
)
def test_coverage_survives_what_notebooks_do(derived: Any) -> None:
    frame = EACH.frame({"integer": np.array([2, 1, 3])}, [LOST])

    assert coverage(derived(frame)).equals(coverage(frame))


@pytest.mark.parametrize("frame", [pd.DataFrame({"a": [1]}), None, {"coverage": []}])
def test_a_frame_that_is_not_ours_has_no_coverage(frame: Any) -> None:
    with pytest.raises(BadInput, match="carries no coverage"):
        coverage(frame)


def test_frames_are_joined_with_all_that_any_of_them_lacks() -> None:
    first = EACH.frame({"category": np.array(["x", "y"], object)}, [LOST])
    second = EACH.frame({"category": np.array(["z"], object)}, [UNSEEN, LOST])

    joined = concat([first, second])

    assert joined.category.tolist() == ["x", "y", "z"]
    assert [str(dtype) for dtype in joined.dtypes] == [column.kind.value for column in EACH.columns]
    assert joined.index.tolist() == [0, 1, 2]
    assert set(coverage(joined).what) == {"events", "sockets"}


def test_frames_of_different_kinds_are_not_joined() -> None:
    other = Schema("other", EACH.columns)

    for parts in ([EACH.empty(), other.empty()], [EACH.empty(), pd.DataFrame()], []):
        with pytest.raises(BadInput, match="one kind"):
            concat(parts)


@given(st.lists(st.integers(0, 2), max_size=20))
def test_codes_become_names_and_unnamed_codes_are_missing(codes: list[int]) -> None:
    found = categories(np.array(codes, np.uint8), ["a", None, "b"])

    assert [None if pd.isna(name) else name for name in found] == [["a", None, "b"][code] for code in codes]
