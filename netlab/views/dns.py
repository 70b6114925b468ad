"""How long name servers take: a row per server and kind of answer, and what had no answer."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from netlab.checks import options, whole
from netlab.schemas import DNS
from netlab.views.hoprows import cut
from netlab.views.latencies import MOST_DOTS, Row, Words, draw
from netlab.views.picture import gaps, needed, nothing, plain_text
from netlab.views.text import counted, legible, share
from netlab.views.theme import theme_named

_TITLE = "DNS by server"
_COLUMNS = ("rcode", "answer_ms", "retries", "server_address", "silent_servers")
_KEY = "the server's time (ms{scale}): a dot per answer, " + f"{MOST_DOTS} at most, a line at the median"
_UNANSWERED = {
    "timeout": "no answer",
    "closed": "closed first",
    "unreachable": "nobody there",
    "missed": "not seen",
    "pending": "waiting",
}
# The server did what it is for, may yet do so, or nobody saw whether it did.
_BLAMELESS = {"NOERROR", "NXDOMAIN", "pending", "missed"}
_NAME = 40  # characters
_PASSED_OVER = "others answered"


@options
@plain_text()
def plot_dns(lookups: pd.DataFrame, *, servers: int = 8, theme: str | None = None) -> Figure:
    """Draw how long each name server took to answer, by what it answered, and what it left unanswered.

    Servers that fail come first. Times are the server's own (`answer_ms`): the wait for another server that
    did not answer is told in that one's row. The axis is logarithmic when the times span more than a factor
    of 100.

    Parameters
    ----------
    lookups
        What `Capture.dns()` returned.
    servers
        How many servers to draw at most, 1 to 40.
    theme
        ``"light"``, ``"dark"``, or None for the one that suits matplotlib's background colour.

    Returns
    -------
    Figure
        A figure that pyplot does not keep: it shows once in a notebook; `savefig` writes it.

    Raises
    ------
    BadInput
        If *lookups* is no such frame, or *servers* or *theme* is not in its range.

    Examples
    --------
    >>> import netlab
    >>> netlab.plot_dns(netlab.schemas.DNS.empty())
    <Picture size ...>
    """
    look, most = theme_named(theme), whole("servers", servers, 1, 40)
    filled = ["rcode", "server_address"]
    table = needed(lookups, DNS, _COLUMNS, drawn_by="plot_dns", made_by="Capture.dns()", filled=filled)
    if table.empty:
        return nothing(look, _TITLE, "There are no lookups in this frame", gaps(lookups.attrs))
    passed_over = _passed_over(table)
    names = _by_trouble(table, passed_over)
    rows = [row for name in names[:most] for row in _rows(table, name, passed_over.get(name, 0))]
    notes = [gaps(lookups.attrs), cut(min(most, len(names)), len(names), "servers")]
    words = Words(
        _TITLE,
        _note(table, names),
        " · ".join(filter(None, notes)),
        asked="server",
        counted="lookups",
        key=_KEY,
    )
    return draw(look, rows, words)


def _passed_over(table: pd.DataFrame) -> dict[str, int]:
    """Return how many lookups each server left to another one."""
    silent = table.dropna(subset=["silent_servers"])
    servers = silent["silent_servers"].str.split(" ").map(set)
    passed = silent.assign(silent_servers=servers).explode("silent_servers")
    others = passed.loc[passed["silent_servers"] != passed["server_address"], "silent_servers"]
    return {str(name): int(count) for name, count in others.value_counts().items()}


def _by_trouble(table: pd.DataFrame, passed_over: dict[str, int]) -> list[str]:
    """Return the servers: those with the largest share of trouble first, then those asked most."""
    outcomes = table["rcode"].astype(str)
    bad = (~outcomes.isin(_BLAMELESS)).groupby(table["server_address"]).sum()
    asked = table["server_address"].value_counts()
    names = [str(name) for name in {*asked.index, *passed_over}]

    def order(name: str) -> tuple[float, int, str]:
        others = passed_over.get(name, 0)
        total, failed = int(asked.get(name, 0)) + others, int(bad.get(name, 0)) + others
        return -failed / total, -total, name

    return sorted(names, key=order)


def _rows(table: pd.DataFrame, server: str, passed_over: int) -> list[Row]:
    rows = []
    theirs = table[table["server_address"] == server]
    for kind, part in theirs.groupby(theirs["rcode"].astype(str)):
        times = np.sort(part["answer_ms"].dropna().to_numpy(float))
        note = "" if len(times) else _UNANSWERED.get(str(kind), "")
        is_bad = kind not in _BLAMELESS
        rows.append(Row("", str(kind), times, len(part), note, is_bad))
    if passed_over:
        none = np.empty(0)
        rows.append(Row("", _PASSED_OVER, none, passed_over, "silent: another server was asked", is_bad=True))
    rows.sort(key=lambda row: (row.is_bad, -row.count))
    first = rows[0]
    shown = legible(server, _NAME)
    return [Row(shown, first.kind, first.times_ms, first.count, first.note, first.is_bad), *rows[1:]]


def _note(table: pd.DataFrame, names: list[str]) -> str:
    unanswered = int(table["rcode"].astype(str).isin(["timeout", "closed"]).sum())
    retries = int(table["retries"].fillna(0).sum())
    told = [
        counted(len(table), "lookup"),
        counted(len(names), "server"),
        f"{unanswered} unanswered ({share(unanswered, len(table))})" if unanswered else "none unanswered",
        counted(retries, "retry", "retries"),
    ]
    return " · ".join(told)
