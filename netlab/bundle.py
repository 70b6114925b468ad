"""Recordings: the frames of an investigation in one file, to open elsewhere, later, without privileges.

A recording is a zip archive. `bundle.json` says when, where and by which netlab it was made, and what
each frame lacks; every frame is a Parquet file that plain `pandas.read_parquet` opens as well. What is
read back is judged as foreign: names, sizes and types are checked, and nothing is unpacked to disk.
"""

from __future__ import annotations

import html
import json
import os
import platform
import re
import secrets
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pandas as pd
import pyarrow as pa

from netlab import __version__, parquet
from netlab.checks import nearest, whole
from netlab.errors import BadInput, BundleError
from netlab.frames import Gap, Missing
from netlab.kernel.processes import printable
from netlab.schemas import ALL

T = TypeVar("T")

VERSION = 1  # of the layout; raised when an older netlab could misread a newer file
_MANIFEST = "bundle.json"
_MOST_MANIFEST_BYTES = 16 << 20
_LONGEST_TEXT = 2000  # of the notes as they are shown
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)
# What the zip, JSON and Parquet readers raise on bytes that are not what they claim to be.
_UNREADABLE = (
    ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError, TypeError,
    ValueError, zipfile.BadZipFile, zlib.error, pa.ArrowException,
)  # fmt: skip


class HasConnections(Protocol):
    """Anything with a connection table, such as a capture."""

    def connections(self) -> pd.DataFrame:
        """Return the connection table."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """Where and when a recording was made, and by what."""

    created_at: datetime
    host: str
    kernel: str
    netlab: str
    notes: str


class Bundle(Mapping[str, pd.DataFrame]):
    """The frames of one recording by name; `metadata` and `notes` say where they come from."""

    def __init__(self, frames: Mapping[str, pd.DataFrame], metadata: Metadata) -> None:
        self._frames = dict(frames)
        self.metadata = metadata

    @property
    def notes(self) -> str:
        """What whoever made the recording wrote about it."""
        return self.metadata.notes

    def __getitem__(self, name: str) -> pd.DataFrame:
        if name not in self._frames:
            raise KeyError(f"no frame {name!r} in this recording. {nearest(str(name), self._frames)}")
        return self._frames[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._frames)

    def __len__(self) -> int:
        return len(self._frames)

    def __repr__(self) -> str:
        return f"<Bundle {', '.join(f'{name}: {len(frame)} rows' for name, frame in self.items())}>"

    def _repr_html_(self) -> str:
        made = self.metadata
        when = f"{made.created_at:%Y-%m-%d %H:%M:%S} UTC"
        origin = f"{made.host}, kernel {made.kernel}, {when}, netlab {made.netlab}"
        rows = "".join(
            f"<tr><td>{name}</td><td>{frame.attrs['schema']}</td><td>{len(frame)}</td>"
            f"<td>{len(frame.attrs['coverage'])}</td></tr>"
            for name, frame in self.items()
        )
        notes = "<br>".join(map(_escaped, self.notes[:_LONGEST_TEXT].splitlines()))
        return (
            f"<p>{_escaped(origin)}</p>"
            "<table><thead><tr><th>frame</th><th>kind</th><th>rows</th><th>gaps</th></tr></thead>"
            f"<tbody>{rows}</tbody></table><p>{notes}</p>"
        )


def _escaped(text: str) -> str:
    return html.escape(printable(text.encode(errors="backslashreplace"), _LONGEST_TEXT))


def save(
    path: str | os.PathLike[str],
    /,
    *items: pd.DataFrame | HasConnections,
    notes: str = "",
    overwrite: bool = False,
    **named: pd.DataFrame | HasConnections,
) -> Path:
    """Write frames to one file from which `load` restores them, together with what they lack.

    The file appears whole or not at all. Rows keep their order and are numbered anew.

    Parameters
    ----------
    path
        The file to make, by custom ``*.netlab``.
    items
        Frames that netlab returned, or captures, whose connections are taken. They are named by what
        they are: ``connections``, ``hops``, ``hops_2`` …
    notes
        What a reader should know about them.
    overwrite
        Replace a file that is there already.
    named
        The same as *items*, under names of your own.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    BadInput
        If an item is no frame as netlab returns them.
    BundleError
        If the file exists, or cannot be written.

    Examples
    --------
    >>> import netlab
    >>> netlab.save("/tmp/incident.netlab", netlab.connections(), notes="db times out", overwrite=True)
    PosixPath('/tmp/incident.netlab')
    """
    target = _path(path)
    try:
        _field({"notes": notes}, "notes", str)
    except (TypeError, ValueError) as error:
        raise BadInput(f"cannot save these notes: {error}", fix="Give notes as text") from error
    frames = _by_name(items, named)
    if target.exists() and not overwrite:
        raise BundleError(f"{target} exists already", fix="Choose another name, or pass overwrite=True")
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        _write(temporary, frames, notes)
        temporary.replace(target)
    except OSError as error:
        raise BundleError(
            f"cannot write {target}: {error.strerror or error}", fix="Give a path that you can write to"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return target


def load(path: str | os.PathLike[str], /, *, most_bytes: int = 4 << 30) -> Bundle:
    """Read a file that `save` wrote.

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
        file lacks or that this netlab does not know are named in the coverage.

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
    source = _path(path)
    try:
        with zipfile.ZipFile(source) as archive:
            return _read(archive, limit)
    except FileNotFoundError as error:
        raise BundleError(f"there is no file {source}", fix="Check the path") from error
    except _UNREADABLE as error:
        why = ascii(f"{error}")[1:-1][:200]  # may quote the file: no control characters, no end of line
        raise BundleError(
            f"cannot read {source} as a netlab recording: {why}",
            fix="Copy the file again from where it was made, or unzip it and try pandas.read_parquet",
        ) from error


