"""The schemas as data: documented, and what every frame is built by."""

from __future__ import annotations

from pathlib import Path

import pytest

from netlab import schemas
from netlab.frames import Schema

DOCUMENT = Path(__file__).parent.parent / "docs" / "schemas.md"
EVERY = pytest.mark.parametrize("schema", schemas.ALL.values(), ids=lambda schema: schema.name)


def test_the_document_says_what_the_code_has() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == schemas.as_markdown()


@EVERY
def test_an_empty_frame_has_every_column_in_its_dtype(schema: Schema) -> None:
    frame = schema.empty()

    assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == {
        column.name: column.kind.value for column in schema.columns
    }


@EVERY
def test_every_duration_and_size_has_a_unit(schema: Schema) -> None:
    for column in schema.columns:
        if column.name.endswith("_ms"):
            assert column.unit == "ms"
        if column.name.endswith("_s"):
            assert column.unit == "s"
        if "bytes" in column.name:
            assert column.unit == "bytes"
