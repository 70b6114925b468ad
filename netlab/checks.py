"""Checks on what callers give: each refuses with what was wrong and how to fix it."""

from __future__ import annotations

import difflib
import functools
import inspect
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from netlab.errors import BadInput, CapabilityError

P = ParamSpec("P")
R = TypeVar("R")


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the sentence that names the good spelling nearest to *word*."""
    names = sorted(map(str, known))  # an enum member as the word it stands for
    close = difflib.get_close_matches(word, names, n=1)
    return f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(names)}"


def options(function: Callable[P, R]) -> Callable[P, R]:
    """Refuse an unknown keyword of *function* with the nearest good name, and options without a name."""
    title = function.__qualname__.split(".")[-2] if function.__name__ == "__init__" else function.__name__
    parameters = inspect.signature(function).parameters.values()
    known = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    named = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    most = len([p for p in parameters if p.kind in {p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD}])
    takes_any = any(p.kind is p.VAR_POSITIONAL for p in parameters)

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        for name in kwargs:
            if name not in known:
                raise BadInput(f"{title}() has no option {name!r}", fix=nearest(name, known))
        if len(args) > most and named and not takes_any:
            raise BadInput(
                f"{title}() takes its options by name, and {_brief(args[most])} has none",
                fix=f"Name it: {', '.join(f'{name}=' for name in named)}",
            )
        return function(*args, **kwargs)

    return checked


def _brief(value: object) -> str:
    return repr(value) if isinstance(value, str | int | float) else f"the {type(value).__name__}"


@contextmanager
def needing(extra: str, problem: str) -> Iterator[None]:
    """Explain an import that fails: *problem* says what needs it, and *extra* brings it."""
    try:
        yield
    except ImportError as error:
        install = f"{shlex.quote(sys.executable)} -m pip install 'netlab[{extra}]'"
        raise CapabilityError(problem, fix=f"Run: {install}") from error


def choice(name: str, value: object, known: Iterable[str]) -> str:
    """Return *value* if it is one of *known*."""
    names = list(known)
    if isinstance(value, str) and value in names:
        return value
    raise BadInput(f"{name} {value!r} is not known", fix=nearest(str(value), names))


def whole(name: str, value: object, low: int, high: int) -> int:
    """Return *value* if it is a whole number from *low* to *high*."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not low <= int(value) <= high:
        raise BadInput(
            f"{name} {value!r} is not a whole number from {low} to {high}", fix=f"Give {name} in that range"
        )
    return int(value)  # also of a number that comes from a frame


def tabular(who: str, value: object, *, fix: str) -> None:
    """Refuse what is no DataFrame: often a capture, in place of what one of its methods returned."""
    if not (hasattr(value, "columns") and hasattr(value, "attrs")):
        raise BadInput(f"{who} takes frames, not {type(value).__name__} objects", fix=fix)


def kind(who: str, frame: Any, meant: Sequence[str], *, fix: str) -> None:
    """Refuse a frame that says that it is of another kind: several kinds have the same columns."""
    told = frame.attrs.get("schema", meant[0])
    if told not in meant:
        raise BadInput(f"{who} takes {meant[0]}, and this is a frame of {told}", fix=fix)


def columns(who: str, frame: object, needed: Iterable[str], *, fix: str) -> None:
    """Refuse what is no frame with the columns that *who* needs, naming the first that it lacks."""
    known = getattr(frame, "columns", ())
    lacking = next((name for name in needed if name not in known), None)
    if lacking is not None:
        raise BadInput(f"{who} needs the column {lacking!r}", fix=fix)


def port(value: object, name: str = "port") -> int:
    """Return *value* if it is a TCP or UDP port."""
    return whole(name, value, 1, 65535)


def flag(name: str, value: object) -> bool:
    """Return *value* if it is True or False."""
    if not isinstance(value, bool):
        raise BadInput(f"{name} {value!r} is neither True nor False", fix=f"Give {name}=True or {name}=False")
    return value


def several(name: str, value: Iterable[R]) -> list[R]:
    """Return *value* as a list if it is several things: a text would be taken for its letters."""
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise BadInput(f"{name} {value!r} is no list", fix=f"Give {name} as a list, also if it is one")
    return list(value)


def one_or_more(name: str, value: Any, one: type = str) -> list[Any]:
    """Return *value* as a list, be it *one* thing of that type or several."""
    return [value] if isinstance(value, one) else several(name, value)


def family(value: object) -> int | None:
    """Return *value* if it is an IP version, or None for both."""
    if value is None:
        return None
    for version in (4, 6):
        if isinstance(value, Real) and value == version:
            return version
    raise BadInput(f"family {value!r} is not an address family", fix="Give 4 or 6")


def path(value: object) -> Path:
    """Return *value* if it can name a file."""
    if not isinstance(value, str | os.PathLike):
        raise BadInput(
            f"{type(value).__name__} objects are no file name", fix="Give the path first, as text or Path"
        )
    if "\0" in str(value):
        raise BadInput(f"{str(value)!r} has a NUL in it, which no file name has", fix="Give the path without")
    return Path(value)


def between(name: str, value: object, least: float, most: float, *, unit: str = "") -> float:
    """Return *value* as a float if it is a number from *least* to *most*, in *unit* if it has one."""
    if isinstance(value, bool) or not isinstance(value, Real) or not least <= float(value) <= most:
        limits = f"{least:g} to {most:g} {unit}".rstrip()
        raise BadInput(f"{name} {value!r} is not a number from {limits}", fix=f"Give {name} from {limits}")
    return float(value)


def positive(name: str, value: object, *, unit: str, most: float = float("inf")) -> float:
    """Return *value* as a float if it is a number above 0 and at most *most*, in *unit*."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) <= most:
        limit = "above 0" if most == float("inf") else f"above 0 and at most {most:g}"
        raise BadInput(f"{name} {value!r} is not a number of {unit} {limit}", fix=f"Give {name} in {unit}")
    return float(value)  # also of a number that comes from a frame
