from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

import netlab
from netlab import bundle
from netlab.errors import BadInput, BundleError, CaptureError
from netlab.frames import Gap, Missing
from netlab.schemas import CONNECTIONS, DNS, DROPS, EVENTS, HOPS, REQUESTS

T0 = pd.Timestamp("2026-03-01T12:00:00Z")
NEVER = 3600.0


def after(seconds: float) -> pd.Timestamp:
    return T0 + pd.Timedelta(seconds=seconds)


def connections() -> pd.DataFrame:
    return CONNECTIONS.frame(
        {
            "protocol": ["tcp"] * 3,
            "state": ["established", "closed", "closed"],
            "direction": ["outgoing"] * 3,
            "process": ["sshd", "curl", "wget"],
            "remote_port": [22, 443, 80],
            "opened_at": [None, after(10), after(20)],
            "closed_at": [None, after(40), after(21)],
            "duration_s": [None, 30.0, 1.0],
            "bytes_sent": [500, 70, 0],
            "error": [None, None, "ECONNREFUSED"],
            "reason": [None, None, "refused"],
            "cookie": [1, 2, 3],
        },
        [Missing("direction", Gap.APPROXIMATE, 1, "from the ports")],
    )


def events() -> pd.DataFrame:
    return EVENTS.frame({"at": [after(10), after(20), after(40)], "after": ["syn-sent", "closed", "closed"]})


def drops() -> pd.DataFrame:
    return DROPS.frame(
        {"first_at": [after(5)], "last_at": [after(15)], "packets": [7], "reason": ["NO_SOCKET"]}
    )


@pytest.fixture
def saved(tmp_path: Path) -> bundle.Bundle:
    path = bundle.save(tmp_path / "a.netlab", connections(), events(), drops())
    return bundle.load(path)


# -- frames that were saved once -------------------------------------------------------------------------


def test_a_saved_frame_is_played_by_its_own_times(saved: bundle.Bundle) -> None:
    past = netlab.replay(saved)
    seen = {}
    for seconds in (0, 10, 20, 21, 39, 40):
        past.seek(after(seconds)) if seconds > 5 else past.seek(0)
        rows = past.connections()
        seen[seconds] = dict(zip(rows["process"], rows["closed_at"].notna(), strict=True))
        assert past.failures()["process"].tolist() == (["wget"] if seconds > 20 else [])

    assert seen == {
        0: {"sshd": False},
        10: {"sshd": False, "curl": False},
        20: {"sshd": False, "curl": False, "wget": False},
        21: {"sshd": False, "curl": False, "wget": True},
        39: {"sshd": False, "curl": False, "wget": True},
        40: {"sshd": False, "curl": True, "wget": True},
    }


def test_what_is_known_only_at_the_end_is_missing_before_and_the_coverage_says_so(
    saved: bundle.Bundle,
) -> None:
    past = netlab.replay(saved, at=after(30))

    curl = past.connections().set_index("process").loc["curl"]

    assert curl[["state", "closed_at", "bytes_sent"]].isna().all()
    assert curl["duration_s"] == 20
    assert curl["remote_port"] == 443
    told = netlab.coverage(past.connections())
    assert told["kind"].tolist() == ["approximate", "unavailable"]
    assert "bytes_sent" in told["what"].iloc[1]


def test_at_the_end_it_is_the_frame_as_it_was_saved(saved: bundle.Bundle) -> None:
    past = netlab.replay(saved)
    past.seek(past.end)

    expected = saved["connections"].sort_values("opened_at", na_position="first").reset_index(drop=True)

    assert_frame_equal(past.connections(), expected)
    assert past.connections().attrs == saved["connections"].attrs


def test_events_and_drops_come_when_they_happened(saved: bundle.Bundle) -> None:
    past = netlab.replay(saved)

    past.seek(after(12))
    assert past.events()["after"].tolist() == ["syn-sent"]
    assert past.drops()["packets"].isna().tolist() == [True]
    past.seek(after(16))
    assert past.drops()["packets"].tolist() == [7]


def test_probes_are_known_when_their_run_is_over() -> None:
    hops = HOPS.frame(
        {
            "trace": ["t"] * 4,
            "target_address": ["192.0.2.9"] * 4,
            "run": [0, 0, 1, 1],
            "ttl": [1, 2, 1, 2],
            "address": ["192.0.2.1", None, "192.0.2.1", "192.0.2.9"],
            "rtt_ms": [2.0, None, 2.0, 500.0],
            "sent_at": [after(0), after(0.001), after(1), after(1.001)],
        }
    )
    past = netlab.replay(of(hops))

    past.seek(after(1.2))
    assert past.hops()["run"].tolist() == [0, 0]
    past.seek(after(1.501))
    assert past.hops()["run"].tolist() == [0, 0, 1, 1]
    assert past.end_to_end().empty
    assert_frame_equal(past.stats(), netlab.path.path_stats(hops))


