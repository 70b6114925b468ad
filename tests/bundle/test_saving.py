from __future__ import annotations

import html.parser
import io
import json
import os
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings, strategies as st
from pandas.testing import assert_frame_equal

from netlab import bundle
from netlab.columns import Kind
from netlab.errors import BadInput, BundleError
from netlab.frames import Gap, Missing, Schema, coverage
from netlab.schemas import ALL, CONNECTIONS, CONNTRACK, COST, HOPS

LOST = Missing("events", Gap.LOST, 12, "the ring buffer was full")
NO_NAMES = Missing("remote_name", Gap.UNAVAILABLE, None, "nothing looked names up")


def hops(rows: int = 3, missing: tuple[Missing, ...] = (LOST, NO_NAMES)) -> pd.DataFrame:
    return HOPS.frame(
        {
            "target": ["db.example"] * rows,
            "ttl": list(range(1, rows + 1)),
            "address": [None if row == 1 else f"192.0.2.{row}" for row in range(rows)],
            "rtt_ms": np.ma.masked_invalid([np.nan if row == 1 else row / 7 for row in range(rows)]),
            "reached": [row == rows - 1 for row in range(rows)],
            "protocol": ["udp"] * rows,
            "sent_at": np.arange(1_763_688_632_123_456_789, 1_763_688_632_123_456_789 + rows),
        },
        missing,
    )


# -- what comes back is what went in ---------------------------------------------------------------------

WORDS = st.text(st.characters(codec="utf-8"), max_size=12)
CELLS: dict[Kind, st.SearchStrategy[Any]] = {
    Kind.TEXT: WORDS,
    Kind.CATEGORY: WORDS,
    Kind.INTEGER: st.integers(-(2**63), 2**63 - 1),
    Kind.REAL: st.floats(allow_nan=False),
    Kind.FLAG: st.booleans(),
    Kind.TIME: st.integers(-(2**63) + 1, 2**63 - 1).map(lambda ns: pd.Timestamp(ns, tz="UTC")),
}
GAPS = st.builds(Missing, WORDS, st.sampled_from(Gap), st.none() | st.integers(0, 2**62), WORDS)


@st.composite
def frames(draw: st.DrawFn) -> pd.DataFrame:
    schema = draw(st.sampled_from(list(ALL.values())))
    rows = draw(st.integers(0, 5))
    given_columns = draw(st.sets(st.sampled_from(schema.columns)))
    cells = {
        column.name: draw(st.lists(st.none() | CELLS[column.kind], min_size=rows, max_size=rows))
        for column in given_columns
    }
    return schema.frame(cells, draw(st.lists(GAPS, max_size=3)))


@given(frames(), st.text(st.characters(codec="utf-8"), max_size=40))
@settings(max_examples=60, deadline=None)
def test_any_frame_comes_back_with_its_values_dtypes_and_coverage(
    tmp_path_factory: pytest.TempPathFactory, frame: pd.DataFrame, notes: str
) -> None:
    path = tmp_path_factory.mktemp("bundle") / "any.netlab"

    bundle.save(path, frame=frame, notes=notes)
    loaded = bundle.load(path)

    assert_frame_equal(loaded["frame"], frame)
    assert loaded["frame"].attrs == frame.attrs
    assert loaded.notes == notes


def test_what_else_a_frame_carries_is_kept(tmp_path: Path) -> None:
    frame = hops()
    frame.attrs["multipath"] = {"confidence": 0.95, "links": [{"from": "192.0.2.1", "to": None}]}

    back = bundle.load(bundle.save(tmp_path / "a.netlab", frame))["hops"]

    assert back.attrs == frame.attrs


def test_what_json_cannot_hold_is_refused(tmp_path: Path) -> None:
    frame = hops()
    frame.attrs["lock"] = object()

    with pytest.raises(BadInput, match="not JSON serializable"):
        bundle.save(tmp_path / "a.netlab", frame)


@pytest.mark.parametrize("replies", [["time-exceeded"] * 4, [None] * 4, []])
def test_categories_that_no_row_uses_are_kept(tmp_path: Path, replies: list[str | None]) -> None:
    frame = hops(len(replies))
    frame["reply"] = pd.Categorical(replies, categories=["syn-ack", "time-exceeded", "rst"])

    back = bundle.load(bundle.save(tmp_path / "a.netlab", frame))["hops"]

    assert list(back["reply"].cat.categories) == ["syn-ack", "time-exceeded", "rst"]


def test_gaps_come_back_as_netlab_coverage_shows_them(tmp_path: Path) -> None:
    back = bundle.load(bundle.save(tmp_path / "a.netlab", hops()))["hops"]

    assert_frame_equal(coverage(back), coverage(hops()))


