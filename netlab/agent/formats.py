"""Frames as bodies of answers: Arrow for netlab's own client, JSON and CSV for everybody else."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from netlab import parquet
from netlab.errors import DecodeError
from netlab.schemas import ALL


class Format(StrEnum):
    """The media types that a frame can have."""

    ARROW = "application/vnd.apache.arrow.stream"
    JSON = "application/json"
    CSV = "text/csv"
    LINES = "application/x-ndjson"  # several tables, each one line of JSON
    FRAMES = "application/vnd.netlab.frames"  # several tables, each as Arrow behind its length in 4 bytes


STREAMS = frozenset({Format.LINES, Format.FRAMES})


def chosen(accept: str | None) -> Format | None:
    """Return the format that *accept* likes best, None if it likes none (RFC 9110 section 12.5.1).

    Of formats that are liked equally it is the first by `_BY_DEFAULT`: who does not say is a person.
    """
    wishes = [_wish(part) for part in (accept or "*/*").split(",") if part.strip()]
    offers = [(_quality(kind, wishes), -place, kind) for place, kind in enumerate(_BY_DEFAULT)]
    quality, _, best = max(offers)
    return best if quality > 0 else None


_BY_DEFAULT = (Format.JSON, Format.CSV, Format.ARROW, Format.LINES, Format.FRAMES)


def _wish(part: str) -> tuple[str, float]:
    kind, *parameters = (word.strip() for word in part.split(";"))
    quality = next((value[2:] for value in parameters if value.startswith("q=")), "1")
    try:
        return kind.lower(), float(quality)
    except ValueError:
        return kind.lower(), 0.0


def _quality(kind: Format, wishes: list[tuple[str, float]]) -> float:
    """Return how much *kind* is wished: the most exact wish counts."""
    ranges = (kind.value, f"{kind.value.partition('/')[0]}/*", "*/*")
    liked = dict(reversed(wishes))
    return next((liked[name] for name in ranges if name in liked), 0.0)


def encoded(frame: pd.DataFrame, kind: Format) -> bytes:
    """Return *frame*, with what it lacks, as a body of this *kind*; of CSV the headers have the rest."""
    match kind:
        case Format.ARROW:
            return _as_arrow(frame)
        case Format.JSON:
            return _as_json(frame)
        case Format.CSV:
            return frame.assign(**_exact_times(frame)).to_csv(index=False).encode()
        case Format.LINES:
            return framed(_as_json(frame), kind)
        case Format.FRAMES:
            return framed(_as_arrow(frame), kind)


def _exact_times(frame: pd.DataFrame) -> dict[str, Any]:
    """Return the columns of times in words, with their nanoseconds, which strftime(3) does not know."""
    found = {}
    for name, times in frame.select_dtypes("datetimetz").items():
        words = np.char.add(np.datetime_as_string(times.to_numpy("M8[ns]"), "ns"), "Z")
        found[str(name)] = pd.Series(words, frame.index).where(times.notna())
    return found


def framed(body: bytes, kind: Format) -> bytes:
    """Return *body* as one part of a stream."""
    return body + b"\n" if kind is Format.LINES else _LENGTH.pack(len(body)) + body


def parts(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the bodies in a stream of `Format.FRAMES`, which comes in *blocks* of any size."""
    held = bytearray()
    for block in blocks:
        held += block
        while len(held) >= _LENGTH.size and len(held) >= (end := _LENGTH.size + _LENGTH.unpack_from(held)[0]):
            yield bytes(held[_LENGTH.size : end])
            del held[:end]
    if held:
        raise DecodeError("the agent's answer ends in the middle of a table")


_LENGTH = struct.Struct("!I")


def headers(frame: pd.DataFrame) -> dict[str, str]:
    """Return what is said of *frame* beside its body: its schema, and how many gaps its coverage has."""
    return {
        "Netlab-Schema": str(frame.attrs["schema"]),
        "Netlab-Gaps": str(len(frame.attrs["coverage"])),
    }


def _as_json(frame: pd.DataFrame) -> bytes:
    rows = frame.to_json(orient="records", date_format="iso", date_unit="ns")
    told = json.dumps(frame.attrs)
    return f'{told[:-1]}, "rows": {rows}}}'.encode()


# A tenth of the bytes, and sooner there: most columns are numbers alike, or missing.
_COMPRESSED = pa.ipc.IpcWriteOptions(compression="lz4")


def _as_arrow(frame: pd.DataFrame) -> bytes:
    table, sink = parquet.as_arrow(frame, ALL[frame.attrs["schema"]]), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=_COMPRESSED) as out:
        out.write_table(table)
    body: bytes = sink.getvalue().to_pybytes()
    return body


def decoded(body: bytes) -> pd.DataFrame:
    """Return the frame in an Arrow *body*.

    Raises
    ------
    DecodeError
        If it is not one that `encoded` made.
    """
    try:
        with pa.ipc.open_stream(pa.BufferReader(body)) as stream:
            schema = ALL[parquet.attrs_of(stream.schema)["schema"]]
            return parquet.from_arrow(stream.read_all(), schema)
    except (pa.ArrowException, ValueError, LookupError, TypeError) as error:
        raise DecodeError(f"the agent's answer is no frame of this netlab: {error}") from error
