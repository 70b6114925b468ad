"""A recording opens without netlab: with zipfile and pandas, and with duckdb."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import duckdb
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

import netlab
from netlab import bundle
from netlab.frames import Gap, Missing
from netlab.schemas import CONNECTIONS


def connections() -> pd.DataFrame:
    return CONNECTIONS.frame(
        {
            "process": ["curl", "wget", None],
            "error": ["ECONNREFUSED", None, None],
            "bytes_sent": [0, 10, None],
            "opened_at": [pd.Timestamp("2026-03-01T12:00:00.000000001Z"), None, None],
        },
        [Missing("direction", Gap.APPROXIMATE, 1, "from the ports")],
    )


@pytest.fixture(params=["saved", "recorded"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "saved":
        return bundle.save(tmp_path / "a.netlab", connections())
    with netlab.record(tmp_path / "a.netlab", connections) as recording:
        return recording.path


def test_pandas_reads_dtypes_times_and_coverage(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        plain = pd.read_parquet(io.BytesIO(archive.read("connections.parquet")))

    assert_frame_equal(plain, connections())
    assert plain.attrs == connections().attrs


def test_pandas_reads_it_where_netlab_was_never_imported(path: Path) -> None:
    code = (
        "import io, sys, zipfile, pandas as pd\n"
        "data = zipfile.ZipFile(sys.argv[1]).read('connections.parquet')\n"
        "print(pd.read_parquet(io.BytesIO(data))['error'].value_counts().to_dict(), 'netlab' in sys.modules)"
    )

    run = subprocess.run([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True, check=True)

    assert run.stdout == "{'ECONNREFUSED': 1} False\n"


def test_duckdb_reads_the_unpacked_tables_and_the_changes_in_them(path: Path, tmp_path: Path) -> None:
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(path) as archive:
        archive.extractall(unpacked)
        segments = [name for name in archive.namelist() if name.startswith("history/")]

    with duckdb.connect() as db:
        found = db.execute(
            "SELECT process, error, epoch_ns(opened_at) FROM read_parquet(?) WHERE error IS NOT NULL",
            [str(unpacked / "connections.parquet")],
        ).fetchall()
        for name in segments:
            rows = db.execute("SELECT count(*) FROM read_parquet(?)", [str(unpacked / name)]).fetchall()
            assert rows == [(3,)]

    assert found == [("curl", "ECONNREFUSED", 1_772_366_400_000_000_001)]


def test_its_manifest_is_json_that_says_what_is_missing(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        told = json.loads(archive.read("bundle.json"))

    assert told["bundle"] == 2
    assert told["items"][0]["coverage"] == connections().attrs["coverage"]
    assert set(told["origins"][0]["clock"]) == {"utc_minus_monotonic_ns", "utc_offset_s", "timezone"}


def test_saving_what_was_loaded_writes_the_same_tables(path: Path, tmp_path: Path) -> None:
    again = bundle.save(tmp_path / "again.netlab", bundle.load(path))

    with zipfile.ZipFile(path) as first, zipfile.ZipFile(again) as second:
        assert first.namelist() == second.namelist()
        assert all(first.read(name) == second.read(name) for name in first.namelist())
    assert again.read_bytes() == path.read_bytes()
