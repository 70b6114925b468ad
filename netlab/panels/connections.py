"""`netlab.panels.LiveConnections`: connection attempts as they come, failures first."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pandas as pd

from netlab.panels.inquiry import Inquiry, way
from netlab.panels.listing import LiveTable
from netlab.panels.live import Dated, Feed
from netlab.panels.path import LivePath
from netlab.panels.rates import activity
from netlab.panels.sources import feed_of
from netlab.panels.table import Field, Searched, Table, number, said
from netlab.panels.words import ends, owner
from netlab.schemas import CONNECTIONS
from netlab.views.text import DASH, milliseconds, octets, seconds

_SEARCHED: list[Searched] = [
    "error", "state", "protocol", "process", "pid", ("local_address", "local_port"),
    ("remote_address", "remote_port"), "remote_name", "container", "reason", "direction",
]  # fmt: skip
_ARROWS = {"outgoing": "→", "incoming": "←"}
_IDENTITY = ["protocol", "cookie", "opened_at", "local_port", "remote_address", "remote_port"]


def _outcome(rows: pd.DataFrame) -> list[str]:
    return rows["error"].astype("string").fillna(rows["state"].astype("string")).fillna(DASH).tolist()


def _arrow(rows: pd.DataFrame) -> list[str]:
    return rows["direction"].astype("string").map(_ARROWS).fillna("?").tolist()


def _local(rows: pd.DataFrame) -> list[str]:
    return ends(rows["local_address"], rows["local_port"])


def _remote(rows: pd.DataFrame) -> list[str]:
    return ends(rows["remote_address"], rows["remote_port"])


_FIELDS = [
    Field("outcome", "Outcome", "the failure's errno, or the state", by="error", text=_outcome),
    Field("process", "Process", "owner and its process id", by="process", text=owner),
    Field("protocol", "Protocol", "tcp or udp", by="protocol", text=said("protocol", str)),
    Field("local", "Local", "this end, as the socket sees it", by="local_address", text=_local),
    Field("way", "Way", "who began: → this end, ← the peer", by="direction", text=_arrow),
    Field("remote", "Remote", "the peer, as the socket sees it", by="remote_address", text=_remote),
    number("connect_ms", "Connect", "from the first SYN to the established state", milliseconds),
    number("rtt_ms", "RTT", "smoothed round-trip time", milliseconds),
    number("bytes_sent", "Sent", "payload sent", octets),
    number("bytes_received", "Received", "payload received", octets),
    number("retransmits", "Resent", "segments sent again", str),
    number("duration_s", "Age", "how long it lasted, or has lasted so far", seconds),
]


def _failed(rows: pd.DataFrame) -> npt.NDArray[np.bool_]:
    return rows["error"].notna().to_numpy(bool)


def _failures_first(rows: pd.DataFrame) -> npt.NDArray[np.intp]:
    """Return the order of attention: failures, then the rest, the newest first in both."""
    opened = rows["opened_at"].fillna(pd.Timestamp(0, tz="UTC")).astype("int64").to_numpy()
    return np.lexsort((-opened, ~_failed(rows)))


@runtime_checkable
class ConnectionFeed(Feed, Protocol):
    """What `LiveConnections` follows: a `Capture`, or what gives the rows of a recording as one would.

    One that is also `Dated` counts its rates back from the moment that it shows, and its rows are not asked
    about: their sockets and routes are not those of this host, or not of now.
    """

    def connections(self) -> pd.DataFrame:
        """Return every attempt so far, as in `netlab.schemas.CONNECTIONS`; called from another thread."""


class LiveConnections(LiveTable[ConnectionFeed, pd.DataFrame]):
    """A table of connection attempts that follows a capture: failures first, click a row for all of it.

    Parameters
    ----------
    source
        What to follow: a `Capture`, or a recording as `netlab.replay` plays it, or nothing: then the panel
        makes its own capture when it starts.
    **options
        What `netlab.capture()` takes, such as `port=443`, `process="curl"` or `duration_s=60`.

    Raises
    ------
    BadInput
        If an option cannot be right, or options come with a source that has its own.
    CapabilityError
        When it starts, if this process may not attach eBPF programs.

    Notes
    -----
    The table is sorted and filtered here and the browser gets the rows in sight, so its length costs the
    browser nothing. It is shown anew at most 4 times a second. `feed` is the capture, `selected` the row
    that was clicked, and `raise_if_failed()` raises what went wrong in the background.

    A click shows the row in full, its way through this host (`netlab.explain`) and a button that traces
    the path to the peer, behind the translation if there is one, from the connection's network namespace:
    TCP SYNs or UDP datagrams to the connection's port, as `LivePath` sends them.

    Examples
    --------
    >>> import netlab.panels
    >>> panel = netlab.panels.LiveConnections(port=443)
    >>> panel.state.value
    'not started'
    >>> panel.close()
    """

    def __init__(self, source: ConnectionFeed | None = None, **options: Any) -> None:
        make = feed_of(source, ConnectionFeed, options)
        self.inquiry = Inquiry()
        self._asked_about = ""
        super().__init__(
            make,
            Table(_FIELDS, searched=_SEARCHED, identity=_IDENTITY, order=_failures_first, bad=_failed),
            CONNECTIONS,
            asked=[self.inquiry],
            duration_s=options.get("duration_s"),
        )

    def trace_path(self) -> LivePath:
        """Trace the path of the selected connection, as its button does; return the panel that shows it.

        Raises
        ------
        BadInput
            If no row is selected, it has no peer, or its network namespace is gone.
        ProbeError
            If there is no route to the peer.
        """
        self._refuse_closed()
        return self.inquiry.trace_path()

    def _read(self, feed: ConnectionFeed) -> pd.DataFrame:
        return feed.connections()

    def _show(self, seen: pd.DataFrame) -> None:
        new, failed = seen["opened_at"], seen["closed_at"][_failed(seen)]
        self._list(activity(self.feed, "new", new, failed), seen)

    def _show_details(self, change: dict[str, Any]) -> None:
        super()._show_details(change)
        key = str(self.table.asked.get("selected"))
        if key != self._asked_about:  # not each time that the same row has changed
            self._asked_about = key
            if not isinstance(self.feed, Dated):  # of a recording nothing can be asked any more
                self.inquiry.ask(self.selected)
                self._spawn(self._explaining(key))

    async def _explaining(self, key: str) -> None:
        if (row := self.selected) is not None:
            told = await asyncio.get_running_loop().run_in_executor(self._worker, way, row)
            if key == self._asked_about:
                self.inquiry.way.value = told
