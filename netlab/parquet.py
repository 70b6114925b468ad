"""Frames as Parquet and back, with their exact dtypes and their coverage.

The bytes open with plain `pandas.read_parquet`. What is read back is judged as foreign: rows, types and
text sizes are checked before anything is expanded.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from netlab.frames import Gap, Kind, Missing, Schema

_ARROW = {
    Kind.TEXT: pa.large_string(),
    Kind.CATEGORY: pa.dictionary(pa.int32(), pa.string()),
    Kind.INTEGER: pa.int64(),
    Kind.REAL: pa.float64(),
    Kind.FLAG: pa.bool_(),
    Kind.TIME: pa.timestamp("ns", tz="UTC"),
}
_PANDAS = {pa.int64(): pd.Int64Dtype(), pa.float64(): pd.Float64Dtype(), pa.bool_(): pd.BooleanDtype()}
_WORDS = {Kind.TEXT, Kind.CATEGORY}
_CATEGORIES = b"netlab.categories"
_CELL_BYTES = 9  # a number and its missing flag: the least a cell costs in memory


def write(frame: pd.DataFrame, schema: Schema) -> bytes:
    """Return *frame*, which has some or all columns of *schema* in its dtypes, as Parquet."""
    layout = pa.schema([(c.name, _ARROW[c.kind]) for c in schema.columns if c.name in frame.columns])
    table = pa.Table.from_pandas(frame, schema=layout, preserve_index=False)
    notes = {
        b"PANDAS_ATTRS": json.dumps(frame.attrs),  # where pandas.read_parquet looks for them
        _CATEGORIES: json.dumps({name: list(values.cat.categories) for name, values in _categorical(frame)}),
    }
    out = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(table.schema.metadata | notes), out, compression="zstd")
    return out.getvalue()


def read(
    data: bytes, schema: Schema, *, rows: int, missing: list[Missing], most_bytes: int, made_by: str
) -> pd.DataFrame:
    """Return the frame in *data*; columns that it lacks, or has beyond *schema*, are added to *missing*.

    Raises ValueError, which includes `pyarrow.ArrowInvalid`, if *data* is not *rows* rows of *schema*.
    """
    layout = pq.read_schema(pa.BufferReader(data))
    held = layout.names
    # Words are read as codes, so that a word repeated a million times is in memory once.
    words = [column.name for column in schema.columns if column.kind in _WORDS and column.name in held]
    file = pq.ParquetFile(pa.BufferReader(data), read_dictionary=words)
    if file.metadata.num_rows != rows:
        raise ValueError(f"it promises {rows} rows of {schema.name} and holds {file.metadata.num_rows}")
    _bound(rows * len(schema.columns) * _CELL_BYTES, most_bytes)
    table = file.read(columns=[name for name in held if name in schema.names])
    table.validate(full=True)  # codes without a word and bytes that are no UTF-8 would crash later
    columns = {
        c.name: _column(table.column(c.name), c.kind, most_bytes) for c in schema.columns if c.name in held
    }
    if not rows:
        columns |= _empty_categories(schema, layout)
    frame = schema.frame(columns, missing + _differences(schema, held, made_by))
    if len(frame) != rows:
        raise ValueError(f"it promises {rows} rows and has no column of {schema.name} frames")
    return frame


def _column(values: pa.ChunkedArray, kind: Kind, most_bytes: int) -> Any:
    if kind not in _WORDS:
        return values.cast(_ARROW[kind]).to_pandas(types_mapper=_PANDAS.get).array
    if values.null_count == len(values) and not pa.types.is_dictionary(values.type):
        return [None] * len(values)  # other writers give words that are all missing any type
    coded = values.cast(_ARROW[Kind.CATEGORY]).unify_dictionaries().combine_chunks()
    if kind is Kind.CATEGORY:
        return coded.to_pandas() if len(coded.dictionary) else [None] * len(coded)
    _bound(pc.sum(pc.binary_length(coded.dictionary).take(coded.indices)).as_py() or 0, most_bytes)
    return pd.arrays.ArrowStringArray(coded.cast(_ARROW[Kind.TEXT]))


def _categorical(frame: pd.DataFrame) -> Iterator[tuple[str, pd.Series]]:
    return (
        (str(name), values) for name, values in frame.items() if isinstance(values.dtype, pd.CategoricalDtype)
    )


def _empty_categories(schema: Schema, layout: pa.Schema) -> dict[str, pd.Categorical]:
    """Return the category columns of a frame without rows; Parquet keeps categories with the rows."""
    kept = json.loads((layout.metadata or {}).get(_CATEGORIES, b"{}"))
    known = [column.name for column in schema.columns if column.kind is Kind.CATEGORY and column.name in kept]
    return {name: pd.Categorical([], categories=[str(word) for word in kept[name]] or None) for name in known}


def _bound(needed_bytes: int, most_bytes: int) -> None:
    if needed_bytes > most_bytes:
        raise ValueError(f"it needs more than {most_bytes} bytes of memory; pass most_bytes= to allow that")


def _differences(schema: Schema, held: list[str], made_by: str) -> list[Missing]:
    """Return what a file made by another version has too few or too many."""
    absent = ", ".join(name for name in schema.names if name not in held)
    unknown = ", ".join(name for name in held if name not in schema.names)
    found = [
        (absent, f"the recording, made by netlab {made_by}, does not hold them"),
        (unknown, "this netlab does not know them; pandas.read_parquet shows them"),
    ]
    return [Missing(f"columns {names}", Gap.UNAVAILABLE, None, why) for names, why in found if names]
