"""The schemas as data: documented, and what every frame is built by."""

from __future__ import annotations

from pathlib import Path

import pytest

from netlab import schemas
from netlab.frames import Schema

DOCUMENT = Path(__file__).parent.parent / "docs" / "schemas.md"
EVERY = pytest.mark.parametrize("schema", schemas.ALL.values(), ids=lambda schema: schema.name)

# Of what pandas shows of a wide frame, the first ten columns and the last ten.
TELLING = {
    "connections": ["process", "remote_address", "state", "error", "reason", "rtt_ms", "retransmits"],
    "deltas": ["process", "remote_address", "error", "delta_bytes_sent", "delta_retransmits"],
    "requests": ["resource", "status", "latency_ms", "process", "remote_address"],
    "tls": ["tls_server_name", "tls_certificate_expires_at", "error", "process"],
    "dns": ["name", "rcode", "latency_ms", "server_address", "silent_servers", "process"],
    "conntrack": ["src", "dport", "reply_src", "state", "timeout_s", "nat"],
    "nat": ["src", "dport", "reply_src", "reply_sport", "kind"],
    "hops": ["ttl", "address", "name", "rtt_ms", "reached", "error"],
    "drops": ["reason", "location", "src", "dport", "packets", "process"],
    "verdicts": ["ttl", "address", "verdict", "why", "loss"],
}


def test_the_document_says_what_the_code_has() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == schemas.as_markdown()


@EVERY
def test_an_empty_frame_has_every_column_in_its_dtype(schema: Schema) -> None:
    frame = schema.empty()

    assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == {
        column.name: column.kind.value for column in schema.columns
    }


@pytest.mark.parametrize(("name", "columns"), TELLING.items(), ids=TELLING)
def test_pandas_shows_the_columns_that_tell_most(name: str, columns: list[str]) -> None:
    schema = schemas.ALL[name]
    shown = schema.frame({schema.names[0]: [None]})._repr_html_()

    assert [column for column in columns if f"<th>{column}</th>" not in shown] == []


def test_a_narrow_terminal_shows_who_failed_where() -> None:
    failure = {"process": ["curl"], "error": ["ECONNREFUSED"], "remote_address": ["198.51.100.7"]}
    shown = schemas.CONNECTIONS.frame(failure).to_string(max_cols=6)  # as many as fit into 80 characters

    assert all(value in shown for (value,) in failure.values())


@EVERY
def test_every_duration_and_size_has_a_unit(schema: Schema) -> None:
    for column in schema.columns:
        if column.name.endswith("_ms"):
            assert column.unit == "ms"
        if column.name.endswith("_s"):
            assert column.unit == "s"
        if "bytes" in column.name:
            assert column.unit == "bytes"
