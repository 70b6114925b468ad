"""`netlab.replay()`: a recording that looks like the capture or monitor that it was made of."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from types import TracebackType
from typing import Self

import pandas as pd

from netlab import checks
from netlab.bundle import pasts
from netlab.bundle.accounts import Accounts
from netlab.bundle.contents import Bundle
from netlab.bundle.history import History, Past
from netlab.bundle.loading import MOST_BYTES, foreign, load
from netlab.bundle.overheard import Overheard
from netlab.bundle.playing import Playhead
from netlab.bundle.several import one_of
from netlab.errors import BadInput, CaptureError
from netlab.frames import Gap, Missing, Schema
from netlab.path.findings import Findings
from netlab.schemas import (
    CONNECTIONS,
    CONNTRACK,
    COST,
    DROPS,
    EVENTS,
    HOPS,
    NAT,
)
from netlab.tracer import reasons
from netlab.tracer.life import State

_THROUGH = "end_to_end"  # what `record` calls a monitor's probes to the end


class Replay(Overheard, Findings):
    """Shows a recording as it was at each moment, moving on at *speed*; made by `netlab.replay`.

    It has what a capture has (`connections`, `failures`, `events`, `drops`, `requests`, `dns`, `names`,
    `tls`, their statistics, `cost`, `register`, `delta`), what a monitor has (`hops`, `end_to_end`, `stats`,
    `changes`, `runs`, `explain`), and the tables `conntrack` and `nat` where they were recorded. `now()` is
    the moment that is shown; `seek()` goes to another. What several captures saw is one table, with a
    connection that both saw in it once or counted in the coverage; of several monitors the first is shown.
    """

    def __init__(self, past: Mapping[str, History], playhead: Playhead) -> None:
        self._past = past
        self._playhead = playhead
        self._accounts = Accounts()

    def __repr__(self) -> str:
        return f"<netlab replay at {self.now():%Y-%m-%d %H:%M:%S} UTC: {self.state}>"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- time --------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """Where it is in its life, which is new, running, paused or stopped."""
        return self._playhead.state

    @property
    def started(self) -> bool:
        """Whether it was started."""
        return self.state is not State.NEW

    @property
    def running(self) -> bool:
        """Whether it has begun and not ended."""
        return self.state in {State.RUNNING, State.PAUSED}

    @property
    def begin(self) -> pd.Timestamp:
        """The first moment of the recording."""
        return pd.Timestamp(self._playhead.begin_ns, tz="UTC")

    @property
    def end(self) -> pd.Timestamp:
        """The last moment of the recording."""
        return pd.Timestamp(self._playhead.end_ns, tz="UTC")

    def now(self) -> pd.Timestamp:
        """Return the moment of the recording that is shown."""
        return pd.Timestamp(self._playhead.now_ns(), tz="UTC")

    def start(self) -> Self:
        """Begin to play, from the beginning or where `seek` went."""
        self._playhead.start()
        return self

    def pause(self) -> None:
        """Stay at this moment."""
        self._playhead.pause()

    def resume(self) -> None:
        """Go on from this moment."""
        self._playhead.resume()

    def stop(self) -> None:
        """End at this moment, which stays readable; safe to call again."""
        self._playhead.stop()

    def seek(self, to: str | datetime | float) -> None:
        """Go to a moment of the recording.

        Parameters
        ----------
        to
            A time, in UTC if it does not say where, or seconds from the beginning.

        Raises
        ------
        BadInput
            If it is no time within the recording.
        """
        self._playhead.seek(to)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the end, at most *timeout_s*; tell whether it is there. Ctrl-C interrupts."""
        return self._playhead.wait(timeout_s)

    # -- what a capture has ------------------------------------------------------------------------------

    def connections(self) -> pd.DataFrame:
        """Return the connections as they were then (`netlab.schemas.CONNECTIONS`)."""
        return self._at(CONNECTIONS)

    def failures(self) -> pd.DataFrame:
        """Return those that had failed by then."""
        return reasons.failed(self.connections())

    def events(self) -> pd.DataFrame:
        """Return the changes of state until then (`netlab.schemas.EVENTS`)."""
        return self._at(EVENTS)

    def drops(self) -> pd.DataFrame:
        """Return the packets dropped until then (`netlab.schemas.DROPS`)."""
        return self._at(DROPS)

    def conntrack(self) -> pd.DataFrame:
        """Return the tracked connections of then (`netlab.schemas.CONNTRACK`), if they were recorded."""
        return self._at(CONNTRACK)

    def nat(self) -> pd.DataFrame:
        """Return the translated connections of then (`netlab.schemas.NAT`), if they were recorded."""
        return self._at(NAT)

    def cost(self) -> pd.DataFrame:
        """Return what the capture had cost by then (`netlab.schemas.COST`)."""
        return self._at(COST)

    def register(self, client: str) -> None:
        """Begin to keep account for *client* of what changes; safe to call again."""
        self._accounts.register(client, self._playhead.now_ns())

    def delta(self, client: str) -> pd.DataFrame:
        """Return what changed since this client's last call, as in `netlab.schemas.DELTAS`.

        After going back in time that is nothing.

        Raises
        ------
        CaptureError
            If the client has not registered.
        """
        return self._accounts.delta(client, self._the(CONNECTIONS.name), self._playhead.now_ns())

    # -- what a monitor has ------------------------------------------------------------------------------

    def hops(self) -> pd.DataFrame:
        """Return the probes to hops that were known then (`netlab.schemas.HOPS`)."""
        return self._first(self._needed(HOPS.name, through=False))

    def end_to_end(self) -> pd.DataFrame:
        """Return the probes through to the target, if the recording is a monitor's."""
        names = self._names(HOPS.name, through=True)
        return self._first(names) if names else HOPS.empty()

    def _at(self, schema: Schema) -> pd.DataFrame:
        return self._the(schema.name).at(self._playhead.now_ns())

    def _has(self, schema: Schema) -> bool:
        return bool(self._names(schema.name, through=None))

    def _the(self, schema: str) -> Past:
        names = self._needed(schema, through=None)
        return one_of([self._past[name] for name in names])

    def _needed(self, schema: str, *, through: bool | None) -> list[str]:
        names = self._names(schema, through=through)
        if not names:
            raise CaptureError(f"this recording has no {schema}", fix=f"It has {', '.join(self._past)}")
        return names

    def _first(self, names: list[str]) -> pd.DataFrame:
        """Return the first of several monitors' probes: what is asked of them is asked of one path."""
        frame = self._past[names[0]].at(self._playhead.now_ns())
        others = ", ".join(f'netlab.load(path)["{name}"]' for name in names[1:])
        if others:
            gap = Missing(
                HOPS.name, Gap.INCOMPLETE, len(names) - 1, f"only {names[0]} is played: see {others}"
            )
            frame.attrs["coverage"] = [*frame.attrs["coverage"], asdict(gap)]
        return frame

    def _names(self, schema: str, *, through: bool | None) -> list[str]:
        return [
            name
            for name, past in self._past.items()
            if past.rows.attrs["schema"] == schema and through in {None, _THROUGH in name}
        ]


