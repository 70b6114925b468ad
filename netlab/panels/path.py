"""`netlab.panels.LivePath`: the hops of a path as they are, and when the path became another."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import ipywidgets as widgets
import networkx as nx
import pandas as pd

from netlab.errors import BadInput
from netlab.foreign import visible
from netlab.frames import concat
from netlab.panels.facts import gaps
from netlab.panels.hopchart import Charts, charts
from netlab.panels.hoptable import hop_table
from netlab.panels.live import LivePanel
from netlab.panels.sketch import sketched
from netlab.panels.timeline import timeline
from netlab.panels.words import UNSAVED
from netlab.path import extent
from netlab.path.findings import Given
from netlab.path.graph import path_graph
from netlab.path.monitoring import monitor

_LONGEST_TARGET = 80
_PICTURE_EVERY = 20  # rounds: drawing takes longer than everything else


@dataclass(frozen=True, slots=True)
class Sight:
    """What is known of a path at one moment."""

    seen: tuple[tuple[int, int], ...]  # how many probes, and the last round: old ones are let go
    stats: pd.DataFrame
    through: int  # how many rows of it, the last, are of end-to-end probes
    verdicts: pd.DataFrame
    runs: pd.DataFrame
    changes: pd.DataFrame
    charts: Charts
    graph: nx.DiGraph[str]
    coverage: list[dict[str, Any]]


@runtime_checkable
class HopFeed(Protocol):
    """What `LivePath` follows: a `Monitor`, or what gives the hops of a recording as one would."""

    @property
    def started(self) -> bool:
        """Whether it was ever started."""

    @property
    def running(self) -> bool:
        """Whether it goes on now."""

    def start(self) -> object:
        """Begin, or raise."""

    def stop(self) -> None:
        """End, and keep what was seen; safe to call again."""

    def hops(self) -> pd.DataFrame:
        """Return every probe to a hop so far, as in `netlab.schemas.HOPS`."""

    def end_to_end(self) -> pd.DataFrame:
        """Return every probe through to the target, in the same form."""


@dataclass(slots=True)
class Watched:
    """A feed that follows a monitor; paused, it keeps what was seen last while probing goes on."""

    monitor: HopFeed
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
        """Return what is known now, or was when it was paused; the same again if nothing came since."""
        if self.paused and self.last is not None:
            return self.last
        hops, through = self.monitor.hops(), self.monitor.end_to_end()
        seen = tuple((len(probes), probes["run"].max()) for probes in (hops, through) if len(probes))
        if self.last is None or seen != self.last.seen:
            found = Given(hops, through)
            self.last = Sight(
                seen=seen,
                stats=found.stats(),
                through=through["ttl"].nunique(),
                verdicts=found.explain(),
                runs=found.runs(),
                changes=found.changes(),
                charts=charts(extent.within_path(concat([hops, through]))),
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
        If an option cannot be right, or options come with a monitor that has its own.
    ProbeError
        If the target has no address or no route.
    CapabilityError
        When it starts, where `netlab.path.monitor` would.

    Notes
    -----
    Each hop has a chart of its round-trip times over the rounds, all on one scale: bands from the 5 to the
    95 % and from the 25 to the 75 % quantile, the median as a line, losses as bars from the top. The last row
    is the end-to-end probe. Below them is which path each round took. While paused, probing goes on unseen.

    Examples
    --------
    >>> import netlab.panels
    >>> panel = netlab.panels.LivePath("127.0.0.1")
    >>> panel.state.value
    'not started'
    >>> panel.close()
    """

    def __init__(self, target: str | HopFeed, **options: Any) -> None:
        if not isinstance(target, HopFeed):
            monitor(target, **options)  # refuses what cannot be right here and not at a click
        elif options:
            raise BadInput(
                f"{next(iter(options))!r} comes with a monitor that has its options already",
                fix="Give a monitor, or the target and options of a new one",
            )
        self._target = target
        self._hops, self._courses, self._picture = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self._foot = widgets.HTML()
        self._drawn: object = None
        beside = widgets.HBox([widgets.VBox([self._hops, self._courses]), self._picture])
        beside.add_class("netlab-beside")
        super().__init__(
            lambda: Watched(target if isinstance(target, HopFeed) else monitor(target, **options)),
            [beside, self._foot],
            duration_s=options.get("duration_s"),
        )

    def __repr__(self) -> str:
        whose = "of" if isinstance(self._target, HopFeed) else "to"
        target = visible(self._target, _LONGEST_TARGET)
        return f"<netlab LivePath {UNSAVED} {whose} {target}: {self.state.value}>"

    def _read(self, feed: Watched) -> Sight:
        return feed.read()

    def _show(self, seen: Sight) -> None:
        self._hops.value = hop_table(seen.stats, seen.verdicts, seen.charts, through=seen.through)
        self._courses.value = timeline(seen.runs, seen.changes)
        self._foot.value = gaps(seen.coverage)
        shape = frozenset(seen.graph.edges), seen.runs["run"].max() // _PICTURE_EVERY if len(seen.runs) else 0
        if shape != self._drawn and len(seen.graph) > 1:
            self._drawn = shape
            self._picture.value = sketched(seen.graph)
