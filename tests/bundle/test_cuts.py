"""A recording that ends anywhere: what is whole is read, what is lost is said."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from pandas.testing import assert_frame_equal

import netlab
from netlab import bundle
from netlab.bundle.archive import Archive, _record
from netlab.errors import BundleError
from netlab.frames import Gap, Missing
from netlab.schemas import COST, DOCTOR

FRAMES = {
    "doctor": DOCTOR.frame(
        {"capability": ["capture"], "state": ["no"]}, [Missing("fix", Gap.UNSEEN, 1, "nobody asked")]
    ),
    "cost": COST.frame({"program": ["a", "b"], "runs": [1, 2]}),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return bundle.save(tmp_path_factory.mktemp("whole") / "a.netlab", **FRAMES).read_bytes()


def ends(whole: bytes) -> dict[str, int]:
    """Return where each member ends, as Python's own reader tells it."""
    with zipfile.ZipFile(io.BytesIO(whole)) as file:
        starts = [member.header_offset for member in file.infolist()] + [file.start_dir]
        return dict(zip(file.namelist(), starts[1:], strict=True))


def test_at_every_cut_the_members_before_it_are_read_and_the_rest_is_counted(whole: bytes) -> None:
    places = ends(whole)
    for cut in range(places["bundle.json"], len(whole)):
        before = {name: end for name, end in places.items() if end <= cut}
        with Archive(io.BytesIO(whole[:cut])) as archive:
            assert archive.names == list(before)
            in_directory = cut >= max(places.values()) + len(b"PK\x01\x02")
            assert archive.lost_bytes == (0 if in_directory else cut - max(before.values()))


def test_before_the_first_member_is_whole_there_is_nothing_to_read(whole: bytes) -> None:
    for cut in range(ends(whole)["bundle.json"]):
        with pytest.raises(zipfile.BadZipFile):
            Archive(io.BytesIO(whole[:cut]))


@given(st.data())
@settings(max_examples=150)
def test_a_cut_recording_has_each_frame_as_it_was_or_says_how_many_rows_are_lost(
    whole: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    places = ends(whole)
    near = [end + step for end in places.values() for step in (-1, 0, 1)]
    cut = data.draw(st.integers(0, len(whole) - 1) | st.sampled_from(near))
    path = tmp_path_factory.mktemp("cut") / "a.netlab"
    path.write_bytes(whole[:cut])

    if cut < places["bundle.json"]:
        with pytest.raises(BundleError):
            bundle.load(path)
        return
    loaded = bundle.load(path)

    assert list(loaded) == list(FRAMES)
    for name, frame in FRAMES.items():
        if places[f"{name}.parquet"] <= cut:
            assert_frame_equal(loaded[name], frame)
            assert loaded[name].attrs == frame.attrs
        else:
            assert loaded[name].empty
            assert lost(loaded[name]) == {"what": "rows", "kind": "lost", "count": len(frame)}


def lost(frame: pd.DataFrame) -> dict[str, object]:
    gap = frame.attrs["coverage"][-1]
    return {key: gap[key] for key in ("what", "kind", "count")}


def test_a_cut_recording_can_be_saved_whole_and_still_says_what_is_lost(whole: bytes, tmp_path: Path) -> None:
    cut, again = tmp_path / "cut.netlab", tmp_path / "again.netlab"
    cut.write_bytes(whole[: ends(whole)["doctor.parquet"] + 7])

    bundle.save(again, bundle.load(cut))

    assert lost(bundle.load(again)["cost"])["count"] == 2
    assert zipfile.is_zipfile(again)


# -- hostile files that end early ------------------------------------------------------------------------


def cut_with(tmp_path: Path, whole: bytes, name: str, data: bytes, *, claims: int | None = None) -> Path:
    """Return a file that goes on after its manifest with another member, and has no directory."""
    head = whole[: ends(whole)["bundle.json"]]
    member = bytearray(_record(name, data))
    if claims is not None:
        member[22:26] = claims.to_bytes(4, "little")
    path = tmp_path / "a.netlab"
    path.write_bytes(head + bytes(member) + _record("cost.parquet", b"it"))
    return path


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/cron.d/x",
        "history/../x/00000000000000000001.parquet",
        "history/cost/1.parquet",
        "history/other/" + "0" * 20,
    ],
)
def test_members_that_nothing_accounts_for_are_refused(tmp_path: Path, whole: bytes, name: str) -> None:
    with pytest.raises(BundleError, match="members are not those"):
        bundle.load(cut_with(tmp_path, whole, name, b"x"))


def test_a_segment_that_is_no_table_is_refused_when_it_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "a.netlab"
    with netlab.record(path, FRAMES["cost"].copy, every_s=3600) as recording:
        grown = path.read_bytes()
        recording.write()
    path.write_bytes(grown + _record(f"history/cost/{2**62:020d}.parquet", b"PAR1 no table PAR1"))

    with pytest.raises(BundleError, match="cannot read"):
        bundle.load(path)


def test_a_member_that_unpacks_to_more_than_allowed_is_refused_unread(tmp_path: Path, whole: bytes) -> None:
    path = cut_with(tmp_path, whole, "doctor.parquet", bytes(50_000_000))

    assert path.stat().st_size < 100_000
    with pytest.raises(BundleError, match="most_bytes"):
        bundle.load(path, most_bytes=10_000_000)


def test_a_member_that_unpacks_to_more_than_it_says_is_refused(tmp_path: Path, whole: bytes) -> None:
    path = cut_with(tmp_path, whole, "doctor.parquet", bytes(50_000_000), claims=100)

    with pytest.raises(BundleError, match="damaged"):
        bundle.load(path, most_bytes=10_000_000)


@given(st.data())
@settings(max_examples=150)
def test_a_damaged_recording_without_a_directory_is_refused_or_read(
    whole: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    damaged = bytearray(whole[: max(ends(whole).values())])
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "a.netlab"
    path.write_bytes(damaged)

    try:
        loaded = bundle.load(path)
    except BundleError:
        return
    assert all(frame.attrs["schema"] for frame in loaded.values())