def test_filtered_rows_are_numbered_anew(tmp_path: Path) -> None:
    part = hops(9).query("ttl > 5")

    back = bundle.load(bundle.save(tmp_path / "a.netlab", part))["hops"]

    assert back.index.tolist() == [0, 1, 2, 3]
    assert back["ttl"].tolist() == [6, 7, 8, 9]


def test_plain_pandas_reads_the_parquet_files(tmp_path: Path) -> None:
    path = bundle.save(tmp_path / "a.netlab", hops())

    with zipfile.ZipFile(path) as archive:
        plain = pd.read_parquet(io.BytesIO(archive.read("hops.parquet")))

    assert_frame_equal(plain, hops(), check_categorical=False)
    assert plain.attrs == hops().attrs


def test_metadata_says_where_when_and_by_what_it_was_made(tmp_path: Path) -> None:
    before = pd.Timestamp.now("UTC")

    made = bundle.load(bundle.save(tmp_path / "a.netlab", hops(), notes="db times out")).metadata

    assert before <= made.created_at <= pd.Timestamp.now("UTC")
    assert (made.host, made.kernel) == (os.uname().nodename, os.uname().release)
    assert made.notes == "db times out"


def test_a_capture_is_saved_with_what_it_cost(tmp_path: Path) -> None:
    class Priced(Capture):
        def cost(self) -> pd.DataFrame:
            return COST.frame({"program": ["a"], "runs": [3]})

    loaded = bundle.load(bundle.save(tmp_path / "a.netlab", Priced()))

    assert list(loaded) == ["connections", "cost"]
    assert loaded["cost"]["runs"].tolist() == [3]


def test_metadata_has_the_clocks_as_they_stood(tmp_path: Path) -> None:
    clock = bundle.load(bundle.save(tmp_path / "a.netlab", hops())).metadata.clock

    assert clock is not None
    assert abs(clock.utc_minus_monotonic_ns - (time.time_ns() - time.monotonic_ns())) < 10**9
    assert clock.utc_offset_s == -time.timezone


# -- naming ----------------------------------------------------------------------------------------------


class Capture:
    def connections(self) -> pd.DataFrame:
        return CONNECTIONS.empty([LOST])


def test_items_are_named_by_what_they_are_and_numbered(tmp_path: Path) -> None:
    path = bundle.save(
        tmp_path / "a.netlab", Capture(), hops(1), hops(2), nat=CONNTRACK.empty(), hops_2=hops(3)
    )

    loaded = bundle.load(path)

    assert {name: len(frame) for name, frame in loaded.items()} == {
        "nat": 0,
        "hops_2": 3,
        "connections": 0,
        "hops": 1,
        "hops_3": 2,
    }


def test_an_unknown_name_is_a_key_error_that_names_the_nearest(tmp_path: Path) -> None:
    loaded = bundle.load(bundle.save(tmp_path / "a.netlab", hops()))

    with pytest.raises(KeyError, match="Did you mean 'hops'"):
        loaded["hop"]
    assert "hop" not in loaded


def test_its_repr_is_short_and_the_same_each_time(tmp_path: Path) -> None:
    loaded = bundle.load(bundle.save(tmp_path / "a.netlab", hops(), nat=CONNTRACK.empty()))

    assert repr(loaded) == "<Bundle nat: 0 rows, hops: 3 rows>"


def test_foreign_text_is_escaped_in_html(tmp_path: Path) -> None:
    loaded = bundle.load(
        bundle.save(tmp_path / "a.netlab", hops(), notes="<script>alert(1)</script><img src=x onerror=y>")
    )
    tags: list[str] = []
    parser = html.parser.HTMLParser()
    parser.handle_starttag = lambda tag, _: tags.append(tag)  # type: ignore[method-assign]

    parser.feed(loaded._repr_html_())

    assert {"script", "img"}.isdisjoint(tags)
    assert "table" in tags


# -- writing ---------------------------------------------------------------------------------------------


def test_a_file_that_exists_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.netlab"
    path.write_text("precious")

    with pytest.raises(BundleError, match="overwrite=True"):
        bundle.save(path, hops())

    assert path.read_text() == "precious"


def test_overwrite_replaces_it(tmp_path: Path) -> None:
    path = bundle.save(tmp_path / "a.netlab", hops(1))

    bundle.save(path, hops(2), overwrite=True)

    assert len(bundle.load(path)["hops"]) == 2


def test_what_many_add_to_one_file_at_once_is_all_in_it(tmp_path: Path) -> None:
    path = bundle.save(tmp_path / "a.netlab", CONNECTIONS.empty())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: bundle.save(path, COST.empty(), append=True), range(8)))

    assert len(bundle.load(path)) == 9


def test_a_file_that_others_may_not_read_stays_one_when_something_is_added(tmp_path: Path) -> None:
    path = bundle.save(tmp_path / "a.netlab", CONNECTIONS.empty())
    path.chmod(0o600)

    bundle.save(path, COST.empty(), append=True)

    assert path.stat().st_mode & 0o777 == 0o600


