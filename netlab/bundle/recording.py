"""`netlab.record()`: what a capture or a monitor sees, written while it runs: a crash loses little."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from netlab import checks, parquet
from netlab.bundle import archive, manifest, sources as followed
from netlab.bundle.archive import HISTORY, Archive
from netlab.bundle.contents import Item, Segment, schema_of
from netlab.bundle.history import REPLACES
from netlab.bundle.loading import UNREADABLE, history_of
from netlab.bundle.manifest import Entry, Metadata
from netlab.bundle.moments import Moments
from netlab.bundle.saving import (
    checked_name,
    checked_notes,
    free_name,
    opened_for,
    segment_name,
    tables,
)
from netlab.bundle.tracks import Change, Track
from netlab.closing import Closes
from netlab.errors import BadInput, BundleError
from netlab.frames import Gap, Missing
from netlab.schemas import ALL


@dataclass(frozen=True, slots=True)
class _Look:
    """What a table was found to be, and what is to be written of it."""

    track: Track
    change: Change
    member: tuple[str, bytes] | None


class Recording(Closes):
    """A file that grows with what it follows until it is closed; made by `netlab.record`.

    `failure` is what kept the last writing from succeeding; what it missed is written the next time. A table
    that cannot be read does not keep the others from being written.
    """

    @checks.options
    def __init__(
        self, path: Path, tracks: list[Track], *, every_s: float, origin: Metadata, held: dict[str, Item]
    ) -> None:
        self.path = path
        self.failure: Exception | None = None
        self._tracks = tracks
        self._origin = origin
        self._held = held
        self._every_s = every_s
        self._moments = Moments()
        self._unread: dict[str, Exception] = {}  # tables that could not be read the last time
        self._lock = threading.Lock()
        self._ended = threading.Event()
        first = self._looks()
        self._refuse_unread()
        self._file = archive.Growing(path, self._begin(first))
        for look in first:
            look.track.accept(look.change, written=True)
        self._writer = threading.Thread(target=self._write_until_closed, name="netlab-record", daemon=True)
        self._writer.start()

    def __repr__(self) -> str:
        names = ", ".join(f"{track.name}: {track.told} rows" for track in self._tracks)
        state = "closed" if self._ended.is_set() else "recording"
        failing = "" if self.failure is None else f", failing: {self.failure}"
        return f"<netlab {state} to {self.path}: {names}{failing}>"

    def write(self) -> None:
        """Write what has changed since the last time, on the disk when this returns."""
        with self._lock:
            for look in self._looks():
                if look.member is not None:
                    self._file.append(*look.member)
                look.track.accept(look.change, written=look.member is not None)
            self._refuse_unread()

    def close(self) -> None:
        """Write the last changes and complete the file; safe to call again.

        Raises
        ------
        BundleError
            If a table cannot be read any more, which its coverage then says, or if the file cannot be
            written: it then keeps what was written before, and `netlab.load` reads it.
        """
        if self._ended.is_set():
            return
        self._ended.set()
        self._writer.join()
        try:
            self._try_to_write()
            unwritten = self.failure if self.failure not in self._unread.values() else None
            if unwritten is not None:
                raise BundleError(
                    f"the last changes are not in {self.path}: {unwritten}",
                    fix="netlab.load() reads what was written before",
                ) from unwritten
            self._complete()
            if self.failure is not None:
                raise BundleError(
                    f"{', '.join(self._unread)} could not be read at the end: {self.failure}",
                    fix=f"What was read before, and all else, is in {self.path}",
                ) from self.failure
        finally:
            self._file.close()

    def _write_until_closed(self) -> None:
        while not self._ended.wait(self._every_s):
            self._try_to_write()

    def _try_to_write(self) -> None:
        try:
            self.write()
        except Exception as error:  # noqa: BLE001 - whoever closes it is told
            self.failure = error
        else:
            self.failure = None

    def _looks(self) -> list[_Look]:
        """Look at all tables, and prepare what is to be written of them."""
        changes: list[tuple[Track, Change]] = []
        self._unread = {}
        for track in self._tracks:
            try:
                changes.append((track, track.change()))
            except Exception as error:  # noqa: BLE001 - whoever writes or closes is told
                self._unread[track.name] = error
        at_ns = self._moments.next_ns()
        for track, _ in changes:
            track.read_ns = at_ns
        return [_Look(track, change, self._member(track, change)) for track, change in changes]

    def _refuse_unread(self) -> None:
        for error in self._unread.values():
            raise error

    def _member(self, track: Track, change: Change) -> tuple[str, bytes] | None:
        """Return what tells of a change; None if nothing changed."""
        frame = change.now.frame
        frame.attrs["coverage"] = [*track.coverage(change), *map(asdict, self._moments.missing())]
        if not change.differs(track.before):
            return None
        rows = change.rows.reset_index(drop=True)
        rows.attrs = {"schema": track.schema, "coverage": frame.attrs["coverage"]}
        data = parquet.write(rows, schema_of(rows), {REPLACES: change.replaces.tolist()})
        return segment_name(track.name, self._moments.last_ns), data

    def _begin(self, first: list[_Look]) -> Iterator[tuple[str, bytes]]:
        """Return the members that the file has from the start: what it held before, and the first look."""
        coming = [
            Entry(track.name, ALL[track.schema], None, None, (), (self._origin,)) for track in self._tracks
        ]
        held = [item.entry(name) for name, item in self._held.items()]
        yield manifest.NAME, manifest.to_json([*held, *coming])
        yield from tables(self._held)
        yield from (look.member for look in first if look.member is not None)

    def _complete(self) -> None:
        """Write the file anew, with whole tables and a directory, in the place of the one that grew."""
        try:
            with archive.alone(self.path), self._file.reader() as file, Archive(file) as grown:
                target = self.path if self._file.is_at(self.path) else archive.beside(self.path)
                archive.write(target, self._completed(grown))
        except UNREADABLE as error:  # as where the rows of hours need more memory than they may have
            raise BundleError(
                f"{self.path} has what was seen, but could not be made whole: {error}",
                fix="netlab.load() reads it as it is, with most_bytes= where it is large",
            ) from error
        if target != self.path:
            raise BundleError(
                f"{self.path} was moved or replaced during the recording, which is in {target}",
                fix="Do not save to a file that is being recorded",
            )

    def _completed(self, grown: Archive) -> Iterator[tuple[str, bytes]]:
        ended = replace(self._origin, ended_at=self._moments.last())
        recorded = {track.name: self._whole(track, grown, ended) for track in self._tracks}
        segments = {track.name: track.segments for track in self._tracks}
        entries = [item.entry(name) for name, item in self._held.items()]
        entries += [replace(item.entry(name), segments=segments[name]) for name, item in recorded.items()]
        yield manifest.NAME, manifest.to_json(entries)
        yield from tables({name: replace(item, segments=()) for name, item in self._held.items()} | recorded)
        for name in grown.names:  # one by one: they may be many
            if name.startswith(HISTORY):
                yield name, grown.read(name)

    def _whole(self, track: Track, grown: Archive, ended: Metadata) -> Item:
        """Return the whole table: as it is now, and with what its keeper has let go of."""
        frame = track.now
        if track.let_go:
            segments = tuple(_segments(track.name, grown))
            past = history_of(segments, ALL[track.schema], made_by=ended.netlab)
            known, frame = frame, past.at(self._moments.last_ns)
            frame.attrs = known.attrs
        if track.name in self._unread:
            since = f"{datetime.fromtimestamp(track.read_ns // 10**9, UTC):%Y-%m-%d %H:%M:%S} UTC"
            why = f"not read since {since}: {self._unread[track.name]}"
            gap = Missing("rows", Gap.INCOMPLETE, None, why)
            frame.attrs["coverage"] = [*frame.attrs["coverage"], asdict(gap)]
        return Item(frame, (ended,))


def _segments(name: str, grown: Archive) -> Iterator[Segment]:
    start = f"{HISTORY}{name}/"
    for member in grown.names:
        if member.startswith(start):
            yield Segment(int(Path(member).stem), grown.read(member))


def record(
    path: str | os.PathLike[str],
    /,
    *sources: Any,
    every_s: float = 5.0,
    notes: str = "",
    overwrite: bool = False,
    append: bool = False,
    **named: Any,
) -> Recording:
    """Write what captures and monitors see to a file while they run, so that a crash loses seconds.

    At first everything is written, and then every *every_s* what has changed, each time durably. Closed, the
    file is like one that `save` made, with whole tables, and keeps the changes for `replay`. Of a file that
    was not closed, because the process was killed, `load` reads all up to the last change that is whole.

    Parameters
    ----------
    path
        The file to make, by custom ``*.netlab``.
    sources
        Captures that run: their connections, cost and, if they were asked for, events and drops; monitors of
        `netlab.path.monitor`: their probes.
    every_s
        How often to look for changes, in seconds, 0.1 or more.
    notes
        What a reader should know about it.
    overwrite, append
        Replace a file that is there already, or keep what it holds and add to it.
    named
        The same as *sources*, under names of your own; also functions that return frames, such as
        ``nat=netlab.nat``, which are called each time.

    Returns
    -------
    Recording
        Already writing: leave it by a `with` block, or call `close()`.

    Raises
    ------
    BadInput
        If a source is none, or has no table that can be followed.
    BundleError
        If the file exists, or cannot be written.

    Notes
    -----
    A capture keeps a bounded number of closed connections; the recording keeps all that it was told of. Rows
    are compared by a 64-bit hash. `netlab.schemas.COST` of the capture is part of the file.

    Examples
    --------
    >>> import netlab
    >>> with netlab.capture(mode="poll") as cap:
    ...     with netlab.record("/tmp/incident.netlab", cap, overwrite=True):
    ...         pass
    >>> netlab.load("/tmp/incident.netlab")["connections"].attrs["schema"]
    'connections'
    """
    target = checks.path(path)
    if checks.positive("every_s", every_s, unit="seconds", most=threading.TIMEOUT_MAX) < 0.1:
        raise BadInput(f"every_s {every_s!r} is below 0.1 seconds", fix="Give 0.1 or more")
    origin = Metadata.of_here(checked_notes(notes), ended=False)
    given = [*((checked_name(name), source) for name, source in named.items()), *((None, s) for s in sources)]
    found = [table for name, source in given for table in followed.tables(source, name)]
    if not found:
        raise BadInput("there is nothing to record", fix=followed.FIX)
    with archive.alone(target):
        held = opened_for(target, overwrite=overwrite, append=append)
        tracks: list[Track] = []
        for table in found:
            name = free_name(table.name, [*held, *(track.name for track in tracks)])
            tracks.append(Track(name, table.schema, table.read))
        return Recording(target, tracks, every_s=every_s, origin=origin, held=held)