def _path(path: Any) -> Path:
    if isinstance(path, str | os.PathLike):
        return Path(path)
    raise BadInput(
        f"{type(path).__name__} objects are no file name", fix="Give the path first, as text or Path"
    )


# -- writing ---------------------------------------------------------------------------------------------


def _by_name(items: tuple[Any, ...], named: dict[str, Any]) -> dict[str, pd.DataFrame]:
    """Return the normalised frames of all items under distinct names."""
    frames: dict[str, pd.DataFrame] = {}
    for name, item in named.items():
        if not _NAME.fullmatch(name):
            raise BadInput(f"{name!r} cannot name a frame", fix="Use letters, digits and _, at most 64")
        frames[name] = _normalised(item)
    for item in items:
        frame = _normalised(item)
        schema = frame.attrs["schema"]
        taken = (f"{schema}_{number}" for number in range(2, len(frames) + 3))
        frames[schema if schema not in frames else next(n for n in taken if n not in frames)] = frame
    if not frames:
        raise BadInput("there is nothing to save", fix="Pass frames or captures after the path")
    return frames


def _normalised(item: Any) -> pd.DataFrame:
    """Return the frame of *item* with its schema's dtypes, its own columns only, and checked attrs."""
    frame = item if isinstance(item, pd.DataFrame) else getattr(item, "connections", lambda: item)()
    fix = "Pass frames as netlab returned them; merge() and concat() may drop what they carry in attrs"
    if not isinstance(frame, pd.DataFrame):
        raise BadInput(f"cannot save {type(item).__name__} objects", fix=fix)
    schema = ALL.get(str(frame.attrs.get("schema")))
    if schema is None or "coverage" not in frame.attrs:
        raise BadInput("cannot save a frame that does not say what it is", fix=fix)
    extra = [str(name) for name in frame.columns if name not in schema.names]
    if extra:
        raise BadInput(
            f"{schema.name} frames have no column {extra[0]!r}", fix=f"Save frame.drop(columns={extra!r})"
        )
    try:
        typed = schema.frame(
            {name: frame[name] for name in frame.columns}, map(_missing, frame.attrs["coverage"])
        )
    except (TypeError, ValueError, LookupError) as error:
        raise BadInput(f"cannot save this {schema.name} frame: {error}", fix=fix) from error
    return typed[[name for name in schema.names if name in frame.columns]]