def test_a_link_leads_to_the_file_that_was_added_to(tmp_path: Path) -> None:
    path = bundle.save(tmp_path / "a.netlab", CONNECTIONS.empty())
    (tmp_path / "latest.netlab").symlink_to(path)

    bundle.save(tmp_path / "latest.netlab", COST.empty(), append=True)

    assert len(bundle.load(path)) == 2


def test_whoever_reads_the_old_file_while_it_is_replaced_still_has_all_of_it(tmp_path: Path) -> None:
    path = bundle.save(tmp_path / "a.netlab", hops(1))
    before = path.read_bytes()

    with path.open("rb") as reader:
        bundle.save(path, hops(2), overwrite=True)

        assert reader.read() == before


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bundle.save(tmp_path / "a.netlab", hops(1))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BundleError, match="No space left"):
        bundle.save(path, hops(2), overwrite=True)

    assert [file.name for file in tmp_path.iterdir()] == ["a.netlab"]
    assert len(bundle.load(path)["hops"]) == 1


def test_a_missing_directory_is_said(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="No such file or directory"):
        bundle.save(tmp_path / "no" / "a.netlab", hops())


@pytest.mark.parametrize(
    ("item", "problem"),
    [
        (pd.DataFrame({"a": [1]}), "does not say what it is"),
        (hops().assign(extra=1), "no column 'extra'"),
        (hops().assign(ttl="many"), "cannot save this hops frame"),
        ("hops", "cannot save str objects"),
    ],
)
def test_what_is_no_netlab_frame_is_refused_before_a_file_is_made(
    tmp_path: Path, item: Any, problem: str
) -> None:
    with pytest.raises(BadInput, match=problem):
        bundle.save(tmp_path / "a.netlab", item)

    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "call",
    [
        bundle.save,
        lambda path: bundle.save(path, hops(), notes=5),
        lambda path: bundle.save(path, hops(), notes="\ud800"),
        lambda path: bundle.save(path, **{"../x": hops()}),
        lambda _: bundle.save(5, hops()),
        lambda _: bundle.load(5),
        lambda path: bundle.load(path, most_bytes=0),
    ],
)
def test_arguments_that_cannot_be_right_are_refused(tmp_path: Path, call: Callable[[Path], Any]) -> None:
    with pytest.raises(BadInput):
        call(tmp_path / "a.netlab")


# -- hostile files ---------------------------------------------------------------------------------------


def parquet(frame: pd.DataFrame) -> bytes:
    out = io.BytesIO()
    frame.to_parquet(out)
    return out.getvalue()


def manifest(**changes: Any) -> dict[str, Any]:
    item = {"name": "hops", "schema": "hops", "rows": 3, "coverage": []}
    told = {"bundle": 1, "created_at": "2026-01-02T03:04:05+00:00", "host": "h", "kernel": "k", "netlab": "0"}
    return told | {"notes": "", "items": [item | changes.pop("item", {})]} | changes


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def forged(path: Path, **changes: Any) -> Path:
    data = changes.pop("data", parquet(hops()))
    told = manifest(**changes)
    return archive(path, {"bundle.json": json.dumps(told).encode(), "hops.parquet": data})


