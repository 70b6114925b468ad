"""A frame as CSV, with all that CSV does not hold beside it, as the W3C's "CSV on the Web" has it.

A heading is the column's name, with its unit where the name does not end in it. ``NAME.csv-metadata.json``
(https://www.w3.org/TR/tabular-metadata/) has names, types, units and meanings of the columns, and in its
notes the frame's coverage.
"""

from __future__ import annotations

import io
import json
from typing import Any

import pandas as pd
import pyarrow as pa
from pyarrow import csv

from netlab import parquet
from netlab.bundle.contents import schema_of
from netlab.columns import Kind
from netlab.frames import Column

_DATATYPES: dict[Kind, Any] = {
    Kind.TEXT: "string",
    Kind.CATEGORY: "string",
    Kind.INTEGER: "long",
    Kind.REAL: "double",
    Kind.FLAG: "boolean",
    Kind.TIME: {"base": "dateTimeStamp", "format": "yyyy-MM-dd HH:mm:ss.SSSSSSSSSX"},
}


def as_csv(frame: pd.DataFrame) -> bytes:
    """Return *frame* as CSV (RFC 4180): text is in quotes, and what is missing is empty without them."""
    schema = schema_of(frame)
    table = parquet.as_arrow(frame, schema)
    words = pa.large_string()
    plain = [
        column.cast(words) if pa.types.is_dictionary(column.type) else column for column in table.columns
    ]
    columns = [column for column in schema.columns if column.name in frame.columns]
    out = io.BytesIO()
    csv.write_csv(pa.table(plain, names=[_heading(column) for column in columns]), out)
    return out.getvalue()


def metadata(frame: pd.DataFrame, file_name: str) -> bytes:
    """Return what is to be known of the CSV of *frame*, which is in the file of that name."""
    columns = [column for column in schema_of(frame).columns if column.name in frame.columns]
    told = {
        "@context": "http://www.w3.org/ns/csvw",
        "url": file_name,
        "dialect": {"header": True, "encoding": "utf-8", "quoteChar": '"', "delimiter": ","},
        "tableSchema": {"columns": [_told(column, frame) for column in columns]},
        "notes": [dict(frame.attrs)],
    }
    return json.dumps(told, indent=1).encode()


def _told(column: Column, frame: pd.DataFrame) -> dict[str, Any]:
    told = {
        "name": column.name,
        "titles": _heading(column),
        "datatype": _DATATYPES[column.kind],
        "dc:description": column.meaning,
    }
    if column.unit:
        told["schema:unitText"] = column.unit
    if column.kind is Kind.CATEGORY:
        told["netlab:categories"] = list(frame[column.name].cat.categories)
    return told


def _heading(column: Column) -> str:
    told = not column.unit or column.name.endswith(f"_{column.unit}")
    return column.name if told else f"{column.name} [{column.unit}]"
