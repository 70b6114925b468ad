"""`bundle.json`: what a recording holds, where and when it was made, and what its frames lack.

It is the first member of the archive, so that of a file that was cut off it is still known what was in it.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from netlab import __version__
from netlab.errors import BadInput, BundleError
from netlab.frames import Gap, Missing, Schema
from netlab.kernel import clock
from netlab.schemas import ALL

T = TypeVar("T")

VERSION = 2  # of the layout; raised when an older netlab could misread a newer file
NAME = "bundle.json"
MOST_BYTES = 16 << 20

_FRAME_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)
_TEXTS = ("host", "kernel", "netlab", "notes")


@dataclass(frozen=True, slots=True)
class Clock:
    """How a host's clocks stood: the kernel's time plus `utc_minus_monotonic_ns` is UTC."""

    utc_minus_monotonic_ns: int
    utc_offset_s: int  # of local time
    timezone: str

    @classmethod
    def read(cls) -> Clock:
        """Return how they stand now."""
        local = datetime.now().astimezone()
        offset = local.utcoffset()
        return cls(clock.to_utc_ns(), round(offset.total_seconds()) if offset else 0, local.tzname() or "")


@dataclass(frozen=True, slots=True)
class Metadata:
    """Where and when a recording was made, and by what."""

    created_at: datetime
    host: str
    kernel: str
    netlab: str
    notes: str
    ended_at: datetime | None = None  # None while it is being written, and of one that was never closed
    clock: Clock | None = None  # layout 1 did not keep it

    @classmethod
    def of_here(cls, notes: str, *, ended: bool = True) -> Metadata:
        """Return what is to be said of a recording that is made here and now."""
        now = datetime.now(UTC)
        end = now if ended else None
        return cls(now, platform.node(), platform.release(), __version__, notes, end, Clock.read())


@dataclass(frozen=True, slots=True)
class Entry:
    """One frame of a recording; *rows* and *segments* are None while it is being written."""

    name: str
    schema: Schema
    rows: int | None
    segments: int | None
    missing: tuple[Missing, ...]
    origins: tuple[Metadata, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)  # beside schema and coverage


def to_json(entries: list[Entry]) -> bytes:
    """Return the manifest of a recording with these frames."""
    origins = list(dict.fromkeys(origin for entry in entries for origin in entry.origins))
    told = {
        "bundle": VERSION,
        "origins": [_origin_told(origin) for origin in origins],
        "items": [
            {
                "name": entry.name,
                "schema": entry.schema.name,
                "rows": entry.rows,
                "segments": entry.segments,
                "origins": [origins.index(origin) for origin in entry.origins],
                "coverage": [asdict(item) for item in entry.missing],
                "attrs": dict(entry.attrs),
            }
            for entry in entries
        ],
    }
    data = json.dumps(told, indent=1).encode()
    if len(data) > MOST_BYTES:  # load would refuse it
        raise BadInput(
            f"notes, coverage and attrs together have {len(data)} bytes", fix=f"Keep them below {MOST_BYTES}"
        )
    return data


def of_json(data: bytes) -> list[Entry]:
    """Return the frames that a manifest of this or an older layout lists.

    Raises ValueError, TypeError or LookupError if it is none, and BundleError if it is of a newer netlab.
    """
    told = json.loads(data)
    version = field_of(told, "bundle", int)
    if version > VERSION:
        raise BundleError(
            f"this recording has layout {version}, and netlab {__version__} reads up to {VERSION}",
            fix=_NEWER,
        )
    for older in range(version, VERSION):
        told = _UPGRADES[older](told)
    origins = [_origin(entry) for entry in field_of(told, "origins", list)]
    entries = [_entry(item, origins) for item in field_of(told, "items", list)]
    if len({entry.name for entry in entries}) != len(entries):
        raise ValueError(f"its {NAME} lists two frames under one name")
    return entries


def _from_1(told: Any) -> Any:
    """Layout 1 had one origin, without a clock, and neither segments nor other attrs."""
    origin = {key: told[key] for key in ("created_at", *_TEXTS)}
    origin |= {"ended_at": told["created_at"], "clock": None}
    items = [{**item, "segments": 0, "origins": [0], "attrs": {}} for item in field_of(told, "items", list)]
    return {"bundle": 2, "origins": [origin], "items": items}


_UPGRADES = {1: _from_1}
_NEWER = "Install a newer netlab: pip install --upgrade netlab"


def _entry(item: Any, origins: list[Metadata]) -> Entry:
    schema = ALL.get(field_of(item, "schema", str))
    if schema is None:
        raise BundleError(
            f"this recording has {item['schema'][:64]!r} frames, which netlab {__version__} does not know",
            fix=_NEWER,
        )
    places = field_of(item, "origins", list)
    if not places or any(type(place) is not int or not 0 <= place < len(origins) for place in places):
        raise ValueError("it does not say which host a frame is from")
    return Entry(
        name=frame_name(field_of(item, "name", str)),
        schema=schema,
        rows=_count(item, "rows"),
        segments=_count(item, "segments"),
        missing=tuple(missing_of(entry) for entry in field_of(item, "coverage", list)),
        origins=tuple(origins[place] for place in places),
        attrs=attrs_of(field_of(item, "attrs", dict)),
    )


def frame_name(name: str) -> str:
    """Return *name* if it can name a frame, and so a file."""
    if not _FRAME_NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot name a frame")
    return name


def missing_of(entry: Any) -> Missing:
    """Return one coverage entry, checked."""
    count = entry["count"]
    if count is not None and (isinstance(count, bool) or not isinstance(count, int)):
        raise ValueError("a coverage count is no whole number")
    kind = field_of(entry, "kind", str)
    if kind not in set(Gap):
        raise BundleError(
            f"this coverage has gaps of a kind {kind[:64]!r}, which netlab {__version__} does not know",
            fix=_NEWER,
        )
    cause = field_of(entry, "cause", str) if entry.get("cause") is not None else None
    return Missing(field_of(entry, "what", str), Gap(kind), count, field_of(entry, "detail", str), cause)


def attrs_of(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """Return what a frame carries beside schema and coverage, as JSON keeps it; raises if JSON does not."""
    kept: dict[str, Any] = json.loads(json.dumps(dict(attrs)))
    json.dumps(kept, ensure_ascii=False).encode()  # JSON can spell surrogates, which nothing can print
    return {key: value for key, value in kept.items() if key not in {"schema", "coverage"}}


def text_of(value: Any, what: str) -> str:
    """Return *value* if it is text that can be written and printed."""
    return field_of({what: value}, what, str)


def field_of(mapping: Any, key: str, kind: type[T]) -> T:
    """Return a member of a JSON object if it is of *kind*."""
    value = mapping[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"its {key} is not {kind.__name__}")
    if isinstance(value, str):
        value.encode()
    return value


def _count(item: Any, key: str) -> int | None:
    if item[key] is None:
        return None
    count = field_of(item, key, int)
    if count < 0:
        raise ValueError(f"its {key} is below 0")
    return count


def _origin_told(origin: Metadata) -> dict[str, Any]:
    return asdict(origin) | {
        "created_at": origin.created_at.isoformat(),
        "ended_at": None if origin.ended_at is None else origin.ended_at.isoformat(),
    }


def _origin(told: Any) -> Metadata:
    host, kernel, netlab, notes = (field_of(told, key, str) for key in _TEXTS)
    ended_at = None if told["ended_at"] is None else _time(field_of(told, "ended_at", str))
    created_at = _time(field_of(told, "created_at", str))
    return Metadata(created_at, host, kernel, netlab, notes, ended_at, _clock(told["clock"]))


def _clock(told: Any) -> Clock | None:
    if told is None:
        return None
    return Clock(
        field_of(told, "utc_minus_monotonic_ns", int),
        field_of(told, "utc_offset_s", int),
        field_of(told, "timezone", str),
    )


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
