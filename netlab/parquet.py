"""Frames as Parquet and back, with their exact dtypes and their coverage.

The bytes open with plain `pandas.read_parquet`. What is read back is judged as foreign: rows, types and
text sizes are checked before anything is expanded.
"""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from netlab import bars
from netlab.columns import Kind
from netlab.frames import Gap, Missing, Schema

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
_CATEGORIES = "netlab.categories"
_ATTRS = "PANDAS_ATTRS"  # where pandas.read_parquet looks for them
_UNBOUND = 1 << 62
_FEW_ROWS = 10_000  # handing their columns to threads takes longer than reading them
_BAR_FROM = 1000  # parts; fewer need no progress bar
_AT_ONCE = 64  # parts in memory as they are
_CELL_BYTES = 9  # a number and its missing flag: the least a cell costs in memory


def write(frame: pd.DataFrame, schema: Schema, notes: Mapping[str, Any] | None = None) -> bytes:
    """Return *frame*, which has some or all columns of *schema* in its dtypes, as Parquet.

    With *notes*, which are kept as JSON beside the frame's attrs, it is one of many small pieces, and is
    written without what would be larger than its rows: the dtypes that pandas gives it back and statistics.
    """
    table = as_arrow(frame, schema)
    out, is_piece = io.BytesIO(), notes is not None
    with pq.ParquetWriter(
        out, table.schema, compression="zstd", store_schema=not is_piece, write_statistics=not is_piece
    ) as writer:
        writer.write_table(table)
        if notes is not None:
            kept = {_CATEGORIES: _categories(frame), _ATTRS: frame.attrs, **notes}
            writer.add_key_value_metadata({name: json.dumps(value) for name, value in kept.items()})
    return out.getvalue()


def as_arrow(frame: pd.DataFrame, schema: Schema) -> pa.Table:
    """Return *frame* as an Arrow table that keeps its attrs, its categories and the units of its columns."""
    table = pa.Table.from_pandas(frame, schema=layout(schema, list(frame.columns)), preserve_index=False)
    kept = {_CATEGORIES: _categories(frame), _ATTRS: frame.attrs}
    metadata = {name.encode(): json.dumps(value) for name, value in kept.items()}
    return table.replace_schema_metadata(table.schema.metadata | metadata)


def layout(schema: Schema, names: Collection[str]) -> pa.Schema:
    """Return the Arrow types of those columns of *schema* that are among *names*, with their units."""
    return pa.schema(
        pa.field(column.name, _ARROW[column.kind], metadata={"unit": column.unit} if column.unit else None)
        for column in schema.columns
        if column.name in names
    )


def names(data: bytes) -> list[str]:
    """Return the names of the columns in *data*."""
    found: list[str] = pq.read_schema(pa.BufferReader(data)).names
    return found


@dataclass(frozen=True, slots=True)
class Piece:
    """What a small piece of a frame says of itself."""

    rows: int
    attrs: Any
    note: Any

    @classmethod
    def of(cls, data: bytes, note: str) -> Piece:
        """Return it, with the *note* of that name; what *data* does not say is None."""
        metadata = pq.read_metadata(pa.BufferReader(data))
        return cls(metadata.num_rows, _note(metadata, _ATTRS), _note(metadata, note))


def _note(metadata: pq.FileMetaData, name: str) -> Any:
    return json.loads((metadata.metadata or {}).get(name.encode(), b"null"))


