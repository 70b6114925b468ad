from __future__ import annotations

import json
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

import netlab
from netlab import bundle
from netlab.bundle import manifest
from netlab.frames import Gap, Missing
from netlab.schemas import HOPS

VERSION_1 = Path(__file__).parent.parent / "data" / "bundles" / "version_1.netlab"


def test_a_recording_of_layout_1_loads_as_it_was_made() -> None:
    old = bundle.load(VERSION_1)

    assert list(old) == ["connections", "hops"]
    assert (old.metadata.host, old.metadata.kernel, old.notes) == ("db1", "6.1.0", "the database times out")
    assert old.metadata.created_at == datetime(2026, 11, 21, 14, 13, 15, 963447, UTC)
    assert old.metadata.clock is None
    assert old["connections"]["error"].astype(object).fillna("-").tolist() == ["ECONNREFUSED", "-"]
    assert old["connections"]["opened_at"].astype("int64").iloc[0] == 1_763_688_632_000_000_001
    assert old["hops"]["rtt_ms"].fillna(-1).tolist() == [0.25, -1, 1.75]
    assert old["hops"].attrs["coverage"][0] == {
        "what": "answers", "kind": "lost", "count": 12, "detail": "the sockets' buffers were full",
        "cause": None,
    }  # fmt: skip


def test_a_recording_of_layout_1_is_written_again_in_this_layout(tmp_path: Path) -> None:
    old = bundle.load(VERSION_1)

    new = bundle.load(bundle.save(tmp_path / "new.netlab", old))

    assert new.origins == old.origins
    assert all(new[name].equals(old[name]) and new[name].attrs == old[name].attrs for name in old)


def test_frames_that_only_a_newer_netlab_has_ask_for_that_one(tmp_path: Path) -> None:
    told = {"bundle": manifest.VERSION, "origins": [], "items": [{"schema": "of_tomorrow"}]}
    with zipfile.ZipFile(tmp_path / "new.netlab", "w") as file:
        file.writestr(manifest.NAME, json.dumps(told))

    with pytest.raises(netlab.errors.BundleError, match=r"'of_tomorrow' frames.* Install a newer netlab"):
        bundle.load(tmp_path / "new.netlab")


def test_gaps_that_only_a_newer_netlab_has_ask_for_that_one(tmp_path: Path) -> None:
    hops = HOPS.empty([Missing("probes", Gap.LOST, 1, "of a test")])
    with zipfile.ZipFile(bundle.save(tmp_path / "old.netlab", hops=hops)) as old:
        members = {name: old.read(name) for name in old.namelist()}
    members[manifest.NAME] = members[manifest.NAME].replace(b'"lost"', b'"of_tomorrow"')
    with zipfile.ZipFile(tmp_path / "new.netlab", "w") as new:
        for name, data in members.items():
            new.writestr(name, data)

    with pytest.raises(netlab.errors.BundleError, match=r"a kind 'of_tomorrow'.* Install a newer netlab"):
        bundle.load(tmp_path / "new.netlab")
