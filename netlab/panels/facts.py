"""One row of a frame in full, and what a frame lacks, as HTML."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from netlab.frames import Schema
from netlab.panels.words import escaped
from netlab.views.text import counted, seconds, significant

_LONGEST_FACT = 1000


def facts(row: pd.Series[Any], schema: Schema) -> str:
    """Return what is known of *row*, a line each with what it means when pointed at, and what is missing."""
    columns = [column for column in schema.columns if column.name in row.index]
    missing = [column.name for column in columns if pd.isna(row[column.name])]
    lines = "".join(
        f'<div title="{escaped(column.meaning)}"><dt>{escaped(column.name)}</dt>'
        f"<dd>{escaped(_said(row[column.name], column.unit), _LONGEST_FACT)}</dd></div>"
        for column in columns
        if column.name not in missing
    )
    note = f'<div class="netlab-note">Not known: {escaped(", ".join(missing), _LONGEST_FACT)}</div>'
    return f'<dl class="netlab-facts">{lines}</dl>{note if missing else ""}'


def _said(value: Any, unit: str) -> str:
    match value:
        case pd.Timestamp():
            return f"{value:%Y-%m-%d %H:%M:%S.%f} UTC"
        case float() if unit == "s":
            return seconds(value)
        case float():
            text = significant(value)
        case _:
            text = str(value)
    return f"{text} {unit}".rstrip()


def gaps(coverage: Iterable[dict[str, Any]]) -> str:
    """Return what is missing, the counted losses first; or that nothing is."""
    ordered = sorted(coverage, key=lambda gap: (gap["kind"] != "lost", gap["what"]))
    if not ordered:
        return '<div class="netlab-foot">Nothing is missing.</div>'
    lines = "".join(f"<li>{escaped(_gap(gap), _LONGEST_FACT)}</li>" for gap in ordered)
    lost = sum(gap["kind"] == "lost" for gap in ordered)
    losses = f", {counted(lost, 'counted loss', 'counted losses')}" if lost else ""
    summary = f"Missing: {counted(len(ordered), 'gap')}{losses}"
    shown = " open" if lost else ""
    return f'<details class="netlab-foot"{shown}><summary>{summary}</summary><ul>{lines}</ul></details>'


def _gap(gap: dict[str, Any]) -> str:
    count = "" if gap["count"] is None or pd.isna(gap["count"]) else f" ({gap['count']})"
    return f"{gap['kind']}{count}: {gap['what']}: {gap['detail']}"
