"""A panel that is a table: something above it, what it lacks below it, and all of the row that is clicked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import ipywidgets as widgets
import pandas as pd

from netlab.frames import Schema
from netlab.panels.facts import facts, gaps
from netlab.panels.live import Feed, LivePanel
from netlab.panels.table import Table

F = TypeVar("F", bound=Feed)
Seen = TypeVar("Seen")


class LiveTable(LivePanel[F, Seen]):
    """Shows frames of *schema* in *table*; `selected` is the row that was clicked, as it was last seen.

    *asked* is what a subclass shows of that row before all that the frame has of it.
    """

    def __init__(
        self,
        make: Callable[[], F],
        table: Table,
        schema: Schema,
        *,
        asked: Sequence[widgets.Widget] = (),
        duration_s: float | None = None,
    ) -> None:
        self.table = table
        self._schema = schema
        self._head, self._details, self._foot = widgets.HTML(), widgets.HTML(), widgets.HTML()
        body = [self._head, table, self._foot, *asked, self._details]
        super().__init__(make, body, duration_s=duration_s)
        table.on_error = self._fail
        table.observe(self._shown(self._show_details), "selected")

    @property
    def selected(self) -> pd.Series[Any] | None:
        """The row that was clicked."""
        row: pd.Series[Any] | None = self.table.selected
        return row

    def _list(self, head: str, frame: pd.DataFrame) -> None:
        self._head.value = head
        self._foot.value = gaps(frame.attrs["coverage"])
        self.table.show(frame)

    def _show_details(self, change: dict[str, Any]) -> None:
        self._details.value = "" if change["new"] is None else facts(change["new"], self._schema)
