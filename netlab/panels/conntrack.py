"""`netlab.panels.LiveConntrack`: translated connections, and how full the table is."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pandas as pd

from netlab import checks
from netlab.agent.delegation import delegated
from netlab.errors import BadInput
from netlab.frames import Missing
from netlab.kernel import spaces
from netlab.kernel.conntrack import conntrack
from netlab.kernel.ctfill import Fill, conntrack_fill
from netlab.kernel.nat import nat
from netlab.panels.listing import LiveTable
from netlab.panels.live import Dated, Feed
from netlab.panels.table import Field, Searched, Table, number, said
from netlab.panels.words import ends
from netlab.schemas import CONNTRACK, NAT
from netlab.views.text import DASH, octets, seconds, share

_SEARCHED: list[Searched] = [
    "protocol", ("src", "sport"), ("dst", "dport"), ("reply_src", "reply_sport"),
    ("reply_dst", "reply_dport"), "state", "status", "nat",
]  # fmt: skip
_IDENTITY = ["netns", "id", "protocol", "src", "sport", "dst", "dport", "zone"]
_NEARLY_FULL = 0.9


def _end(address: str, port: str) -> Any:
    return lambda rows: ends(rows[address], rows[port])


def _answering(address: str, title: str, meaning: str, port: str) -> Field:
    return Field(address, title, meaning, by=address, text=_end(address, port))


def _kind(rows: pd.DataFrame) -> list[str]:
    column = rows["kind"] if "kind" in rows else rows["nat"]
    return column.astype("string").fillna(DASH).tolist()


def _state(rows: pd.DataFrame) -> list[str]:
    """Return TCP's state, and what the colour of a row says, in words."""
    states = rows["state"].astype("string").fillna("").tolist()
    silent = ["no answer" if is_silent else "" for is_silent in _unanswered(rows)]
    return [", ".join(filter(None, said)) or DASH for said in zip(states, silent, strict=True)]


_FIELDS = [
    Field("protocol", "Protocol", "what is tracked", by="protocol", text=said("protocol", str)),
    Field("kind", "Translation", "what is translated, and how", by="nat", text=_kind),
    Field("from", "Source", "source of the original direction", by="src", text=_end("src", "sport")),
    Field("to", "Destination", "destination of the original direction", by="dst", text=_end("dst", "dport")),
    _answering("reply_src", "Answers from", "source of the reply", "reply_sport"),
    _answering("reply_dst", "Answers to", "destination of the reply", "reply_dport"),
    Field("state", "State", "TCP's state as conntrack sees it, and no answer yet", by="state", text=_state),
    number("timeout_s", "Expires in", "without traffic", seconds),
    number("bytes", "Bytes", "original direction", octets),
    number("reply_bytes", "Reply", "reply direction", octets),
]


@runtime_checkable
class Tables(Protocol):
    """Whose tables are dumped: this host's, or those of the host that `netlab.connect()` returned."""

    def conntrack(self, *, netns: spaces.Spaces) -> pd.DataFrame:
        """Return the entries, as in `netlab.schemas.CONNTRACK`."""

    def nat(self, *, netns: spaces.Spaces) -> pd.DataFrame:
        """Return those that are translated, as in `netlab.schemas.NAT`."""

    def conntrack_fill(self, *, netns: spaces.Spaces) -> tuple[list[Fill], list[Missing]]:
        """Return how full the tables are, and which of them did not tell."""


class Here:
    """The tables of this host; an agent reads them where this process may not."""

    conntrack = staticmethod(delegated(conntrack))
    nat = staticmethod(delegated(nat))
    conntrack_fill = staticmethod(delegated(conntrack_fill))


@dataclass(slots=True)
class Dumps:
    """A feed that dumps the entries of *netns* each time it is asked, and keeps the last dump when paused."""

    tables: Tables
    netns: spaces.Spaces
    translated: bool
    duration_s: float | None = None
    asked: str = "new"
    began_s: float = 0.0
    last: tuple[pd.DataFrame, list[Fill]] | None = None

    @property
    def state(self) -> str:
        """One of new, running, paused, stopped; it stops by itself when its time is over."""
        over = self.duration_s is not None and time.monotonic() - self.began_s >= self.duration_s
        return "stopped" if over and self.asked != "new" else self.asked

    def start(self) -> None:
        """Take the first dump, which raises where this process may not."""
        self.asked, self.began_s = "running", time.monotonic()
        self.read()

    def pause(self) -> None:
        """Keep what was read last."""
        self.asked = "paused"

    def resume(self) -> None:
        """Read again."""
        self.asked = "running"

    def stop(self) -> None:
        """Keep what was read last."""
        self.asked = "stopped"

    def read(self) -> tuple[pd.DataFrame, list[Fill]]:
        """Return the entries and how full the tables are, as they are now or were last."""
        if self.state == "running" or self.last is None:
            levels, missing = self.tables.conntrack_fill(netns=self.netns)
            dump = self.tables.nat if self.translated else self.tables.conntrack
            entries = dump(netns=self.netns)
            entries.attrs["coverage"] = [*entries.attrs["coverage"], *map(asdict, missing)]
            self.last = entries, levels
        return self.last


