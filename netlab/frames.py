"""Typed frames: schemas as data, and the account of what a frame is missing.

Every frame netlab returns is a plain DataFrame built here. Its schema fixes the columns, their order,
dtype and unit; `attrs["coverage"]` lists what the frame does not contain and why. Missing values are
`pd.NA` (`NaT` for times), never 0 or an empty string.
"""

from __future__ import annotations

import importlib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.internals import create_dataframe_from_blocks

from netlab.checks import nearest, tabular
from netlab.columns import Kind, all_missing, typed
from netlab.errors import BadInput


class Gap(StrEnum):
    """Why something is not in a frame."""

    LOST = "lost"  # it was seen and thrown away: a full buffer or map; counted
    UNSEEN = "unseen"  # it happened where or when nobody looked
    UNAVAILABLE = "unavailable"  # this host, kernel or process cannot provide it
    APPROXIMATE = "approximate"  # a value is a bound or an estimate
    INCOMPLETE = "incomplete"  # work was cut short: cancelled, timed out, limited


class Cause(StrEnum):
    """What programs look for among gaps: a word for a reason whose detail, which people read, may change."""

    LET_GO = "let-go"  # it was kept until later ones took its place
    RING_FULL = "ring-full"  # it did not fit between the kernel and this process


@dataclass(frozen=True, slots=True)
class Missing:
    """One thing a frame lacks: *what*, the *kind* of gap, *count* (None when unknown) and the reason.

    *detail* tells people the reason, *cause* programs, as far as any looks for it.
    """

    what: str
    kind: Gap
    count: int | None
    detail: str
    cause: str | None = None  # a `Cause`, maybe one that only a newer netlab knows

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Missing:
        """Return one that was told as a mapping; ValueError if it is of no known kind."""
        return cls(told["what"], Gap(told["kind"]), told["count"], told["detail"], told.get("cause"))


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its name, what kind of values it holds, what they mean and in which unit."""

    name: str
    kind: Kind
    meaning: str
    unit: str = ""


HOST = Column("host", Kind.TEXT, "name of the host that the row is from")


@dataclass(frozen=True, slots=True)
class Schema:
    """The columns of one kind of frame, in order.

    `host_column` is what names the host that a row is from, in frames of several hosts.
    """

    name: str
    columns: tuple[Column, ...]
    host_column: str = HOST.name

    @property
    def names(self) -> list[str]:
        """The column names, in order."""
        return [column.name for column in self.columns]

    def with_host(self) -> Schema:
        """Return the schema of such frames of several hosts: `host_column`, if it is new, is the first."""
        if self.host_column in self.names:
            return self
        return replace(self, columns=(replace(HOST, name=self.host_column), *self.columns))

    def frame(self, data: Mapping[str, Any], missing: Iterable[Missing] = ()) -> pd.DataFrame:
        """Build the typed frame from arrays, one per column; columns not given are all NA.

        A numpy masked array marks single values as missing.
        """
        unknown = set(data) - set(self.names)
        if unknown:
            name = min(unknown)
            raise BadInput(f"{self.name} frames have no column {name!r}", fix=nearest(name, self.names))
        rows = max((len(values) for values in data.values()), default=0)
        arrays = [
            typed(column.kind, data[column.name]) if column.name in data else all_missing(column.kind, rows)
            for column in self.columns
        ]
        if any(len(array) != rows for array in arrays):
            raise ValueError(f"the columns of a {self.name} frame differ in length")
        # pd.DataFrame looks at each column four times to find out what typed() has made sure of.
        blocks = list(zip(arrays, np.arange(len(arrays))[:, None], strict=True))
        frame: pd.DataFrame = create_dataframe_from_blocks(
            blocks, index=pd.RangeIndex(rows), columns=_index(self)
        )
        frame.attrs["schema"] = self.name
        frame.attrs["coverage"] = [asdict(item) for item in missing]
        return frame

    def empty(self, missing: Iterable[Missing] = ()) -> pd.DataFrame:
        """Return the frame with every column and no row."""
        frame = _blank(self).copy()
        frame.attrs = {"schema": self.name, "coverage": [asdict(item) for item in missing]}
        return frame

    def describe(self) -> pd.DataFrame:
        """Return the schema itself as a frame: column, dtype, unit, meaning."""
        rows = [(c.name, c.kind.value, c.unit, c.meaning) for c in self.columns]
        return pd.DataFrame(rows, columns=["column", "dtype", "unit", "meaning"])


@cache
def _blank(schema: Schema) -> pd.DataFrame:
    """Return *schema*'s empty frame: a look at what has not changed needs one each time."""
    return schema.frame({})