def _write(path: Path, frames: Mapping[str, pd.DataFrame], notes: str) -> None:
    manifest = {
        "bundle": VERSION,
        "created_at": datetime.now(UTC).isoformat(),
        "host": platform.node(),
        "kernel": platform.release(),
        "netlab": __version__,
        "notes": notes,
        "items": [{"name": name, "rows": len(frame), **frame.attrs} for name, frame in frames.items()],
    }
    with path.open("xb") as file:
        # Parquet is compressed already; stored members can be read in place.
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr(_MANIFEST, json.dumps(manifest, indent=1))
            for name, frame in frames.items():
                archive.writestr(f"{name}.parquet", parquet.write(frame, ALL[frame.attrs["schema"]]))
        file.flush()
        os.fsync(file.fileno())  # the rename must not become durable before the content


# -- reading ---------------------------------------------------------------------------------------------


def _read(archive: zipfile.ZipFile, limit: int) -> Bundle:
    members = archive.infolist()
    if sum(member.file_size for member in members) > limit:
        raise ValueError(f"it claims to unpack to more than {limit} bytes; pass most_bytes= to allow it")
    if archive.getinfo(_MANIFEST).file_size > _MOST_MANIFEST_BYTES:
        raise ValueError(f"its {_MANIFEST} is larger than {_MOST_MANIFEST_BYTES} bytes")
    manifest = json.loads(archive.read(_MANIFEST))
    version = _field(manifest, "bundle", int)
    if version > VERSION:
        raise BundleError(
            f"this recording has layout {version}, and netlab {__version__} reads up to {VERSION}",
            fix="Install a newer netlab: pip install --upgrade netlab",
        )
    metadata = Metadata(
        _time(_field(manifest, "created_at", str)),
        *(_field(manifest, key, str) for key in ("host", "kernel", "netlab", "notes")),
    )
    items = {_name(item): item for item in _field(manifest, "items", list)}
    listed = [_MANIFEST, *(f"{name}.parquet" for name in items)]
    if sorted(member.filename for member in members) != sorted(listed):
        raise ValueError(f"its members are not those that {_MANIFEST} lists")
    frames = {}
    for name, item in items.items():
        frames[name] = _frame(archive.read(f"{name}.parquet"), item, metadata.netlab, limit)
    return Bundle(frames, metadata)


def _frame(data: bytes, item: Any, made_by: str, most_bytes: int) -> pd.DataFrame:
    """Return the frame in *data* as *item* describes it."""
    schema = ALL.get(_field(item, "schema", str))
    if schema is None:
        raise ValueError(f"this netlab has no {item['schema']!r} frames; a newer one may")
    missing = [_missing(entry) for entry in _field(item, "coverage", list)]
    rows = _field(item, "rows", int)
    return parquet.read(data, schema, rows=rows, missing=missing, most_bytes=most_bytes, made_by=made_by)


def _missing(entry: Any) -> Missing:
    """Return one coverage entry, checked."""
    count = entry["count"]
    if count is not None and (isinstance(count, bool) or not isinstance(count, int)):
        raise ValueError("a coverage count is no whole number")
    return Missing(_field(entry, "what", str), Gap(entry["kind"]), count, _field(entry, "detail", str))


def _name(item: Any) -> str:
    name = _field(item, "name", str)
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot name a frame")
    return name


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _field(mapping: Any, key: str, kind: type[T]) -> T:
    """Return a member of a JSON object if it is of *kind*."""
    value = mapping[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"its {key} is not {kind.__name__}")
    if isinstance(value, str):
        value.encode()  # JSON can spell surrogates, which nothing can print
    return value
