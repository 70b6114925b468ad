"""The past of a frame: every version of every row, and from when to when it was so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from netlab import parquet
from netlab.bundle.contents import Segment
from netlab.bundle.manifest import missing_of
from netlab.frames import Missing, Schema
from netlab.schemas import CONNECTIONS

Times = npt.NDArray[np.int64]

REPLACES = "netlab.replaces"
FOR_EVER = np.iinfo(np.int64).max


class Past(Protocol):
    """What can show a frame as it was at each moment."""

    def at(self, now_ns: int, /) -> pd.DataFrame:
        """Return the frame as it was at a moment."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """Versions of rows: each holds from its *from_ns* until just before its *until_ns*, in UTC.

    *gaps* are what the frame lacked, as it was told at *told_ns*.
    """

    rows: pd.DataFrame
    from_ns: Times
    until_ns: Times
    told_ns: Times
    gaps: list[list[Missing]]

    @classmethod
    def of_segments(
        cls, segments: Sequence[Segment], schema: Schema, *, most_bytes: int, made_by: str
    ) -> History:
        """Read back what a recording wrote.

        Rows are numbered through all segments, and each segment says which rows end with it. Raises what
        `parquet.read` raises.
        """
        if not segments:
            nothing = np.empty(0, np.int64)
            return cls(schema.empty(), nothing, nothing, nothing, [])
        rows = parquet.read(
            [segment.data for segment in segments],
            schema,
            rows=None,
            missing=[],
            most_bytes=most_bytes,
            made_by=made_by,
        )
        pieces = [parquet.Piece.of(segment.data, REPLACES) for segment in segments]
        told_ns = np.array([segment.at_ns for segment in segments], np.int64)
        from_ns = np.repeat(told_ns, [piece.rows for piece in pieces])
        until_ns = np.full(len(rows), FOR_EVER)
        told = 0
        for at_ns, piece in zip(told_ns.tolist(), pieces, strict=True):
            until_ns[_numbers(piece.note, told)] = at_ns
            told += piece.rows
        gaps = [[missing_of(gap) for gap in piece.attrs["coverage"]] for piece in pieces]
        return cls(rows, from_ns, until_ns, told_ns, gaps)

    def at(self, now_ns: int) -> pd.DataFrame:
        """Return the frame as it was at a moment, the rows of connections in the order of their starts."""
        frame = self.rows[(self.from_ns <= now_ns) & (now_ns < self.until_ns)]
        if self.rows.attrs["schema"] == CONNECTIONS.name:
            frame = aged(in_order(frame), now_ns)
        frame = frame.reset_index(drop=True)
        gaps = [asdict(gap) for gap in self.missing(now_ns)]
        kept = self.rows.attrs
        frame.attrs = {"schema": kept["schema"], "coverage": [*gaps, *kept["coverage"]]}
        return frame

    def last_told_ns(self, now_ns: int) -> int:
        """Return when it was last looked at before a moment; 0 is never."""
        told = int(np.searchsorted(self.told_ns, now_ns, side="right"))
        return int(self.told_ns[told - 1]) if told else 0

    def missing(self, now_ns: int) -> list[Missing]:
        """Return what the frame lacked at a moment."""
        told = int(np.searchsorted(self.told_ns, now_ns, side="right"))
        return self.gaps[told - 1] if told else []


def in_order(connections: pd.DataFrame) -> pd.DataFrame:
    """Return connections in the order of their starts, those whose start is not known first."""
    return connections.sort_values("opened_at", kind="stable", na_position="first")


def aged(connections: pd.DataFrame, now_ns: int) -> pd.DataFrame:
    """Return connections with the age that open ones had at a moment, as far as their start is known."""
    opened = is_open(connections) & connections["opened_at"].notna().to_numpy()
    start = connections["opened_at"].fillna(pd.Timestamp(now_ns, tz="UTC")).astype("int64")
    age_s = ((now_ns - start) / 1e9).astype("Float64").clip(lower=0)
    return connections.assign(duration_s=connections["duration_s"].mask(opened, age_s))


def is_open(connections: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Tell which connections have not ended."""
    ended: npt.NDArray[np.bool_] = (
        connections["closed_at"].notna() | connections["state"].eq("closed").fillna(value=False).astype(bool)
    ).to_numpy(bool)
    return ~ended


def _numbers(told: Any, before: int) -> npt.NDArray[np.int64]:
    """Return the numbers of the rows that a segment ends, checked: they are from earlier segments."""
    numbers = np.asarray(told, np.int64) if isinstance(told, list) else None
    if (
        numbers is None
        or numbers.ndim != 1
        or (len(numbers) and not 0 <= numbers.min() <= numbers.max() < before)
    ):
        raise ValueError("a segment does not say which rows it replaces")
    return numbers
