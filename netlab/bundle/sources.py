"""What can be recorded: captures, monitors, and functions that return frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from netlab.bundle.tracks import IDENTITY
from netlab.checks import nearest
from netlab.errors import BadInput, CaptureError

FIX = "Pass a capture or a monitor that runs, or name a function: record(path, nat=netlab.nat)"
_OPTIONS = ("append", "every_s", "notes", "overwrite")  # of record(); any other name is a source's


@dataclass(frozen=True, slots=True)
class Table:
    """A table that a source has: what to call it, of which schema it is, and how to read it."""

    name: str
    schema: str
    read: Callable[[], pd.DataFrame]


def tables(source: Any, name: str | None) -> Iterator[Table]:
    """Return the tables that *source* has; those that a capture was not made to keep are left out.

    *name* is that of the main one, and begins those of the others; by default they are called what they are.
    """
    for place, (what, read) in enumerate(_readers(source, name)):
        try:
            schema = str(read().attrs["schema"])
        except CaptureError:
            if place == 0:  # it does not run
                raise
            continue
        except (AttributeError, KeyError) as error:
            raise BadInput("cannot record what returns no frames of netlab's", fix=FIX) from error
        if schema not in IDENTITY:
            raise BadInput(f"cannot record {schema} frames: their rows have no identity", fix="save() them")
        own = what or schema
        yield Table(own if name is None else f"{name}_{own}" if place else name, schema, read)


def _readers(source: Any, name: str | None) -> Iterator[tuple[str, Callable[[], pd.DataFrame]]]:
    """Return what to call for the tables of *source*, the main one first."""
    if hasattr(source, "connections"):
        names = ["connections", "events", "drops", "requests", "tls", "dns", "names", "cost"]
    elif hasattr(source, "end_to_end"):
        names = ["hops", "end_to_end"]
    elif callable(source):
        yield "", source
        return
    elif name is not None:
        told = f"record() has no option {name!r}, and a source of that name cannot be {source!r}"
        raise BadInput(told, fix=f"{nearest(name, _OPTIONS)}. {FIX}")
    else:
        raise BadInput(f"cannot record {type(source).__name__} objects", fix=FIX)
    yield from ((each, getattr(source, each)) for each in names if hasattr(source, each))
