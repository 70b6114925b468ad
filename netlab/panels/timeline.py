"""Which path each round met, and when it became another, as HTML."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from netlab.panels.words import escaped
from netlab.path.course import Change
from netlab.views.text import counted

_SHADES, _CHANGES = 6, 5
_STRETCHES = 300  # of a path that flaps the newest are drawn
_LONGEST_PATH = 1000
_KINDS = {
    Change.ROUTE: "another route",
    Change.REMAP: "moved by a load balancer",
    Change.RETURN: "back on an earlier path",
    Change.UNKNOWN: "another path",
}


def timeline(runs: pd.DataFrame, changes: pd.DataFrame) -> str:
    """Return the path of each round as a coloured line, with the time at its ends, and the changes in words.

    Parameters
    ----------
    runs, changes
        What `netlab.path.path_runs` and `netlab.path.path_changes` returned.
    """
    if runs.empty:
        return ""
    codes, paths = pd.factorize(runs["path"])
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    ends = np.append(starts[1:], len(codes))
    parts = "".join(
        _stretch(runs.iloc[start], int(codes[start]), start / len(codes), (end - start) / len(codes))
        for start, end in zip(starts[-_STRETCHES:].tolist(), ends[-_STRETCHES:].tolist(), strict=True)
    )
    told = "".join(f"<li>{escaped(_change(row))}</li>" for row in changes.tail(_CHANGES).to_dict("records"))
    counts = [
        counted(len(codes), "round"),
        counted(len(paths), "path"),
        f"{counted(len(changes), 'change')}{f', the last {_CHANGES}:' if len(changes) > _CHANGES else ''}",
    ]
    first, last = (f"{at:%H:%M:%S} UTC" for at in (runs["at"].min(), runs["at"].max()))
    return (
        f'<div class="netlab-course" role="img" aria-label="the path of each round">{parts}</div>'
        f'<div class="netlab-note netlab-ends"><span>{first}</span><span>{" · ".join(counts)}</span>'
        f"<span>{last}</span></div><ul class=netlab-foot>{told}</ul>"
    )


def _stretch(first: pd.Series[Any], path: int, start: float, length: float) -> str:
    said = f"from {_at(first)}: {first['hops']}"
    return (
        f'<i class="netlab-path-{path % _SHADES}" style="left: {start:.2%}; width: {length:.2%}" '
        f'title="{escaped(said, _LONGEST_PATH)}"></i>'
    )


def _at(run: Any) -> str:
    return f"{run['at']:%H:%M:%S} UTC"


def _change(row: dict[Any, Any]) -> str:
    where = (
        f"TTL {row['first_ttl']}"
        if row["first_ttl"] == row["last_ttl"]
        else f"TTL {row['first_ttl']} to {row['last_ttl']}"
    )
    return f"{_at(row)}: {_KINDS[row['kind']]} at {where}: {row['hops_before']} became {row['hops_after']}"
