"""What a recording holds, in memory: frames by name, each with its origin and the changes that led to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pandas as pd

from netlab.bundle.manifest import Entry, Metadata, attrs_of, missing_of
from netlab.checks import nearest
from netlab.foreign import escaped
from netlab.frames import Schema
from netlab.schemas import ALL

_LONGEST_TEXT = 2000  # of the notes as they are shown


@dataclass(frozen=True, slots=True)
class Segment:
    """What changed in a frame at one moment, as it stands in the file."""

    at_ns: int  # UTC
    data: bytes  # Parquet


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """A frame, where it was made, and its past as far as that was recorded."""

    frame: pd.DataFrame
    origins: tuple[Metadata, ...]
    segments: tuple[Segment, ...] = field(default=(), repr=False)

    def entry(self, name: str) -> Entry:
        """Return what the manifest says of it."""
        attrs = self.frame.attrs
        missing = tuple(missing_of(gap) for gap in attrs["coverage"])
        schema = ALL[attrs["schema"]]
        rows, segments = len(self.frame), len(self.segments)
        return Entry(name, schema, rows, segments, missing, self.origins, attrs_of(attrs))


def schema_of(frame: pd.DataFrame) -> Schema:
    """Return the schema of a frame that netlab returned; frames of several hosts have one more column."""
    schema = ALL[frame.attrs["schema"]]
    return schema.with_host() if schema.host_column in frame.columns else schema


class Bundle(Mapping[str, pd.DataFrame]):
    """The frames of one recording by name; `metadata` and `notes` say where they come from.

    `origins` says it for each host, or for each time that something was added.
    """

    def __init__(self, items: Mapping[str, Item]) -> None:
        self.items_by_name = dict(items)

    @property
    def origins(self) -> tuple[Metadata, ...]:
        """Where and when its frames were made, the first one first."""
        return tuple(dict.fromkeys(origin for item in self.items_by_name.values() for origin in item.origins))

    @property
    def metadata(self) -> Metadata:
        """Where and when its first frame was made."""
        return self.origins[0]

    @property
    def notes(self) -> str:
        """What whoever made the recording wrote about it."""
        return "\n".join(dict.fromkeys(origin.notes for origin in self.origins if origin.notes))

    def __getitem__(self, name: str) -> pd.DataFrame:
        if name not in self.items_by_name:
            known = nearest(str(name), self.items_by_name)
            raise KeyError(f"no frame {name!r} in this recording. {known}")
        return self.items_by_name[name].frame

    def __iter__(self) -> Iterator[str]:
        return iter(self.items_by_name)

    def __len__(self) -> int:
        return len(self.items_by_name)

    def __repr__(self) -> str:
        return f"<Bundle {', '.join(f'{name}: {len(frame)} rows' for name, frame in self.items())}>"

    def _repr_html_(self) -> str:
        origins = "<br>".join(escaped(_told(origin), _LONGEST_TEXT) for origin in self.origins)
        notes = "<br>".join(escaped(line, _LONGEST_TEXT) for line in self.notes[:_LONGEST_TEXT].splitlines())
        rows = "".join(
            f"<tr><td>{name}</td><td>{frame.attrs['schema']}</td><td>{len(frame)}</td>"
            f"<td>{len(frame.attrs['coverage'])}</td></tr>"
            for name, frame in self.items()
        )
        return (
            f"<p>{origins}</p>"
            "<table><thead><tr><th>frame</th><th>kind</th><th>rows</th><th>gaps</th></tr></thead>"
            f"<tbody>{rows}</tbody></table><p>{notes}</p>"
        )


def _told(origin: Metadata) -> str:
    when = f"{origin.created_at:%Y-%m-%d %H:%M:%S}"
    if origin.ended_at is not None and origin.ended_at != origin.created_at:
        when += f" to {origin.ended_at:%Y-%m-%d %H:%M:%S}"
    return f"{origin.host}, kernel {origin.kernel}, {when} UTC, netlab {origin.netlab}"