def of(*frames: pd.DataFrame) -> bundle.Bundle:
    origin = bundle.Metadata.of_here("")
    return bundle.Bundle({f.attrs["schema"]: bundle.Item(f, (origin,)) for f in frames})


# -- frames that were recorded ---------------------------------------------------------------------------


def test_a_recorded_table_is_as_it_was_at_each_look(tmp_path: Path) -> None:
    frame = connections()
    looks: list[pd.DataFrame] = []

    def now() -> pd.DataFrame:
        return frame.copy()

    with netlab.record(tmp_path / "a.netlab", now, every_s=NEVER) as recording:
        for sent in (500, 600, 700):
            frame.loc[0, "bytes_sent"] = sent
            recording.write()
            looks.append(frame.drop(columns="duration_s"))
    past = netlab.replay(recording.path)
    times = [s.at_ns for s in bundle.load(recording.path).items_by_name["connections"].segments]

    assert len(times) == 3
    for at_ns, expected in zip(times, looks, strict=True):
        past.seek(pd.Timestamp(at_ns, tz="UTC"))
        assert_frame_equal(past.connections().drop(columns="duration_s"), expected, check_categorical=False)
    assert past.begin.value == times[0]


@pytest.mark.privileged
def test_deltas_are_those_that_the_capture_told(tmp_path: Path) -> None:
    live = []
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        netlab.capture(port=server.getsockname()[1], direction="outgoing") as cap,
        socket.create_connection(server.getsockname()) as long,
        netlab.record(tmp_path / "a.netlab", cap, every_s=NEVER) as recording,
    ):
        cap.register("test")
        for count in (10, 20, 30):
            long.sendall(bytes(count))
            with socket.create_connection(server.getsockname()) as client:
                client.sendall(b"x")
            wait_for_silence(cap)
            live.append(cap.delta("test"))
            recording.write()
    past = netlab.replay(recording.path)
    segments = bundle.load(recording.path).items_by_name["connections"].segments
    past.register("test")

    for segment, expected in zip(segments[1:], live, strict=False):
        past.seek(pd.Timestamp(segment.at_ns, tz="UTC"))
        told = past.delta("test")
        columns = ["cookie", "new", "state", *(name for name in told if name.startswith("delta_bytes"))]
        assert_frame_equal(told[columns], expected[columns], check_categorical=False)
    past.seek(past.begin)
    assert past.delta("test").empty


@pytest.mark.parametrize("append", [True, False])
def test_all_captures_of_a_recording_are_played(tmp_path: Path, *, append: bool) -> None:
    path = tmp_path / "a.netlab"
    web, db = connections(), connections().assign(cookie=[3, 4, 5])
    web.attrs = db.attrs = connections().attrs
    if append:
        with netlab.record(path, web.copy, every_s=NEVER):
            pass
        with netlab.record(path, db.copy, every_s=NEVER, append=True):
            pass
    else:
        with netlab.record(path, web=web.copy, db=db.copy, every_s=NEVER):
            pass
    past = netlab.replay(path)
    past.register("test")
    past.seek(past.end)

    seen = past.connections()

    assert sorted(seen["cookie"]) == [1, 2, 3, 3, 4, 5]
    assert seen["opened_at"].dropna().is_monotonic_increasing
    assert netlab.coverage(seen)["count"].tolist() == [2]
    assert len(past.failures()) == 2
    assert len(past.delta("test")) == (3 if append else 0)


def test_one_capture_that_was_recorded_twice_is_played_once(tmp_path: Path) -> None:
    path, frame = tmp_path / "a.netlab", connections()
    for append in (False, True):
        with netlab.record(path, frame.copy, every_s=NEVER, append=append):
            pass
        frame.loc[0, "state"] = "closed"
    past = netlab.replay(path)
    past.seek(past.end)

    assert past.connections().set_index("process")["state"].to_dict() == {
        "sshd": "closed",
        "curl": "closed",
        "wget": "closed",
    }


