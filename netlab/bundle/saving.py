"""`netlab.save()`: frames, captures and recordings into one file, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from netlab import checks, parquet
from netlab.bundle import archive, manifest
from netlab.bundle.archive import HISTORY
from netlab.bundle.contents import Bundle, Item, schema_of
from netlab.bundle.loading import load
from netlab.bundle.manifest import Metadata
from netlab.errors import BadInput, BundleError
from netlab.schemas import ALL

_FIX = "Pass frames as netlab returned them; merge() and concat() may drop what they carry in attrs"


class HasConnections(Protocol):
    """Anything with a connection table, such as a capture; its `cost()`, if it has one, is kept as well."""

    def connections(self) -> pd.DataFrame:
        """Return the connection table."""


def save(
    path: str | os.PathLike[str],
    /,
    *items: pd.DataFrame | HasConnections | Bundle,
    notes: str = "",
    overwrite: bool = False,
    append: bool = False,
    **named: pd.DataFrame | HasConnections,
) -> Path:
    """Write frames to one file from which `load` restores them, together with what they lack.

    The file appears whole or not at all. Rows keep their order and are numbered anew.

    Parameters
    ----------
    path
        The file to make, by custom ``*.netlab``.
    items
        Frames that netlab returned; captures, of which connections and cost are taken; and recordings that
        `load` or `merge` returned. Frames are named by what they are: ``connections``, ``hops``, ``hops_2`` …
    notes
        What a reader should know about them.
    overwrite
        Replace a file that is there already.
    append
        Keep what a file that is there already holds, and add these frames to it.
    named
        The same as *items*, under names of your own.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    BadInput
        If an item is nothing that can be saved.
    BundleError
        If the file exists, or cannot be read or written.

    Examples
    --------
    >>> import netlab
    >>> netlab.save("/tmp/incident.netlab", netlab.connections(), notes="db times out", overwrite=True)
    PosixPath('/tmp/incident.netlab')
    """
    target = checks.path(path)
    origin = Metadata.of_here(checked_notes(notes))
    found = _named(items, named, origin)
    with archive.alone(target):
        held = opened_for(target, overwrite=overwrite, append=append)
        archive.write(target, members(together(held, found)))
    return target


def opened_for(target: Path, *, overwrite: bool, append: bool) -> dict[str, Item]:
    """Return what a file that is added to holds already; refuse one that may not be replaced."""
    if checks.flag("overwrite", overwrite) and checks.flag("append", append):
        raise BadInput("overwrite=True and append=True contradict each other", fix="Leave one of them out")
    if append and target.exists():
        return load(target).items_by_name
    if target.exists() and not overwrite:
        raise BundleError(
            f"{target} exists already", fix="Choose another name, or pass overwrite=True or append=True"
        )
    return {}


def checked_notes(notes: object) -> str:
    """Return *notes* if they can be written."""
    try:
        return manifest.text_of(notes, "notes")
    except (TypeError, ValueError) as error:
        raise BadInput(f"cannot save these notes: {error}", fix="Give notes as text") from error


def together(held: Mapping[str, Item], added: Iterable[tuple[str, Item]]) -> dict[str, Item]:
    """Return both, those *added* numbered where their name is taken."""
    found = dict(held)
    for name, item in added:
        found[free_name(name, found)] = item
    return found


def free_name(name: str, taken: Iterable[str]) -> str:
    """Return *name*, with the first number behind it that makes it a new one if it is taken."""
    names = set(taken)
    numbered = (f"{name}_{number}" for number in range(2, len(names) + 3))
    return name if name not in names else next(other for other in numbered if other not in names)


def members(items: Mapping[str, Item]) -> Iterator[tuple[str, bytes]]:
    """Return the members of the file that holds *items*, the manifest first and the past last."""
    yield manifest.NAME, manifest.to_json([item.entry(name) for name, item in items.items()])
    yield from tables(items)


def tables(items: Mapping[str, Item]) -> Iterator[tuple[str, bytes]]:
    """Return the members that hold the frames of *items*, and then those that hold their past."""
    for name, item in items.items():
        yield f"{name}.parquet", parquet.write(item.frame, schema_of(item.frame))
    for name, item in items.items():
        for segment in item.segments:
            yield segment_name(name, segment.at_ns), segment.data


def segment_name(name: str, at_ns: int) -> str:
    """Return the name of the member that holds what changed in a frame at one moment."""
    return f"{HISTORY}{name}/{at_ns:020d}.parquet"


def _named(items: tuple[Any, ...], named: dict[str, Any], origin: Metadata) -> list[tuple[str, Item]]:
    """Return all items under distinct names, those with names of their own first."""
    found: dict[str, Item] = {}
    for name, item in named.items():
        found[checked_name(name)] = Item(normalised(_frame(item)), (origin,))
        found |= together(found, _cost(item, origin))
    for item in items:
        if isinstance(item, Bundle):
            found = together(found, item.items_by_name.items())
            continue
        frame = normalised(_frame(item))
        found = together(found, [(frame.attrs["schema"], Item(frame, (origin,))), *_cost(item, origin)])
    if not found:
        raise BadInput("there is nothing to save", fix="Pass frames or captures after the path")
    return list(found.items())


def checked_name(name: str) -> str:
    """Return *name* if it can name a frame."""
    try:
        return manifest.frame_name(name)
    except ValueError as error:
        raise BadInput(f"{error}", fix="Use letters, digits and _, at most 64") from error


def _frame(item: Any) -> Any:
    return item if isinstance(item, pd.DataFrame) else getattr(item, "connections", lambda: item)()


def _cost(item: Any, origin: Metadata) -> list[tuple[str, Item]]:
    """Return what a capture cost, if it is one that can tell."""
    if isinstance(item, pd.DataFrame) or not hasattr(item, "cost"):
        return []
    return [("cost", Item(normalised(item.cost()), (origin,)))]


def normalised(frame: Any) -> pd.DataFrame:
    """Return *frame* with its schema's dtypes, its own columns only, and checked attrs."""
    if not isinstance(frame, pd.DataFrame):
        raise BadInput(f"cannot save {type(frame).__name__} objects", fix=_FIX)
    if str(frame.attrs.get("schema")) not in ALL or "coverage" not in frame.attrs:
        raise BadInput("cannot save a frame that does not say what it is", fix=_FIX)
    schema = schema_of(frame)
    extra = [str(name) for name in frame.columns if name not in schema.names]
    if extra:
        raise BadInput(
            f"{schema.name} frames have no column {extra[0]!r}", fix=f"Save frame.drop(columns={extra!r})"
        )
    try:
        typed = schema.frame(
            {name: frame[name] for name in frame.columns}, map(manifest.missing_of, frame.attrs["coverage"])
        )
        typed.attrs |= manifest.attrs_of(frame.attrs)
    except (TypeError, ValueError, LookupError) as error:
        raise BadInput(f"cannot save this {schema.name} frame: {error}", fix=_FIX) from error
    return typed[[name for name in schema.names if name in frame.columns]]