def read(
    parts: Sequence[bytes],
    schema: Schema,
    *,
    rows: int | None,
    missing: list[Missing],
    most_bytes: int,
    made_by: str,
) -> pd.DataFrame:
    """Return the rows of all *parts* as one frame.

    Columns that they lack, or have beyond *schema*, are added to *missing*. Raises ValueError, which includes
    `pyarrow.ArrowInvalid`, if they are not frames of *schema*, or not of *rows* rows where that is known.
    """
    found, held, tables, joined = 0, list[str](), list[pa.Table](), list[pa.Table]()
    for part in _with_bar(parts):
        file = _open(part, schema)
        found += file.metadata.num_rows
        _bound(found * len(schema.columns) * _CELL_BYTES, most_bytes)
        names_here = file.schema_arrow.names
        held += [name for name in names_here if name not in held]
        wanted = [name for name in names_here if name in schema.names]
        tables.append(file.read(columns=wanted, use_threads=file.metadata.num_rows > _FEW_ROWS))
        if len(tables) == _AT_ONCE:
            joined, tables = [*joined, _joined(tables)], []
    if rows is not None and found != rows:
        raise ValueError(f"it promises {rows} rows of {schema.name} and holds {found}")
    table = _joined([*joined, *tables])
    columns = {
        c.name: _column(table.column(c.name), c.kind, most_bytes) for c in schema.columns if c.name in held
    }
    if not found:
        columns |= _empty_categories(schema, pq.read_metadata(pa.BufferReader(parts[0])))
    frame = schema.frame(
        columns, missing + _differences(schema, held, f"the recording, made by netlab {made_by},")
    )
    if len(frame) != found:
        raise ValueError(f"it promises {found} rows and has no column of {schema.name} frames")
    return frame


def attrs_of(table: pa.Schema) -> dict[str, Any]:
    """Return the attrs that `as_arrow` put into a table of this schema; KeyError if it made none."""
    kept: dict[str, Any] = json.loads((table.metadata or {})[_ATTRS.encode()])
    return kept


def from_arrow(table: pa.Table, schema: Schema) -> pd.DataFrame:
    """Return the frame of *schema* that `as_arrow` made *table* from, maybe that of another netlab."""
    table.validate(full=True)
    columns = {
        c.name: _column(table.column(c.name), c.kind, _UNBOUND)
        for c in schema.columns
        if c.name in table.column_names
    }
    frame = schema.frame(columns)
    frame.attrs |= attrs_of(table.schema)
    differences = _differences(schema, table.column_names, "what answered, a netlab of another version,")
    frame.attrs["coverage"] += map(asdict, differences)
    return frame


def _joined(tables: list[pa.Table]) -> pa.Table:
    """Return *tables* as one, which takes much less memory: each has a quarter of a megabyte for itself."""
    table = pa.concat_tables(tables, promote_options="permissive")
    table.validate(full=True)  # codes without a word and bytes that are no UTF-8 would crash later
    return table if len(tables) == 1 else table.unify_dictionaries().combine_chunks()


def _with_bar(parts: Sequence[bytes]) -> Iterator[bytes]:
    if len(parts) < _BAR_FROM:
        yield from parts
        return
    with bars.bar(total=len(parts), desc="reading", leave=False) as bar:
        for part in parts:
            yield part
            bar.update()


def _open(data: bytes, schema: Schema) -> pq.ParquetFile:
    # Words are read as codes, so that a word repeated a million times is in memory once.
    held = names(data)
    words = [column.name for column in schema.columns if column.kind in _WORDS and column.name in held]
    return pq.ParquetFile(pa.BufferReader(data), read_dictionary=words)


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


def _categories(frame: pd.DataFrame) -> dict[str, list[str]]:
    """Return the words that each category column may have, used or not."""
    return {
        str(name): list(values.cat.categories)
        for name, values in frame.items()
        if isinstance(values.dtype, pd.CategoricalDtype)
    }


def _empty_categories(schema: Schema, metadata: pq.FileMetaData) -> dict[str, pd.Categorical]:
    """Return the category columns of a frame without rows; Parquet keeps categories with the rows."""
    kept = _note(metadata, _CATEGORIES) or {}
    known = [column.name for column in schema.columns if column.kind is Kind.CATEGORY and column.name in kept]
    return {name: pd.Categorical([], categories=[str(word) for word in kept[name]] or None) for name in known}


def _bound(needed_bytes: int, most_bytes: int) -> None:
    if needed_bytes > most_bytes:
        raise ValueError(f"it needs more than {most_bytes} bytes of memory; pass most_bytes= to allow that")


def _differences(schema: Schema, held: list[str], source: str) -> list[Missing]:
    """Return which columns the *source*, made by another version, has too few or too many."""
    absent = ", ".join(name for name in schema.names if name not in held)
    unknown = ", ".join(name for name in held if name not in schema.names)
    found = [
        (absent, f"{source} does not hold them"),
        (unknown, "this netlab does not know them; pandas.read_parquet shows them"),
    ]
    return [Missing(f"columns {names}", Gap.UNAVAILABLE, None, why) for names, why in found if names]
