"""Typed columns: what one may hold, and the pandas array of what is given for it.

Missing values are `pd.NA` (`NaT` for times), never 0 or an empty string.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache
from types import NoneType
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa


class Kind(StrEnum):
    """What a column holds; the value is its pandas dtype."""

    TEXT = "string"
    CATEGORY = "category"
    INTEGER = "Int64"
    REAL = "Float64"
    FLAG = "boolean"
    TIME = "datetime64[ns, UTC]"


def all_missing(kind: Kind, rows: int) -> Any:
    """Return a column of *kind* in which nothing is known."""
    match kind:
        case Kind.TEXT:
            return pd.arrays.ArrowStringArray(pa.nulls(rows, pa.large_string()))
        case Kind.CATEGORY:
            return pd.Categorical.from_codes(np.full(rows, -1, np.int8), dtype=_names(()), validate=False)
        case _:
            return _from_numpy(kind, np.zeros(rows, np.int64), np.ones(rows, bool))


def typed(kind: Kind, values: Any) -> Any:
    """Turn *values* into the pandas array of *kind* without touching single rows where numpy can."""
    if isinstance(values, list):
        return _from_list(kind, values)
    if isinstance(values, pd.Series | pd.api.extensions.ExtensionArray | tuple):
        array = pd.array(values, dtype=kind.value)  # type: ignore[call-overload]
        is_wordless = kind is Kind.CATEGORY and not len(array.categories)  # pandas takes those for any type
        return all_missing(kind, len(array)) if is_wordless else array
    return _from_numpy(kind, np.ma.getdata(values), np.ma.getmaskarray(values))


def _from_list(kind: Kind, values: list[Any]) -> Any:
    """Return what pandas makes of *values*, but sooner: many frames are small, and their calls quick."""
    if kind is Kind.CATEGORY:
        return _categorical(values)
    if kind is Kind.TEXT and set(map(type, values)) <= {str, NoneType}:
        return pd.arrays.ArrowStringArray(pa.array(values, pa.large_string()))
    if kind in _MASKED:
        zero, array = _MASKED[kind]
        data, mask = np.array(values), np.zeros(len(values), np.bool_)
        if data.dtype == np.object_:
            mask = np.array([value is None for value in values], np.bool_)
            data = np.array([zero if value is None else value for value in values])
        if data.dtype == _DTYPES[kind]:  # else pandas knows what to make of it, or refuses
            return array(data, mask | np.isnan(data) if kind is Kind.REAL else mask)
    return pd.array(values, dtype=kind.value)  # type: ignore[call-overload]


_UTC = pd.DatetimeTZDtype("ns", "UTC")
_MASKED: dict[Kind, tuple[float, Any]] = {  # what is stored where a value is missing, and the array
    Kind.INTEGER: (0, pd.arrays.IntegerArray),
    Kind.REAL: (0.0, pd.arrays.FloatingArray),
    Kind.FLAG: (False, pd.arrays.BooleanArray),
}
_DTYPES = {kind: np.dtype(type(zero)) for kind, (zero, _) in _MASKED.items()}


def _from_numpy(kind: Kind, data: npt.NDArray[Any], mask: npt.NDArray[np.bool_]) -> Any:
    match kind:
        case Kind.INTEGER | Kind.REAL | Kind.FLAG:
            zero, array = _MASKED[kind]
            return array(data.astype(type(zero)), mask)
        case Kind.TIME:
            nanoseconds = np.where(mask, np.iinfo(np.int64).min, data.astype(np.int64))  # the minimum is NaT
            return pd.array(nanoseconds, dtype=_UTC)
        case _:
            series = pd.Series(data, dtype=kind.value)
            return (series.mask(mask) if mask.any() else series).array


def _categorical(values: list[Any]) -> pd.Categorical[Any]:
    places = dict.fromkeys(values, -1)
    words = sorted(word for word in places if not pd.isna(word))
    places.update(zip(words, range(len(words)), strict=True))
    codes = np.fromiter(map(places.__getitem__, values), np.int32, len(values))
    return pd.Categorical.from_codes(codes, dtype=_names(tuple(words)), validate=False)


@lru_cache(maxsize=256)
def _names(known: tuple[Any, ...]) -> pd.CategoricalDtype:
    """Return the dtype of these categories: the same few words come again and again."""
    return pd.CategoricalDtype(pd.Index(list(known)))


def categories(codes: npt.NDArray[np.integer[Any]], names: Sequence[str | None]) -> pd.Categorical[str]:
    """Return a category column from codes into *names*; a code whose name is None is missing."""
    known = [name for name in names if name is not None]
    places = np.array([-1 if name is None else known.index(name) for name in names], np.int16)
    return pd.Categorical.from_codes(places[codes], pd.Index(known))
