from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import networkx as nx
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings, strategies as st
from pandas.testing import assert_frame_equal
from pyarrow import csv

import netlab
from netlab import bundle
from netlab.columns import Kind
from netlab.errors import BadInput, BundleError
from netlab.frames import Gap, Missing
from netlab.schemas import ALL, CONNECTIONS, DOCTOR, HOPS

ODD = '=cmd|"/c calc"!A1,\n\r\x1b[31m<script>\u202e é'


def connections() -> pd.DataFrame:
    return CONNECTIONS.frame(
        {
            "protocol": pd.Categorical(["tcp", "tcp", None], categories=["tcp", "udp"]),
            "direction": ["outgoing"] * 3,
            "process": [ODD, "", None],
            "remote_address": ["192.0.2.7"] * 3,
            "remote_port": [443, 443, 80],
            "bytes_sent": [2**53 + 1, None, 0],
            "rtt_ms": [0.1 + 0.2, None, 1e-300],
            "assured": [True, None, False],
            "opened_at": [pd.Timestamp(1_763_688_632_123_456_789, tz="UTC"), None, None],
        },
        [Missing("direction", Gap.APPROXIMATE, 1, "from the ports")],
    )


ARROW = {
    Kind.TEXT: pa.large_string(), Kind.CATEGORY: pa.large_string(), Kind.INTEGER: pa.int64(),
    Kind.REAL: pa.float64(), Kind.FLAG: pa.bool_(), Kind.TIME: pa.timestamp("ns", "UTC"),
}  # fmt: skip