@runtime_checkable
class TrackedFeed(Feed, Dated, Protocol):
    """What `LiveConntrack` shows instead of this host's tables: those of a recording, as it is played."""

    def conntrack(self) -> pd.DataFrame:
        """Return the entries as they are then, as in `netlab.schemas.CONNTRACK`."""

    def nat(self) -> pd.DataFrame:
        """Return those that are translated, as in `netlab.schemas.NAT`."""


@dataclass(slots=True)
class Played:
    """A feed of the tables of a recording; how full the kernel's was then, nobody knows."""

    past: TrackedFeed
    translated: bool

    @property
    def state(self) -> str:
        """One of new, running, paused, stopped."""
        return self.past.state

    def now(self) -> pd.Timestamp:
        """Return the moment that is shown."""
        return self.past.now()

    def start(self) -> None:
        """Begin to play; raises where the recording has no such table."""
        self.read()
        self.past.start()

    def pause(self) -> None:
        """Stay at this moment."""
        self.past.pause()

    def resume(self) -> None:
        """Go on from this moment."""
        self.past.resume()

    def stop(self) -> None:
        """End at this moment."""
        self.past.stop()

    def read(self) -> tuple[pd.DataFrame, list[Fill]]:
        """Return the entries as they were then."""
        return (self.past.nat() if self.translated else self.past.conntrack()), []


def _translated_first(rows: pd.DataFrame) -> npt.NDArray[np.intp]:
    return np.lexsort((-rows["timeout_s"].fillna(-1).to_numpy(np.int64), rows["nat"].isna().to_numpy(bool)))


def _unanswered(rows: pd.DataFrame) -> npt.NDArray[np.bool_]:
    return ~rows["status"].astype("string").str.contains("seen-reply", regex=False).fillna(
        value=True
    ).to_numpy(bool)


class LiveConntrack(LiveTable[Dumps | Played, tuple[pd.DataFrame, list[Fill]]]):
    """A table of tracked connections as they are now, and a gauge of how full the kernel's table is.

    Parameters
    ----------
    source
        A recording with such a table as `netlab.replay` plays it, a host that `netlab.connect()` returned, or
        nothing: then this host's.
    netns
        As for `netlab.conntrack()`: a name, a path, a process id, a list of those, "all", or None.
    translated
        Show only translated connections, with the kind of translation; False shows all.
    duration_s
        Stop by itself after so many seconds.

    Raises
    ------
    BadInput
        If an option cannot be right, or comes with a recording that has it in it.
    CapabilityError
        When it starts, without CAP_NET_ADMIN.
    CaptureError
        When it starts, if the recording has no such table.

    Notes
    -----
    Each refresh is a dump, at most 4 in a second; a dump that takes long is followed by three times as long
    without one. Connections that have seen no answer yet are marked and say so.

    Examples
    --------
    >>> import netlab.panels
    >>> panel = netlab.panels.LiveConntrack(netns="all")
    >>> panel.state.value
    'not started'
    >>> panel.close()
    """

    @checks.options
    def __init__(
        self,
        source: TrackedFeed | Tables | None = None,
        *,
        netns: spaces.Spaces = None,
        translated: bool = True,
        duration_s: float | None = None,
    ) -> None:
        checks.flag("translated", translated)
        if duration_s is not None:
            checks.positive("duration_s", duration_s, unit="seconds")
        tables = Here() if source is None else source
        if not isinstance(tables, Tables):
            _refuse_options(tables, netns=netns, duration_s=duration_s)
        super().__init__(
            lambda: (
                Dumps(tables, netns, translated, duration_s)
                if isinstance(tables, Tables)
                else Played(tables, translated)
            ),
            Table(_FIELDS, searched=_SEARCHED, identity=_IDENTITY, order=_translated_first, bad=_unanswered),
            NAT if translated else CONNTRACK,
            duration_s=duration_s,
        )

    def _read(self, feed: Dumps | Played) -> tuple[pd.DataFrame, list[Fill]]:
        return feed.read()

    def _show(self, seen: tuple[pd.DataFrame, list[Fill]]) -> None:
        entries, levels = seen
        fullest_first = sorted(levels, key=lambda level: -level.share)
        self._list("".join(map(_gauge, fullest_first)), entries)


def _refuse_options(source: object, **options: object) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise BadInput(f"{given[0]!r} comes with a recording that has it in it", fix="Leave it out")
    if not isinstance(source, TrackedFeed):
        raise BadInput(
            f"a panel cannot follow {type(source).__name__} objects",
            fix="Give what netlab.replay() or netlab.connect() returned",
        )


def _gauge(level: Fill) -> str:
    width = min(100, 100 * level.share)
    kind = "netlab-bad" if level.share >= _NEARLY_FULL else "netlab-main"
    return (
        f'<div class="netlab-gauge"><span>namespace {level.netns}</span>'
        f'<span class="netlab-bar"><i class="{kind}" style="width: {width:.1f}%"></i></span>'
        f"<span>{level.entries:,} of {level.most:,} entries ({share(level.entries, level.most)})</span>"
        "</div>"
    )