def test_the_forged_file_that_the_next_tests_damage_is_good(tmp_path: Path) -> None:
    assert len(bundle.load(forged(tmp_path / "a"))["hops"]) == 3


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"bundle": 3}, "pip install --upgrade"),
        ({"bundle": "1"}, "its bundle is not int"),
        ({"created_at": "yesterday"}, "yesterday"),
        ({"items": {}}, "its items is not list"),
        ({"items": []}, "members are not those"),
        ({"items": ["hops"]}, "cannot read"),
        ({"host": "\ud800"}, "surrogates not allowed"),
        ({"item": {"name": "../../etc/cron.d/x"}}, "cannot name a frame"),
        ({"item": {"name": "other"}}, "members are not those"),
        ({"item": {"schema": "future"}}, "'future' frames, which netlab"),
        ({"item": {"rows": 4}}, "promises 4 rows"),
        ({"item": {"rows": 10**30}}, "promises"),
        ({"item": {"coverage": [{"what": 1, "kind": "lost", "count": 1, "detail": ""}]}}, "what is not str"),
        ({"item": {"coverage": [{"what": "", "kind": "bored", "count": 1, "detail": ""}]}}, "bored"),
        ({"item": {"coverage": [{"what": "", "kind": "lost", "count": "1", "detail": ""}]}}, "count"),
        ({"item": {"coverage": ["lost"]}}, "cannot read"),
        ({"data": b"PAR1 no parquet PAR1"}, "cannot read"),
        ({"data": b""}, "cannot read"),
        ({"data": parquet(pd.DataFrame({"ttl": [[1], [2], [3]]}))}, "cannot read"),
        ({"data": parquet(pd.DataFrame({"ttl": ["a", "b", "c"]}))}, "cannot read"),
        ({"data": parquet(pd.DataFrame({"other": [1, 2, 3]}))}, "no column of hops frames"),
    ],
)
def test_a_file_that_lies_is_refused_with_the_reason(
    tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(BundleError, match=problem):
        bundle.load(forged(tmp_path / "a.netlab", **changes))


def test_text_that_is_no_utf_8_is_refused(tmp_path: Path) -> None:
    bad = pa.StringArray.from_buffers(
        3, pa.py_buffer(np.arange(4, dtype=np.int32)), pa.py_buffer(b"\xff\xfe\xfd")
    )
    out = io.BytesIO()
    pq.write_table(pa.table({"name": bad}), out)

    with pytest.raises(BundleError, match="UTF"):
        bundle.load(forged(tmp_path / "a.netlab", data=out.getvalue()))


def test_a_reason_that_quotes_the_file_has_no_control_characters(tmp_path: Path) -> None:
    with pytest.raises(BundleError) as refusal:
        bundle.load(forged(tmp_path / "a.netlab", item={"schema": "\x1b[31m\n" + "x" * 1000}))

    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 600


def test_a_file_that_is_no_zip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.netlab"
    path.write_text("just text")

    with pytest.raises(BundleError, match="not a zip file"):
        bundle.load(path)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="there is no file"):
        bundle.load(tmp_path / "a.netlab")


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="directory"):
        bundle.load(tmp_path)


@pytest.mark.parametrize(
    "members",
    [
        {"hops.parquet": parquet(hops())},
        {"bundle.json": b"{", "hops.parquet": b""},
        {"bundle.json": b"[" * 100_000, "hops.parquet": b""},
        {"bundle.json": json.dumps(manifest()).encode()},
        {
            "bundle.json": json.dumps(manifest()).encode(),
            "hops.parquet": parquet(hops()),
            "../../evil": b"",
        },
    ],
    ids=["no manifest", "half a manifest", "deep manifest", "no table", "path traversal"],
)
def test_an_archive_with_other_members_is_refused(tmp_path: Path, members: dict[str, bytes]) -> None:
    with pytest.raises(BundleError):
        bundle.load(archive(tmp_path / "a.netlab", members))


def test_an_archive_that_unpacks_to_more_than_allowed_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "a.netlab"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("bundle.json", json.dumps(manifest()))
        file.writestr("hops.parquet", bytes(50_000_000))

    assert path.stat().st_size < 100_000
    with pytest.raises(BundleError, match="most_bytes"):
        bundle.load(path, most_bytes=10_000_000)


def test_a_word_repeated_a_million_times_is_refused_before_it_is_expanded(tmp_path: Path) -> None:
    table = pa.table(
        {"name": pa.DictionaryArray.from_arrays(pa.array([0] * 1_000_000, pa.int32()), ["x" * 10_000])}
    )
    out = io.BytesIO()
    pq.write_table(table, out)

    assert len(out.getvalue()) < 100_000
    with pytest.raises(BundleError, match="most_bytes"):
        bundle.load(forged(tmp_path / "a.netlab", data=out.getvalue(), item={"rows": 1_000_000}))


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_damaged_file_is_refused_or_reads_as_frames(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("bundle") / "a.netlab"
    whole = bytearray(bundle.save(path, hops()).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)) | st.just(len(whole)))])

    try:
        loaded = bundle.load(path)
    except BundleError:
        return
    assert all(frame.dtypes.map(str).tolist() == [c.kind for c in HOPS.columns] for frame in loaded.values())


# -- other versions --------------------------------------------------------------------------------------


def stored(frame: pd.DataFrame, schema: Schema) -> bytes:
    return parquet(frame[[name for name in schema.names if name in frame]])


def test_columns_that_an_older_file_lacks_are_missing_and_said_so(tmp_path: Path) -> None:
    old = hops().drop(columns=["clock", "reply_ttl"])

    back = bundle.load(forged(tmp_path / "a.netlab", data=stored(old, HOPS)))["hops"]

    assert back[["clock", "reply_ttl"]].isna().all(axis=None)
    assert list(back.columns) == HOPS.names
    assert coverage(back)["what"].tolist() == ["columns reply_ttl, clock"]


def test_columns_that_this_netlab_does_not_know_are_said(tmp_path: Path) -> None:
    back = bundle.load(forged(tmp_path / "a.netlab", data=parquet(hops().assign(colour=1))))["hops"]

    assert list(back.columns) == HOPS.names
    assert coverage(back)["what"].tolist() == ["columns colour"]
