"""The hops of a path as a table: loss, times, their course over the rounds, and what the losses mean."""

from __future__ import annotations

from typing import Any

import pandas as pd

from netlab.panels.hopchart import Charts, chart
from netlab.panels.words import escaped
from netlab.views.text import DASH, milliseconds, share

_TITLES = ("TTL", "Address", "Loss", "Last", "Median", "95 %", "Jitter")
_NUMBERS = {*_TITLES[2:]}
_EXCUSED = {"rate-limited", "silent-by-policy", "earlier-loss"}  # of the answers, or before this hop
_HARMLESS = {"ok", "not-enough-data", *_EXCUSED}


def hop_table(stats: pd.DataFrame, verdicts: pd.DataFrame, drawn: Charts, *, through: int) -> str:
    """Return the hops as HTML: a row each, the end-to-end probes last.

    Parameters
    ----------
    stats, verdicts
        What `netlab.path.path_stats` and `netlab.path.explain` returned.
    drawn
        The course of each hop.
    through
        How many of the last rows are end-to-end probes.
    """
    told = verdicts.drop_duplicates("ttl").set_index("ttl")[["verdict", "why"]]
    places = [*stats["ttl"].tolist()[: len(stats) - through], *["end to end"] * through]
    rows = "".join(
        _hop(place, row, told.loc[row["ttl"]] if row["ttl"] in told.index else None, drawn)
        for place, row in zip(places, stats.to_dict("records"), strict=True)
    )
    scale = f", 0 to {milliseconds(drawn.most_ms)}" if drawn.most_ms else ""
    titles = [*_TITLES, f"Round-trip times{scale}", "Verdict"]
    heads = "".join(
        f'<th class="netlab-number">{title}</th>' if title in _NUMBERS else f"<th>{title}</th>"
        for title in titles
    )
    return f'<table class="netlab-hops"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'


def _hop(place: int | str, row: dict[Any, Any], told: pd.Series[Any] | None, drawn: Charts) -> str:
    lost = row["probes"] - row["answers"]
    verdict, why = (DASH, "") if told is None else (str(told["verdict"]), told["why"])
    bad = told is not None and verdict not in _HARMLESS
    kind = "netlab-bad" if bad else "netlab-excused" if verdict in _EXCUSED else ""
    who = DASH if pd.isna(row["address"]) else row["address"]
    cells = [
        f"<td>{place}</td>",
        f"<td>{escaped(who)}</td>",
        f'<td class="netlab-number">{share(int(lost), int(row["probes"]))}</td>',
        *(
            f'<td class="netlab-number">{milliseconds(row[name])}</td>'
            for name in ("last_ms", "p50_ms", "p95_ms")
        ),
        f'<td class="netlab-number">{milliseconds(row["jitter_ms"])}</td>',
        f"<td>{chart(drawn.by_ttl[row['ttl']], drawn.most_ms) if row['ttl'] in drawn.by_ttl else ''}</td>",
        f'<td title="{escaped("" if pd.isna(why) else why)}">{escaped(verdict)}</td>',
    ]
    return f'<tr class="{kind}">{"".join(cells)}</tr>'