def test_of_several_traces_the_first_is_played_and_the_coverage_names_the_others() -> None:
    origin = bundle.Metadata.of_here("")
    hops = HOPS.frame({"trace": ["t"], "ttl": [1], "sent_at": [T0]})
    past = netlab.replay(bundle.Bundle({name: bundle.Item(hops, (origin,)) for name in ("web", "db")}))
    past.seek(past.end)

    told = netlab.coverage(past.hops())

    assert len(past.hops()) == 1
    assert told[["kind", "count"]].to_numpy().tolist() == [["incomplete", 1]]
    assert 'netlab.load(path)["db"]' in told["detail"].iloc[0]


def wait_for_silence(cap: Any) -> None:
    """Wait until two looks find the same."""
    columns = ["cookie", "state", "bytes_sent", "packets_received"]
    seen = cap.connections()[columns]
    while True:
        time.sleep(0.05)
        now = cap.connections()[columns]
        if now.equals(seen):
            return
        seen = now


# -- time ------------------------------------------------------------------------------------------------


def test_it_plays_at_its_speed_to_the_end_and_stops_there(saved: bundle.Bundle) -> None:
    past = netlab.replay(saved, speed=1e6)
    assert (past.state, past.now()) == ("new", past.begin)
    past.seek(past.end - pd.Timedelta(hours=1))

    with past:
        assert past.wait(30)
        assert (past.state, past.now()) == ("stopped", past.end)

    assert not past.running


def test_paused_it_stays_and_resumed_it_goes_on(saved: bundle.Bundle) -> None:
    past = netlab.replay(saved).start()
    past.pause()
    there = past.now()
    time.sleep(0.02)
    assert past.now() == there
    assert past.state == "paused"
    past.resume()
    time.sleep(0.02)
    assert past.now() > there
    past.stop()
    past.stop()
    there = past.now()
    time.sleep(0.02)
    assert past.now() == there


def test_what_has_ended_can_be_started_again_after_a_seek(saved: bundle.Bundle) -> None:
    past = netlab.replay(saved).start()
    past.stop()
    with pytest.raises(CaptureError, match=r"seek\(\)"):
        past.start()
    past.seek(0)

    assert past.state == "new"
    assert past.start().running


@pytest.mark.parametrize(
    "call",
    [
        lambda saved: netlab.replay(saved, speed=0),
        lambda saved: netlab.replay(saved, speed=float("inf")),
        lambda saved: netlab.replay(saved, at="noon"),
        lambda saved: netlab.replay(saved, at=-1),
        lambda saved: netlab.replay(saved, at=float("nan")),
        lambda saved: netlab.replay(saved, at="2020-01-01"),
        lambda saved: netlab.replay(saved, at=True),
        lambda saved: netlab.replay(saved).register(""),
        lambda _: netlab.replay(5),
        lambda _: netlab.replay(bundle.Bundle({})),
    ],
)
def test_arguments_that_cannot_be_right_are_refused(saved: bundle.Bundle, call: Any) -> None:
    with pytest.raises(BadInput):
        call(saved)


def test_what_was_said_is_counted_as_it_was_known_then(tmp_path: Path) -> None:
    asked = REQUESTS.frame({"protocol": ["http"] * 2, "requested_at": [after(1), after(3)]})
    lookups = DNS.frame(
        {"name": ["db1"], "type": ["A"], "rcode": ["NOERROR"], "retries": [0], "asked_at": [after(1)]}
    )
    past = netlab.replay(bundle.save(tmp_path / "a.netlab", asked, lookups))

    past.seek(after(2))

    counted = past.protocol_stats()
    assert counted.set_index("protocol")["requests"].to_dict() == {"dns": 1, "http": 1}
    assert past.dns_stats(by="name")["lookups"].tolist() == [1]


def test_what_is_not_in_the_recording_is_said(saved: bundle.Bundle) -> None:
    past = netlab.replay(saved)

    with pytest.raises(CaptureError, match="has no hops"):
        past.hops()
    with pytest.raises(CaptureError, match="register"):
        past.delta("nobody")
    with pytest.raises(CaptureError, match="start"):
        past.wait()


def test_a_past_that_lies_is_refused(tmp_path: Path) -> None:
    origin = bundle.Metadata.of_here("")
    with netlab.record(tmp_path / "a.netlab", connections, every_s=NEVER) as recording:
        pass
    item = bundle.load(recording.path).items_by_name["connections"]
    again = bundle.Segment(
        item.segments[0].at_ns + 1, item.segments[0].data.replace(b".replaces", b".replacez")
    )
    lying = bundle.Bundle({"connections": bundle.Item(item.frame, (origin,), (*item.segments, again))})

    with pytest.raises(BundleError, match="which rows it replaces"):
        netlab.replay(lying)