@checks.options
def replay(
    recording: Bundle | str | os.PathLike[str],
    /,
    *,
    speed: float = 1.0,
    at: str | datetime | float | None = None,
    most_bytes: int = MOST_BYTES,
) -> Replay:
    """Play a recording: ask it, or show it in a panel, as if it were the capture or monitor itself.

    Parameters
    ----------
    recording
        What `netlab.load` or `netlab.merge` returned, or the path of a file.
    speed
        How many seconds of the recording pass in one second.
    at
        Where to begin: a time, or seconds from the beginning.
    most_bytes
        Refuse a recording whose past needs more memory than this, in bytes.

    Returns
    -------
    Replay
        Not started yet: enter it with `with`, or call `start()`, or give it to a panel; `seek()` and then
        ask, to look at single moments.

    Raises
    ------
    BadInput
        If an argument cannot be right.
    BundleError
        If the recording cannot be read.

    Notes
    -----
    What `netlab.record` wrote is shown as it was, moment by moment. Of frames that were saved once, only what
    their own times tell is known: rows are there from their beginning, and what is in them from their end on;
    the coverage says so. No privileges are needed and no thread runs.

    Examples
    --------
    >>> import netlab
    >>> path = netlab.save("/tmp/incident.netlab", netlab.connections(), overwrite=True)
    >>> with netlab.replay(path, speed=10) as past:
    ...     past.connections().attrs["schema"]
    'connections'
    """
    held = recording if isinstance(recording, Bundle) else load(recording, most_bytes=most_bytes)
    if not held:
        raise BadInput("this recording is empty", fix="Give one with frames")
    with foreign("the past of this recording"):
        past = pasts.pasts(held.items_by_name, most_bytes=most_bytes)
        begin_ns, end_ns = pasts.span(held.items_by_name, past)
    playhead = Playhead(begin_ns, end_ns, speed)
    if at is not None:
        playhead.seek(at)
    return Replay(past, playhead)
