"""`netlab.load()`: a recording back in memory; of one that was cut off, what is whole, and what is lost."""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime

import pandas as pd
import pyarrow as pa

from netlab import checks, parquet
from netlab.bundle import manifest
from netlab.bundle.archive import HISTORY, Archive
from netlab.bundle.contents import Bundle, Item, Segment
from netlab.bundle.history import History
from netlab.bundle.manifest import Entry
from netlab.checks import whole
from netlab.errors import BundleError
from netlab.frames import Gap, Missing, Schema

MOST_BYTES = 4 << 30

_SEGMENT = re.compile(HISTORY + r"([A-Za-z_][A-Za-z0-9_]{0,63})/([0-9]{20})\.parquet", re.ASCII)
# What the zip, JSON and Parquet readers raise on bytes that are not what they claim to be.
UNREADABLE = (
    ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError, TypeError,
    ValueError, zipfile.BadZipFile, zlib.error, pa.ArrowException,
)  # fmt: skip


@checks.options
def load(path: str | os.PathLike[str], /, *, most_bytes: int = MOST_BYTES) -> Bundle:
    """Read a file that `save` or `record` wrote, also one that is still being written or was cut off.

    Parameters
    ----------
    path
        The file.
    most_bytes
        Refuse a file that claims to need more memory than this, in bytes.

    Returns
    -------
    Bundle
        The frames by name, with their dtypes and coverage, and the recording's metadata. Columns that the
        file lacks or that this netlab does not know are named in the coverage, and so is what is lost of a
        file that is not whole.

    Raises
    ------
    BundleError
        If the file cannot be read, is damaged, too large, or made by a newer netlab.

    Examples
    --------
    >>> import netlab
    >>> path = netlab.save("/tmp/incident.netlab", netlab.connections(), overwrite=True)
    >>> netlab.load(path)["connections"].attrs["schema"]
    'connections'
    """
    limit = whole("most_bytes", most_bytes, 1, 1 << 50)
    source = checks.path(path)
    with foreign(source), source.open("rb") as file, Archive(file) as archive:
        return _read(archive, limit)


@contextmanager
def foreign(source: object) -> Iterator[None]:
    """Refuse in words what turns out, in the block, not to be what it claims to be."""
    try:
        yield
    except FileNotFoundError as error:
        raise BundleError(f"there is no file {source}", fix="Check the path") from error
    except UNREADABLE as error:
        why = ascii(f"{error}")[1:-1][:200]  # may quote the file: no control characters, no end of line
        raise BundleError(
            f"cannot read {source} as a netlab recording: {why}",
            fix="Copy the file again from where it was made, or unzip it and try pandas.read_parquet",
        ) from error


def _read(archive: Archive, limit: int) -> Bundle:
    if sum(map(archive.size, archive.names)) > limit:
        raise ValueError(f"it claims to unpack to more than {limit} bytes; pass most_bytes= to allow it")
    if archive.size(manifest.NAME) > manifest.MOST_BYTES:
        raise ValueError(f"its {manifest.NAME} is larger than {manifest.MOST_BYTES} bytes")
    entries = manifest.of_json(archive.read(manifest.NAME))
    segments = _segments(archive, entries)
    return Bundle({entry.name: _item(archive, entry, segments[entry.name], limit) for entry in entries})


def _segments(archive: Archive, entries: list[Entry]) -> dict[str, tuple[Segment, ...]]:
    """Return the segments of each frame in the order of time; refuse members that no entry accounts for."""
    listed = {manifest.NAME, *(f"{entry.name}.parquet" for entry in entries)}
    found: dict[str, list[Segment]] = {entry.name: [] for entry in entries}
    for name in archive.names:
        if name in listed:
            continue
        match = _SEGMENT.fullmatch(name)
        if match is None or match[1] not in found:
            raise ValueError(f"its members are not those that {manifest.NAME} lists")
        found[match[1]].append(Segment(int(match[2]), archive.read(name)))
    return {name: tuple(sorted(each, key=lambda segment: segment.at_ns)) for name, each in found.items()}


def _item(archive: Archive, entry: Entry, segments: tuple[Segment, ...], limit: int) -> Item:
    """Return the frame of *entry*: as it stands in the file, or as far as its segments tell of it."""
    name = f"{entry.name}.parquet"
    is_whole = archive.lost_bytes is None
    complete = name in archive.names and entry.rows is not None
    if is_whole and not (complete and len(segments) == entry.segments):
        raise ValueError(f"its members are not those that {manifest.NAME} lists")
    if complete:
        frame = _table(archive.read(name), entry, limit)
        lost = [] if entry.segments == len(segments) else [_lost_segments(entry, segments)]
    else:
        history = history_of(segments, entry.schema, made_by=entry.origins[0].netlab, most_bytes=limit)
        frame = history.at(segments[-1].at_ns if segments else 0)
        lost = [_lost(entry, segments, archive.lost_bytes or 0)]
    frame.attrs.update(entry.attrs)
    frame.attrs["coverage"] += map(asdict, lost)
    return Item(frame, entry.origins, segments)


def _table(data: bytes, entry: Entry, limit: int) -> pd.DataFrame:
    return parquet.read(
        [data],
        _held(data, entry.schema),
        rows=entry.rows,
        missing=list(entry.missing),
        most_bytes=limit,
        made_by=entry.origins[0].netlab,
    )


def history_of(
    segments: tuple[Segment, ...], schema: Schema, *, made_by: str, most_bytes: int = MOST_BYTES
) -> History:
    """Return the past that *segments* tell."""
    held = _held(segments[0].data, schema) if segments else schema
    return History.of_segments(segments, held, most_bytes=most_bytes, made_by=made_by)


def _held(data: bytes, schema: Schema) -> Schema:
    """Return *schema* as it is in *data*: merged frames have the host of each row."""
    return schema.with_host() if schema.host_column in parquet.names(data) else schema


def _lost_segments(entry: Entry, segments: tuple[Segment, ...]) -> Missing:
    gone = (entry.segments or 0) - len(segments)
    return Missing("past of the rows, for replay()", Gap.LOST, gone, f"segments: {_CUT}")


_CUT = "the file is cut off before them"


def _lost(entry: Entry, segments: tuple[Segment, ...], lost_bytes: int) -> Missing:
    """Say what is not known of a frame that is not in the file as a whole."""
    if entry.rows is not None and not segments:
        return Missing("rows", Gap.LOST, entry.rows, _CUT)
    until = f"{_utc(segments[-1].at_ns)}" if segments else "its start"
    tail = f", and {lost_bytes} bytes are of no whole segment" if lost_bytes else ""
    detail = f"the recording was not closed, or the file is cut off: nothing after {until} is in it{tail}"
    return Missing("rows", Gap.INCOMPLETE, None, detail)


def _utc(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns / 1e9, UTC).isoformat(timespec="milliseconds")
