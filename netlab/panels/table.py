"""A table of any length in a notebook, of which the browser only ever has the rows in sight."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from importlib.resources import files
from typing import Any, TypeAlias

import anywidget
import numpy as np
import numpy.typing as npt
import pandas as pd
import traitlets

from netlab.foreign import visible
from netlab.panels.words import MOST
from netlab.views.text import DASH

_HERE = files(__package__)
_WINDOW = 40  # rows sent at a time: those in sight and some on each side
_BRACKETS = str.maketrans("", "", "[]()")  # which are shown around addresses of IPv6 and process ids
_UNSORTED = {"offset": 0, "sort": "", "descending": False, "words": "", "selected": ""}

Searched: TypeAlias = str | tuple[str, str]  # a column, or those of an address and its port
_Order: TypeAlias = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Field:
    """A column as it is shown: *text* makes the cells of some rows, *by* is the frame's column to sort by."""

    name: str
    title: str
    meaning: str
    _: KW_ONLY
    by: str
    text: Callable[[pd.DataFrame], Sequence[str]]
    numeric: bool = False


def said(column: str, say: Callable[[Any], str]) -> Callable[[pd.DataFrame], list[str]]:
    """Return what makes the cells of *column*: each value as *say* says it, a dash where there is none."""
    return lambda rows: [DASH if pd.isna(value) else say(value) for value in rows[column].tolist()]


def number(column: str, title: str, meaning: str, say: Callable[[Any], str]) -> Field:
    """Return a column of numbers, to the right, the largest first when it is sorted by."""
    return Field(column, title, meaning, by=column, text=said(column, say), numeric=True)


class Table(anywidget.AnyWidget):
    """Shows the frame it was given last; sorting, filter, place and selection stay as they are.

    Parameters
    ----------
    fields
        What to show.
    searched
        The frame's columns in which the words of the filter are looked for.
    identity
        The frame's columns that tell one row from all others, now and later.
    order
        Returns the rows' places in the order that is shown until the user sorts.
    bad
        Returns which rows are failures.
    """

    _esm = (_HERE / "table.js").read_text(encoding="utf-8")
    _css = (_HERE / "panels.css").read_text(encoding="utf-8")

    columns: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)
    view = traitlets.Dict().tag(sync=True)
    asked = traitlets.Dict(default_value=_UNSORTED).tag(sync=True)
    selected = traitlets.Any(default_value=None, allow_none=True)

    def __init__(
        self,
        fields: Sequence[Field],
        *,
        searched: Sequence[Searched],
        identity: Sequence[str],
        order: Callable[[pd.DataFrame], _Order],
        bad: Callable[[pd.DataFrame], npt.NDArray[np.bool_]],
    ) -> None:
        self._fields = {field.name: field for field in fields}
        self._searched, self._identity = list(searched), list(identity)
        self._order, self._bad = order, bad
        self.on_error: Callable[[Exception], None] | None = None  # hears what a request of the browser raised
        self._frame = pd.DataFrame()
        self._keys = np.empty(0, np.uint64)
        super().__init__(
            columns=[
                {"name": f.name, "title": f.title, "meaning": f.meaning, "numeric": f.numeric} for f in fields
            ],
            view={"rows": [], "offset": 0, "matching": 0, "total": None},  # which is not known yet
        )
        self.observe(self._answer, "asked")

    def show(self, frame: pd.DataFrame) -> None:
        """Show *frame* from now on."""
        self._frame = frame
        self._keys = np.asarray(pd.util.hash_pandas_object(frame[self._identity], index=False), np.uint64)
        self._look()
        if (place := self._place_of_selected()) is not None:
            self.selected = frame.iloc[place]

    def _answer(self, change: dict[str, Any]) -> None:
        try:
            self._look_again(change)
        except Exception as error:
            if self.on_error is None:
                raise
            self.on_error(error)

    def _look_again(self, change: dict[str, Any]) -> None:
        if not len(self._frame.columns):
            return
        self._look()
        if self.asked.get("selected") != change["old"].get("selected"):
            place = self._place_of_selected()
            self.selected = None if place is None else self._frame.iloc[place]

    def _wanted(self, name: str) -> Any:
        """Return what the browser asked for, or the default where it sent something else."""
        value = self.asked.get(name)
        return value if type(value) is type(_UNSORTED[name]) else _UNSORTED[name]

    def _look(self) -> None:
        """Send the rows in sight."""
        shown = self._sorted(self._matching())
        offset = min(max(0, self._wanted("offset")), max(0, len(shown) - 1))
        places = shown[offset : offset + _WINDOW]
        rows = self._frame.iloc[places]
        cells = zip(
            *([visible(t, MOST) for t in field.text(rows)] for field in self._fields.values()), strict=True
        )
        keys, bad = map(str, self._keys[places].tolist()), self._bad(rows).tolist()
        self.view = {
            "rows": [
                {"key": key, "cells": list(texts), "bad": failed}
                for key, texts, failed in zip(keys, cells, bad, strict=True)
            ],
            "offset": offset,
            "matching": len(shown),
            "total": len(self._frame),
        }

    def _matching(self) -> _Order:
        words = self._wanted("words").split()
        wanted = np.ones(len(self._frame), bool)
        texts = [self._text(place) for place in self._searched if words]
        for word in words:
            found = np.zeros(len(self._frame), bool)
            for spelling in filter(None, {word, word.translate(_BRACKETS)}):
                for text in texts:
                    found |= text.str.contains(spelling, case=False, regex=False).to_numpy(bool)
            wanted &= found
        return np.flatnonzero(wanted)

    def _text(self, place: Searched) -> pd.Series[str]:
        names = (place,) if isinstance(place, str) else place
        first, *port = (self._frame[name].astype("string").fillna("") for name in names)
        return first + ":" + port[0] if port else first

    def _sorted(self, places: _Order) -> _Order:
        rows = self._frame.iloc[places]
        field = self._fields.get(self._wanted("sort"))
        if field is None:
            return places[self._order(rows)]
        column = rows[field.by].reset_index(drop=True)
        if column.dtype == "category":
            column = column.astype("string")
        ordered = column.sort_values(
            ascending=not self._wanted("descending"), kind="stable", na_position="last"
        )
        return places[np.asarray(ordered.index, np.intp)]

    def _place_of_selected(self) -> int | None:
        """Return where the row that was clicked is; it may have left the frame, and stays as it was."""
        key = self._wanted("selected")
        if not key.isdecimal():
            return None
        places = np.flatnonzero(self._keys == int(key))
        return int(places[0]) if len(places) else None
