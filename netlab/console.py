"""Frames as text for a terminal."""

from __future__ import annotations

import textwrap

import pandas as pd


def as_text(frame: pd.DataFrame) -> str:
    """Return every row of a frame as a table, numbers to the right, missing values as a dash."""
    shown = frame.reset_index(drop=True)
    for name in shown.select_dtypes("Float64").columns:
        shown[name] = shown[name].map("{:.3f}".format, na_action="ignore")
    columns = []
    for name in frame.columns:
        cells = [str(name), *shown[name].astype("string").fillna("-")]
        width = max(map(len, cells))
        numeric = pd.api.types.is_numeric_dtype(frame[name].dtype)
        columns.append([cell.rjust(width) if numeric else cell.ljust(width) for cell in cells])
    return "\n".join("  ".join(row).rstrip() for row in zip(*columns, strict=True))


def as_findings(findings: pd.DataFrame, width: int) -> str:
    """Return what `netlab.doctor()` found as a list of lines of *width*; a fix is one line, to be copied."""
    margin = " " * (findings["state"].str.len().max() + 2)
    lines = []
    told = findings[["state", "capability", "why", "fix"]].astype("object")
    for state, capability, why, fix in told.where(told.notna(), None).to_numpy().tolist():
        lines.append(state.ljust(len(margin)) + capability)
        lines += textwrap.wrap(why, width, initial_indent=margin, subsequent_indent=margin)
        if fix:
            lines.append(f"{margin}fix: {fix}")
    return "\n".join(lines)