@cache
def _index(schema: Schema) -> pd.Index[str]:
    return pd.Index(schema.names)


def concat(frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Put frames of one kind under each other; the result's coverage names what any of them lacks.

    Parameters
    ----------
    frames
        Frames that netlab returned, all of the same schema.

    Returns
    -------
    DataFrame
        The rows of all, in order, with the same columns. (`pandas.concat` would drop the coverage.) What else
        several of them carry in `attrs` under one name is a list there.

    Raises
    ------
    BadInput
        If there is none, or if they are of different kinds.

    Examples
    --------
    >>> import netlab
    >>> both = netlab.concat([netlab.connections(), netlab.connections()])
    >>> both.attrs["schema"]
    'connections'
    """
    fix = "Pass at least one, as netlab returned them"
    parts = list(frames) if isinstance(frames, Iterable) else [frames]
    for part in parts:
        tabular("concat()", part, fix=fix)
    kinds = {part.attrs.get("schema") for part in parts}
    if len(kinds) != 1 or None in kinds:
        raise BadInput("only frames of one kind can be joined", fix=fix)
    joined = pd.concat(parts, ignore_index=True)
    for name, dtype in parts[0].dtypes.items():  # categories that differ would become plain objects
        if joined[name].dtype != dtype:
            joined[name] = joined[name].astype("category" if dtype == "category" else dtype)
    joined.attrs = {
        **_gathered(parts),
        "schema": parts[0].attrs["schema"],
        "coverage": _added(gap for part in parts for gap in part.attrs["coverage"]),
    }
    return joined


def attached(frame: pd.DataFrame, name: Hashable) -> list[Any]:
    """Return what *frame*, and each of those that `concat` made it of, carries in its attrs under *name*."""
    found = frame.attrs.get(name, [])
    return found if isinstance(found, list) else [found]


def _gathered(parts: Sequence[pd.DataFrame]) -> dict[Hashable, Any]:
    """Return the other attrs of all parts, as a list where several have one of the same name."""
    names = dict.fromkeys(name for part in parts for name in part.attrs)
    found = {name: [value for part in parts for value in attached(part, name)] for name in names}
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


def _added(gaps: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put gaps of the same kind and cause into one, their counts added; an unknown count stays unknown."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for gap in gaps:
        key = (gap["what"], gap["kind"], gap["detail"])
        known = found.setdefault(key, {**gap, "count": 0})
        counts = (known["count"], gap["count"])
        known["count"] = None if None in counts else sum(counts)
    return list(found.values())


def known_gaps(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the coverage of *frame*; of one that has lost it, that what it lacks is not known."""
    if "coverage" not in frame.attrs:
        lost = "lost on the way, as by pandas.concat() and merge(): what the rows lack is not known"
        return [asdict(Missing("coverage", Gap.INCOMPLETE, None, f"{lost}; netlab.concat() keeps it"))]
    return list(frame.attrs["coverage"])


COVERAGE_DTYPES = {"what": "string", "kind": "category", "count": "Int64", "detail": "string"}


def coverage(frame: pd.DataFrame) -> pd.DataFrame:
    """Say what *frame* does not contain, and why.

    Parameters
    ----------
    frame
        Any frame that netlab returned.

    Returns
    -------
    DataFrame
        One row per gap: `what` is missing, the `kind` of gap (lost, unseen, unavailable, approximate,
        incomplete), the `count` where it is known, and the `detail`. No row means nothing is missing.

    Raises
    ------
    BadInput
        If the frame carries no coverage, for example because an operation made a new one without `attrs`.

    Examples
    --------
    >>> import netlab
    >>> netlab.coverage(netlab.connections()).columns.tolist()
    ['what', 'kind', 'count', 'detail']
    """
    if not isinstance(frame, pd.DataFrame) or "coverage" not in frame.attrs:
        raise BadInput(
            "this frame carries no coverage",
            fix="Pass a frame as netlab returned it; merge() and new DataFrames drop attrs",
        )
    return pd.DataFrame(frame.attrs["coverage"], columns=list(COVERAGE_DTYPES)).astype(COVERAGE_DTYPES)


@pd.api.extensions.register_dataframe_accessor("netlab")
class _Door:
    """`frame.netlab`: its home is far above this room, and is imported when it is first asked for."""

    def __new__(cls, frame: pd.DataFrame) -> Any:
        return importlib.import_module("netlab.accessor").Accessor(frame)