def from_csv(path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Make the frame again of the CSV file and of what is told beside it, by pyarrow alone."""
    told = json.loads(path.with_name(f"{path.name}-metadata.json").read_text())
    columns = told["tableSchema"]["columns"]
    schema = ALL[told["notes"][0]["schema"]]
    kinds = {column.name: column.kind for column in schema.columns}
    table = csv.read_csv(
        path,
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=csv.ConvertOptions(
            column_types={column["titles"]: ARROW[kinds[column["name"]]] for column in columns},
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )
    assert table.column_names == [column["titles"] for column in columns]
    data: dict[str, Any] = {}
    for column, values in zip(columns, table.columns, strict=True):
        data[column["name"]] = (
            values.to_pylist()
            if kinds[column["name"]] is not Kind.TIME
            else [
                None if value is None else pd.Timestamp(value, tz="UTC")
                for value in values.cast(pa.int64()).to_pylist()
            ]
        )
        if "netlab:categories" in column:
            data[column["name"]] = pd.Categorical(data[column["name"]], column["netlab:categories"])
    return schema.frame(data), told


def test_a_csv_file_and_its_metadata_lose_nothing(tmp_path: Path) -> None:
    frame = connections()

    back, told = from_csv(netlab.export(frame, tmp_path / "a.csv"))

    assert_frame_equal(back, frame)
    assert told["notes"] == [frame.attrs]


@given(
    st.lists(
        st.tuples(
            st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8),
            st.none() | st.sampled_from(["yes", "no"]),
        ),
        max_size=4,
    )
)
@settings(max_examples=40)
def test_any_text_survives_csv(
    tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[str | None, str | None]]
) -> None:
    frame = DOCTOR.frame({"why": [why for why, _ in cells], "state": [state for _, state in cells]})
    path = netlab.export(frame, tmp_path_factory.mktemp("csv") / "a.csv")

    assert_frame_equal(from_csv(path)[0], frame)


def test_headings_have_units_where_names_have_none(tmp_path: Path) -> None:
    heading = netlab.export(connections(), tmp_path / "a.csv").read_text().splitlines()[0]

    assert '"bytes_sent [bytes]"' in heading
    assert '"rtt_ms"' in heading
    assert '"duration_s"' in heading


def test_the_frame_is_left_as_it_was(tmp_path: Path) -> None:
    frame = connections()
    before = frame.copy()

    netlab.export(frame, tmp_path / "a.csv")

    assert_frame_equal(frame, before)


def test_arrow_keeps_dtypes_units_and_coverage(tmp_path: Path) -> None:
    frame = connections()
    path = netlab.export(frame, tmp_path / "a.arrow")

    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()

    assert_frame_equal(pd.read_feather(path), frame)
    assert table.schema.field("bytes_sent").metadata == {b"unit": b"bytes"}
    assert json.loads(table.schema.metadata[b"PANDAS_ATTRS"]) == frame.attrs


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_duckdb_reads_it(tmp_path: Path, name: str) -> None:
    path = netlab.export(connections(), tmp_path / name)

    with duckdb.connect() as db:
        found = db.sql(f"SELECT remote_port, count(*) FROM '{path}' GROUP BY 1 ORDER BY 1").fetchall()  # noqa: S608

    assert found == [(80, 1), (443, 2)]


# -- graphs ----------------------------------------------------------------------------------------------


def test_the_graph_of_connections_comes_back_with_all_that_is_known(tmp_path: Path) -> None:
    graph = netlab.connection_graph(connections())

    back = nx.read_graphml(netlab.export(connections(), tmp_path / "a.graphml"))

    assert back.number_of_nodes() == graph.number_of_nodes()
    assert sorted(told["key"] for *_, told in back.edges(data=True)) == sorted(
        key for *_, key in graph.edges(keys=True)
    )
    processes = [told for _, told in back.nodes(data=True) if told["kind"] == "process"]
    assert len(processes) == 3
    assert any("<script>" in told.get("process", "") and "\\x1b" in told["process"] for told in processes)
    assert all("cmdline" not in told for told in processes)
    assert json.loads(back.graph["coverage"]) == graph.graph["coverage"]


def test_a_path_graph_comes_back_with_its_times_and_lists(tmp_path: Path) -> None:
    hops = HOPS.frame(
        {
            "trace": ["t"] * 2,
            "target": ["db"] * 2,
            "run": [0, 0],
            "flow": [0, 0],
            "ttl": [1, 2],
            "address": ["192.0.2.1", "192.0.2.9"],
            "rtt_ms": [1.5, 2.5],
            "sent_at": [pd.Timestamp("2026-03-01T12:00:00Z")] * 2,
            "reached": [False, True],
        }
    )
    graph = netlab.path_graph(hops)

    back = nx.read_graphml(netlab.export(graph, tmp_path / "a.graphml"))

    labels = nx.get_node_attributes(back, "label")
    ids = {label: node for node, label in labels.items()}
    assert set(ids) == {str(node) for node in graph}
    told = back.nodes[ids["192.0.2.9"]]
    assert told["rtt_ms"] == 2.5
    assert json.loads(told["flows"]) == [0]
    assert told["first_seen"] == "2026-03-01 12:00:00+00:00"


# -- errors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "name"),
    [
        (connections(), "a.xlsx"),
        (connections(), "a"),
        (pd.DataFrame({"a": [1]}), "a.csv"),
        (nx.Graph(), "a.csv"),
        (DOCTOR.empty(), "a.graphml"),
        (5, "a.graphml"),
        (bundle.Bundle({}), "a.csv"),
    ],
)
def test_what_cannot_be_written_so_is_refused(tmp_path: Path, what: Any, name: str) -> None:
    with pytest.raises(BadInput):
        netlab.export(what, tmp_path / name)

    assert not list(tmp_path.iterdir())


def test_files_that_exist_are_kept(tmp_path: Path) -> None:
    beside = tmp_path / "a.csv-metadata.json"
    beside.write_text("precious")

    with pytest.raises(BundleError, match="exists already"):
        netlab.export(connections(), tmp_path / "a.csv")

    assert beside.read_text() == "precious"
    assert not (tmp_path / "a.csv").exists()
