"""How long requests took, by what was asked and how it was answered."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from netlab.checks import options, whole
from netlab.protocols import classes
from netlab.schemas import REQUESTS
from netlab.views.hoprows import cut
from netlab.views.latencies import MOST_DOTS, Row, Words, draw
from netlab.views.picture import gaps, needed, nothing, plain_text
from netlab.views.text import counted, legible, share
from netlab.views.theme import theme_named

_TITLE = "Requests"
_COLUMNS = ("protocol", "operation", "resource", "host", "status", "error", "outcome", "latency_ms")
_KEY = f"to the answer's first byte (ms{{scale}}): a dot per answer, {MOST_DOTS} at most; line: the median"
_UNANSWERED = {"unanswered": "closed first", "missed": "not seen", "pending": "waiting"}
_ASKED, _KIND = 48, 28  # characters
_ASKED_BY = ("operation", "host", "resource")


@options
@plain_text()
def plot_requests(requests: pd.DataFrame, *, resources: int = 12, theme: str | None = None) -> Figure:
    """Draw how long requests took to be answered, by what they asked for and what they were told.

    What fails most comes first, then what is slowest. The axis is logarithmic when the times span more than
    a factor of 100. A request between two processes of this host is two rows of the frame: draw those of
    one direction, or each counts twice.

    Parameters
    ----------
    requests
        What `Capture.requests()` returned.
    resources
        How many different questions to draw at most, 1 to 40.
    theme
        ``"light"``, ``"dark"``, or None for the one that suits matplotlib's background colour.

    Returns
    -------
    Figure
        A figure that pyplot does not keep: it shows once in a notebook; `savefig` writes it.

    Raises
    ------
    BadInput
        If *requests* is no such frame, or *resources* or *theme* is not in its range.

    Examples
    --------
    >>> import netlab
    >>> netlab.plot_requests(netlab.schemas.REQUESTS.empty())
    <Picture size ...>
    """
    look, most = theme_named(theme), whole("resources", resources, 1, 40)
    table = needed(
        requests,
        REQUESTS,
        _COLUMNS,
        drawn_by="plot_requests",
        made_by="Capture.requests()",
        filled=["outcome"],
    )
    if table.empty:
        return nothing(look, _TITLE, "There are no requests in this frame", gaps(requests.attrs))
    table = table.assign(asked=_asked(table), kind=_kind(table), bad=_bad(table))
    names = _by_trouble(table)
    rows = [row for name in names[:most] for row in _rows(table[table["asked"] == name])]
    notes = [gaps(requests.attrs), cut(min(most, len(names)), len(names), "questions")]
    footnote = " · ".join(filter(None, notes))
    words = Words(_TITLE, _note(table), footnote, asked="asked", counted="requests", key=_KEY)
    return draw(look, rows, words)


def _asked(table: pd.DataFrame) -> pd.Series[str]:
    """Return what each request asked for: the operation, and as a URL has them host and path."""
    operation, host, resource = (table[name].astype("string").fillna("") for name in _ASKED_BY)
    return (operation + " " + host + " " + resource).str.strip().replace("", "?")


def _label(row: pd.Series[Any]) -> str:
    """Return what was asked, cut where it says least: a host of any length leaves most of it to the path."""
    operation, host, resource = ("" if pd.isna(row[name]) else str(row[name]) for name in _ASKED_BY)
    begins = legible(operation, _ASKED // 2) + " " * bool(operation)
    room = _ASKED - len(begins)
    slash = "/" if host and resource and not resource.startswith("/") else ""  # of gRPC: its service
    begins += legible(host, max(room - len(slash + resource), room // 3)) + slash
    return (begins + legible(resource, _ASKED - len(begins))).strip() or "?"


def _kind(table: pd.DataFrame) -> pd.Series[str]:
    return classes.word(table).fillna(table["outcome"].astype("string"))


def _bad(table: pd.DataFrame) -> pd.Series[bool]:
    return table["error"].notna() | table["outcome"].eq("unanswered")


def _by_trouble(table: pd.DataFrame) -> list[str]:
    groups = table.groupby("asked")
    trouble = pd.DataFrame({"bad": -groups["bad"].mean(), "slow": -groups["latency_ms"].median().fillna(0)})
    return [str(name) for name in trouble.sort_values(["bad", "slow"], kind="stable").index]


def _rows(table: pd.DataFrame) -> list[Row]:
    """Return a row per kind of answer to one question, those that went well first."""
    rows: list[Row] = []
    for (is_bad, kind), part in table.groupby(["bad", "kind"]):
        times = np.sort(part["latency_ms"].dropna().to_numpy(float))
        note = "" if len(times) else _UNANSWERED.get(str(part["outcome"].iloc[0]), "")
        asked = "" if rows else _label(part.iloc[0])
        rows.append(Row(asked, legible(kind, _KIND), times, len(part), note, bool(is_bad)))
    return rows


def _note(table: pd.DataFrame) -> str:
    bad = int(table["bad"].sum())
    failed = f"{bad} failed ({share(bad, len(table))})" if bad else "none failed"
    return " · ".join([counted(len(table), "request"), failed])
