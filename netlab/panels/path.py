"""`netlab.panels.LivePath`: the hops of a path as they are, and when the path became another."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

import ipywidgets as widgets
import networkx as nx
import numpy as np
import pandas as pd

from netlab.bundle.replaying import Replay
from netlab.errors import BadInput
from netlab.frames import concat
from netlab.panels.facts import gaps
from netlab.panels.live import LivePanel
from netlab.panels.words import escaped
from netlab.path import course, extent, stats, verdicts
from netlab.path.graph import path_graph
from netlab.path.monitoring import Monitor, monitor
from netlab.views.path import plot_path
from netlab.views.text import DASH, milliseconds, share

_WIDTH, _HEIGHT = 260, 16
_THROUGH_TTL = 64  # of the end-to-end probes
_TITLES = ("TTL", "Address", "Loss", "Last", "Median", "95 %", "Jitter", "Round-trip times", "Verdict")
_HARMLESS = {"ok", "rate-limited", "silent-by-policy", "not-enough-data", "earlier-loss"}
_SHADES, _CHANGES = 6, 5
_PICTURE_EVERY = 20  # rounds: drawing takes longer than everything else


@dataclass(frozen=True, slots=True)
class Sight:
    """What is known of a path at one moment."""

    stats: pd.DataFrame
    verdicts: pd.DataFrame
    runs: pd.DataFrame
    changes: pd.DataFrame
    graph: nx.DiGraph[str]
    coverage: list[dict[str, Any]]


@dataclass(slots=True)
class Watched:
    """A feed that follows a monitor; paused, it keeps what was seen last while probing goes on."""

    monitor: Monitor | Replay
    paused: bool = False
    last: Sight | None = field(default=None)

    @property
    def state(self) -> str:
        """One of new, running, paused, stopped."""
        if self.monitor.running:
            return "paused" if self.paused else "running"
        return "stopped" if self.monitor.started else "new"

    def start(self) -> None:
        """Begin to probe."""
        self.monitor.start()

    def pause(self) -> None:
        """Keep what was seen last."""
        self.paused = True

    def resume(self) -> None:
        """Look again."""
        self.paused = False

    def stop(self) -> None:
        """Stop probing."""
        self.monitor.stop()

    def read(self) -> Sight:
        """Return what is known now, or was when it was paused."""
        if not self.paused or self.last is None:
            hops, through = self.monitor.hops(), self.monitor.end_to_end()
            self.last = Sight(
                stats=stats.path_stats(concat([hops, through])),
                verdicts=verdicts.explain(concat([hops, extent.at_the_end(through, hops)])),
                runs=course.path_runs(hops),
                changes=course.path_changes(hops),
                graph=path_graph(_answered(extent.within_path(hops))),
                coverage=hops.attrs["coverage"],
            )
        return self.last


def _answered(hops: pd.DataFrame) -> pd.DataFrame:
    """Return the hops without the losses at TTLs that have answered: a lost answer is no silent router."""
    answered = hops["address"].notna()
    return hops[answered | ~answered.groupby(hops["ttl"]).transform("any")]


class LivePath(LivePanel[Watched, Sight]):
    """The hops of a path with loss, round-trip times and verdicts, its picture, and its changes over time.

    Parameters
    ----------
    target
        A host name or an address; or a monitor to follow, or a recording as `netlab.replay` plays it.
    **options
        What `netlab.path.monitor()` takes for a new one, such as `protocol="tcp"`, `port=443` or
        `duration_s=60`.

    Raises
    ------
    BadInput
        If an option cannot be right.
    ProbeError
        If the target has no address or no route.
    CapabilityError
        When it starts, without CAP_NET_RAW.

    Notes
    -----
    Bars span the smallest to the largest round-trip time of a hop, thick from the median to the 95 %
    quantile, all on one scale. The last row is the end-to-end probe. While paused, probing goes on unseen.

    Examples
    --------
    >>> import netlab.panels
    >>> panel = netlab.panels.LivePath("127.0.0.1")
    >>> panel.state.value
    'not started'
    >>> panel.close()
    """

    def __init__(self, target: str | Monitor | Replay, **options: Any) -> None:
        if isinstance(target, Monitor | Replay) and options:
            raise BadInput(
                f"{next(iter(options))!r} comes with a monitor that has its options already",
                fix="Give a monitor, or the target and options of a new one",
            )
        if not isinstance(target, Monitor | Replay):
            monitor(target, **options)  # refuses what cannot be right here and not at a click
        self._hops, self._courses, self._foot = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self._picture = widgets.HTML()
        self._drawn: object = None
        super().__init__(
            lambda: Watched(target if isinstance(target, Monitor | Replay) else monitor(target, **options)),
            [self._hops, self._courses, self._picture, self._foot],
        )

    def _read(self, feed: Watched) -> Sight:
        return feed.read()

    def _show(self, seen: Sight) -> None:
        self._hops.value = _hop_table(seen)
        self._courses.value = _course(seen)
        self._foot.value = gaps(seen.coverage)
        shape = frozenset(seen.graph.edges), seen.runs["run"].max() // _PICTURE_EVERY if len(seen.runs) else 0
        if shape != self._drawn and len(seen.graph) > 1:
            self._drawn = shape
            self._picture.value = _svg(seen.graph)


def _hop_table(seen: Sight) -> str:
    """Return the hops as HTML: a row each, the end-to-end probes last."""
    told = seen.verdicts.drop_duplicates("ttl").set_index("ttl")[["verdict", "why"]]
    most = seen.stats["max_ms"].max()
    rows = "".join(
        _hop(row, told.loc[row["ttl"]] if row["ttl"] in told.index else None, most)
        for row in seen.stats.to_dict("records")
    )
    heads = "".join(f"<th>{title}</th>" for title in _TITLES)
    return f'<table class="netlab-hops"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'


def _hop(row: dict[Any, Any], told: pd.Series[Any] | None, most_ms: Any) -> str:
    lost = row["probes"] - row["answers"]
    verdict, why = (DASH, "") if told is None else (str(told["verdict"]), told["why"])
    bad = told is not None and verdict not in _HARMLESS
    who = DASH if pd.isna(row["address"]) else row["address"]
    place = "end to end" if row["ttl"] == _THROUGH_TTL else row["ttl"]
    cells = [
        f"<td>{place}</td>",
        f"<td>{escaped(who)}</td>",
        f'<td class="netlab-number">{share(int(lost), int(row["probes"]))}</td>',
        *(
            f'<td class="netlab-number">{milliseconds(row[name])}</td>'
            for name in ("last_ms", "p50_ms", "p95_ms")
        ),
        f'<td class="netlab-number">{milliseconds(row["jitter_ms"])}</td>',
        f"<td>{_band(row, most_ms)}</td>",
        f'<td title="{escaped("" if pd.isna(why) else why)}">{escaped(verdict)}</td>',
    ]
    return f"<tr{' class=netlab-bad' if bad else ''}>{''.join(cells)}</tr>"


def _band(row: dict[Any, Any], most_ms: Any) -> str:
    """Return a hop's round-trip times as a bar, on the scale of all hops."""
    if pd.isna(row["min_ms"]) or not most_ms:
        return ""
    least, middle, high, most = (
        _WIDTH * row[name] / most_ms for name in ("min_ms", "p50_ms", "p95_ms", "max_ms")
    )
    half = _HEIGHT / 2
    return (
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" role="img"><title>{milliseconds(row["min_ms"])} to '
        f"{milliseconds(row['max_ms'])}</title>"
        f'<line class="netlab-range" x1="{least:.1f}" x2="{most:.1f}" y1="{half}" y2="{half}"/>'
        f'<rect class="netlab-main" x="{middle:.1f}" width="{max(2.0, high - middle):.1f}" '
        f'y="4" height="{_HEIGHT - 8}"/>'
        "</svg>"
    )


def _course(seen: Sight) -> str:
    """Return which path each round met as a coloured line, and the changes in words."""
    if seen.runs.empty:
        return ""
    codes, paths = pd.factorize(seen.runs["path"])
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    ends = np.append(starts[1:], len(codes))
    step = 100 / len(codes)
    parts = "".join(
        f'<i class="netlab-path-{codes[start] % _SHADES}" style="left: {start * step:.2f}%; '
        f'width: {(end - start) * step:.2f}%"></i>'
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
    )
    told = "".join(
        f"<li>{escaped(_change(row))}</li>" for row in seen.changes.tail(_CHANGES).to_dict("records")
    )
    return (
        f'<div class="netlab-course" role="img" aria-label="the path of each round">{parts}</div>'
        f'<div class="netlab-note">{len(codes)} rounds, {len(paths)} path{"s" * (len(paths) > 1)}'
        f"</div><ul class=netlab-foot>{told}</ul>"
    )


def _change(row: dict[Any, Any]) -> str:
    where = (
        f"TTL {row['first_ttl']}"
        if row["first_ttl"] == row["last_ttl"]
        else f"TTL {row['first_ttl']} to {row['last_ttl']}"
    )
    return (
        f"{row['at']:%H:%M:%S} UTC: {row['kind']} at {where}: {row['hops_before']} became {row['hops_after']}"
    )


def _svg(graph: nx.DiGraph[str]) -> str:
    """Return the picture of the graph as SVG for both themes; matplotlib escapes what is written in it."""
    pictures = []
    for theme in ("light", "dark"):
        text = io.StringIO()
        plot_path(graph, theme=theme).savefig(text, format="svg", metadata={"Date": None})
        svg = text.getvalue()
        pictures.append(f'<div class="netlab-only-{theme}">{svg[svg.index("<svg") :]}</div>')
    return "".join(pictures)
