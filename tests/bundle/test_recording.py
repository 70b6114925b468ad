from __future__ import annotations

import resource
import signal
import socket
import ssl
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from certificates import certify
from hypothesis import given, settings, strategies as st
from pandas.testing import assert_frame_equal
from programs import wait_until

import netlab
from netlab import bundle
from netlab.bundle.archive import Archive
from netlab.bundle.loading import history_of
from netlab.errors import BadInput, BundleError, CaptureError
from netlab.frames import Gap, Missing
from netlab.kernel import clock
from netlab.schemas import CONNECTIONS, COST, HOPS

NEVER = 3600.0  # seconds between two looks: the tests look themselves


def cost(runs: dict[str, int], lost: int = 0) -> pd.DataFrame:
    frame = COST.frame(
        {"program": list(runs), "kind": ["program"] * len(runs), "runs": list(runs.values())},
        [Missing("runs", Gap.LOST, lost, "for the test")] if lost else [],
    )
    return frame.astype({"kind": pd.CategoricalDtype(["program"])})


class Source:
    """A table that is what the test says it is."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame

    def __call__(self) -> pd.DataFrame:
        return self.frame.copy()


def record(path: Path, source: Source) -> bundle.Recording:
    return netlab.record(path, table=source, every_s=NEVER)


def rows(frame: pd.DataFrame) -> dict[str, int]:
    return dict(zip(frame["program"].tolist(), frame["runs"].tolist(), strict=True))


TABLES = st.lists(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 3), max_size=6), min_size=1, max_size=6
)


@given(TABLES)
@settings(max_examples=40)
def test_the_table_can_be_seen_as_it_was_at_each_look(
    tmp_path_factory: pytest.TempPathFactory, tables: list[dict[str, int]]
) -> None:
    path = tmp_path_factory.mktemp("recording") / "a.netlab"
    source = Source(cost(tables[0]))
    with record(path, source) as recording:
        for table in tables[1:]:
            source.frame = cost(table)
            recording.write()

    item = bundle.load(path).items_by_name["table"]
    past = history_of(item.segments, COST, made_by="")
    looks = [table for table, before in zip(tables, [None, *tables], strict=False) if table != before]

    assert [rows(past.at(at_ns)) for at_ns in past.told_ns.tolist()] == looks
    assert rows(item.frame) == tables[-1]
    assert past.at(int(past.told_ns[0]) - 1).empty


def test_a_closed_recording_is_an_ordinary_file_with_the_table_as_it_was_last(tmp_path: Path) -> None:
    source = Source(cost({"a": 1}))
    with record(tmp_path / "a.netlab", source) as recording:
        source.frame = cost({"a": 2, "b": 1}, lost=3)

    loaded = bundle.load(recording.path)

    assert zipfile.is_zipfile(recording.path)
    assert_frame_equal(loaded["table"], source.frame)
    assert loaded["table"].attrs == source.frame.attrs
    assert loaded.metadata.ended_at is not None
    assert loaded.metadata.ended_at >= loaded.metadata.created_at
    assert list(tmp_path.iterdir()) == [recording.path]


def grown(path: Path) -> list[tuple[int, dict[str, int]]]:
    """Return the size of a recording that was not closed after each look, and what the table was then."""
    source = Source(cost({"a": 1}))
    looks = []
    with record(path, source) as recording:
        for table in ({"a": 1}, {"a": 2, "b": 1}, {"b": 1, "c": 5}, {"c": 6}):
            source.frame = cost(table)
            recording.write()
            looks.append((path.stat().st_size, table))
        path.with_suffix(".grown").write_bytes(path.read_bytes())
    return looks


def test_at_every_cut_the_last_whole_look_is_there_and_the_rest_is_said_to_be_lost(tmp_path: Path) -> None:
    path = tmp_path / "a.netlab"
    looks = grown(path)
    data = path.with_suffix(".grown").read_bytes()
    first = Archive(path.with_suffix(".grown").open("rb"))
    manifest_end = 30 + len("bundle.json") + first._members["bundle.json"].compress_size
    first._file.close()
    cut = tmp_path / "cut.netlab"

    for size in range(manifest_end, len(data)):
        seen = [(end, table) for end, table in looks if end <= size]
        end, table = seen[-1] if seen else (manifest_end, {})
        if size not in {end, end + 1, end + 35} and size % 17:
            continue
        cut.write_bytes(data[:size])
        frame = bundle.load(cut)["table"]
        assert rows(frame) == table
        (gap,) = frame.attrs["coverage"]
        assert (gap["what"], gap["kind"], gap["count"]) == ("rows", "incomplete", None)
        assert (f"and {size - end} bytes" in gap["detail"]) == (size > end)


def test_damage_in_the_middle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.netlab"
    looks = grown(path)
    data = bytearray(path.with_suffix(".grown").read_bytes())
    data[looks[0][0] + 200] ^= 0xFF
    path.write_bytes(data)

    with pytest.raises(BundleError):
        bundle.load(path)


PROGRAM = """
import sys, time, netlab
with netlab.capture(mode="poll") as cap, netlab.record(sys.argv[1], cap, every_s=0.1):
    time.sleep(60)
"""


def test_killed_at_any_moment_it_leaves_what_was_written_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.netlab"
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
        subprocess.Popen([sys.executable, "-c", PROGRAM, str(path)]) as process,
    ):
        wait_until(lambda: path.exists() and path.stat().st_size > 2000)
        process.send_signal(signal.SIGKILL)
        port = client.getsockname()[1]

    connections = bundle.load(path)["connections"]

    assert not zipfile.is_zipfile(path)
    assert port in connections["local_port"].tolist()
    assert connections.attrs["coverage"][-1]["kind"] == "incomplete"
    assert "was not closed" in connections.attrs["coverage"][-1]["detail"]


@pytest.mark.privileged
def test_a_recorded_capture_has_its_tables_to_the_last_cell(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        netlab.capture(port=server.getsockname()[1], events=True, drops=True) as cap,
        netlab.record(tmp_path / "a.netlab", cap, every_s=NEVER) as recording,
    ):
        for count in range(1, 5):
            with socket.create_connection(server.getsockname()) as client, server.accept()[0] as peer:
                client.sendall(bytes(count))
                assert len(peer.recv(100)) == count
                recording.write()
        cap.stop()

    loaded = bundle.load(recording.path)

    assert list(loaded) == ["connections", "events", "drops", "cost"]
    for name in ("connections", "events", "drops"):
        expected = getattr(cap, name)()
        assert_frame_equal(loaded[name], expected, check_categorical=False)
        assert loaded[name].attrs["schema"] == expected.attrs["schema"]
    past = history_of(loaded.items_by_name["connections"].segments, CONNECTIONS, made_by="")
    last = past.at(int(past.told_ns[-1]))
    assert_frame_equal(last, loaded["connections"], check_categorical=False)


@pytest.mark.privileged
def test_what_a_capture_lets_go_of_stays_in_the_recording(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        netlab.capture(port=server.getsockname()[1], direction="outgoing", max_closed=2) as cap,
        netlab.record(tmp_path / "a.netlab", cap, every_s=NEVER) as recording,
    ):
        for _ in range(6):
            with socket.create_connection(server.getsockname()) as client:
                client.sendall(b"x")
                server.accept()[0].close()
            recording.write()

    connections = bundle.load(recording.path)["connections"]

    assert len(cap.connections()) < 6
    assert len(connections) == 6
    assert not [gap for gap in connections.attrs["coverage"] if gap["kind"] == "lost"]
    assert [gap for gap in cap.connections().attrs["coverage"] if gap["kind"] == "lost"]


def ping(client: socket.socket, server: socket.socket) -> None:
    """Let the two ends of a connection ask and answer by Redis' protocol."""
    client.sendall(b"*1\r\n$4\r\nPING\r\n")
    server.recv(100)
    server.sendall(b"+PONG\r\n")
    client.recv(100)


@pytest.mark.privileged
def test_requests_that_a_capture_lets_go_of_stay_in_the_recording(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        netlab.capture(port=server.getsockname()[1], protocols="redis", max_requests=2) as cap,
        netlab.record(tmp_path / "a.netlab", cap, every_s=NEVER) as recording,
        socket.create_connection(server.getsockname()) as client,
        server.accept()[0] as accepted,
    ):
        for _ in range(6):
            ping(client, accepted)
            recording.write()
        assert [gap["cause"] for gap in cap.requests().attrs["coverage"] if gap["kind"] == "lost"] == [
            "let-go"
        ]

    requests = bundle.load(recording.path)["requests"]

    assert len(requests) == 12  # at both ends
    assert not [gap for gap in requests.attrs["coverage"] if gap["kind"] == "lost"]


def let_go(frame: pd.DataFrame) -> int:
    return sum(gap["count"] for gap in frame.attrs["coverage"] if gap["kind"] == "lost")


@pytest.mark.privileged
@pytest.mark.parametrize("direction", ["outgoing", "incoming"])
def test_requests_at_the_other_end_make_no_room_for_those_of_one_direction(
    tmp_path: Path, direction: str
) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        netlab.capture(
            port=server.getsockname()[1], protocols="redis", direction=direction, max_requests=2
        ) as cap,
        netlab.record(tmp_path / "a.netlab", cap, every_s=NEVER) as recording,
        socket.create_connection(server.getsockname()) as client,
        server.accept()[0] as accepted,
    ):
        for _ in range(6):
            ping(client, accepted)
            recording.write()

    requests = bundle.load(recording.path)["requests"]

    assert (len(cap.requests()), let_go(cap.requests())) == (2, 4)
    assert (len(requests), let_go(requests)) == (6, 0)


@pytest.mark.privileged
def test_what_each_table_of_requests_lacks_is_of_its_own_protocol(tmp_path: Path) -> None:
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(*certify(tmp_path))
    client_side = ssl._create_unverified_context()  # noqa: S323 - of our own server
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        netlab.capture(port=server.getsockname()[1], protocols=("redis", "tls"), max_requests=4) as cap,
        netlab.record(tmp_path / "a.netlab", cap, every_s=NEVER) as recording,
        ThreadPoolExecutor(1) as other,
    ):
        for _ in range(3):
            with socket.create_connection(server.getsockname()) as client, server.accept()[0] as accepted:
                sealed = other.submit(server_side.wrap_socket, accepted, server_side=True)
                with client_side.wrap_socket(client), sealed.result():
                    recording.write()
        with socket.create_connection(server.getsockname()) as client, server.accept()[0] as accepted:
            for _ in range(4):
                ping(client, accepted)
                recording.write()

    recorded = bundle.load(recording.path)

    frames = [cap.requests(), cap.requests("redis"), cap.tls(), recorded["requests"], recorded["tls"]]
    assert [len(frame) + let_go(frame) for frame in frames] == [14, 8, 6, 14, 6]
    assert (len(cap.tls()), len(recorded["tls"])) == (0, 6)


@pytest.mark.privileged
def test_a_monitor_is_recorded_with_both_its_tables(tmp_path: Path) -> None:
    with (
        netlab.path.monitor("127.0.0.1", every_s=0.1, duration_s=0.4) as watched,
        netlab.record(tmp_path / "a.netlab", watched, every_s=0.1),
    ):
        assert watched.wait(30)

    loaded = bundle.load(tmp_path / "a.netlab")

    assert_frame_equal(loaded["hops"], watched.hops())
    assert_frame_equal(loaded["end_to_end"], watched.end_to_end())


# -- errors ----------------------------------------------------------------------------------------------


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_could_not_be_written_is_written_when_there_is_room_again(tmp_path: Path) -> None:
    source = Source(cost({"a": 1}))
    with record(tmp_path / "a.netlab", source) as recording:
        size = recording.path.stat().st_size
        source.frame = cost({"a": 2})
        with no_file_larger_than(size + 10), pytest.raises(OSError, match="too large"):
            recording.write()
        assert recording.path.stat().st_size == size

    assert rows(bundle.load(recording.path)["table"]) == {"a": 2}


def test_who_looks_at_a_recording_that_cannot_write_sees_why(tmp_path: Path) -> None:
    source = Source(cost({"a": 1}))
    with netlab.record(tmp_path / "a.netlab", table=source, every_s=0.1) as recording:
        with no_file_larger_than(recording.path.stat().st_size + 10):
            source.frame = cost({"a": 2})
            wait_until(lambda: recording.failure is not None)
            assert "failing: [Errno 27] File too large" in repr(recording)
        wait_until(lambda: recording.failure is None)

    assert "failing" not in repr(recording)


def test_a_table_that_cannot_be_read_any_more_does_not_keep_others_from_being_written(tmp_path: Path) -> None:
    good, bad = Source(cost({"a": 1})), Source(cost({"b": 1}))
    recording = netlab.record(tmp_path / "a.netlab", bad=bad, good=good, every_s=NEVER)
    good.frame, bad.frame = cost({"a": 2}), pd.DataFrame()

    with pytest.raises(BadInput):
        recording.write()
    with pytest.raises(BundleError, match="bad could not be read"):
        recording.close()

    loaded = bundle.load(recording.path)
    assert (rows(loaded["good"]), rows(loaded["bad"])) == ({"a": 2}, {"b": 1})
    assert not loaded["good"].attrs["coverage"]
    assert loaded["bad"].attrs["coverage"][0]["kind"] == "incomplete"
    assert "not read since 20" in loaded["bad"].attrs["coverage"][0]["detail"]
    assert zipfile.is_zipfile(recording.path)


def test_an_end_that_cannot_be_written_is_raised_and_leaves_what_was_there(tmp_path: Path) -> None:
    source = Source(cost({"a": 1}))
    recording = record(tmp_path / "a.netlab", source)
    source.frame = cost({"a": 2})

    with (
        no_file_larger_than(recording.path.stat().st_size + 10),
        pytest.raises(BundleError, match="last chang"),
    ):
        recording.close()

    recording.close()
    assert rows(bundle.load(recording.path)["table"]) == {"a": 1}


def test_a_file_that_was_damaged_meanwhile_ends_in_words(tmp_path: Path) -> None:
    recording = record(tmp_path / "a.netlab", Source(cost({"a": 1})))
    with recording.path.open("r+b") as file:
        file.write(bytes(100))

    with pytest.raises(BundleError, match="could not be made whole"):
        recording.close()


def test_a_recording_whose_file_was_replaced_is_kept_under_another_name(tmp_path: Path) -> None:
    path = tmp_path / "a.netlab"
    recording = record(path, Source(cost({"a": 1})))
    bundle.save(path, cost({"b": 1}), overwrite=True)

    with pytest.raises(BundleError, match="replaced"):
        recording.close()

    (other,) = (file for file in tmp_path.iterdir() if file != path)
    assert rows(bundle.load(path)["cost"]) == {"b": 1}
    assert rows(bundle.load(other)["table"]) == {"a": 1}


def test_appending_keeps_what_was_there_and_its_past(tmp_path: Path) -> None:
    path = tmp_path / "a.netlab"
    for runs in (1, 2):
        with netlab.record(path, table=Source(cost({"a": runs})), every_s=NEVER, append=True):
            pass
    bundle.save(path, cost({"a": 3}), append=True)

    loaded = bundle.load(path)

    assert {name: rows(frame)["a"] for name, frame in loaded.items()} == {"table": 1, "table_2": 2, "cost": 3}
    assert [len(item.segments) for item in loaded.items_by_name.values()] == [1, 1, 0]
    assert len(loaded.origins) == 3


def test_a_capture_that_does_not_run_is_refused_before_a_file_is_made(tmp_path: Path) -> None:
    with pytest.raises(CaptureError):
        netlab.record(tmp_path / "a.netlab", netlab.capture(mode="poll"))

    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "call",
    [
        netlab.record,
        lambda path: netlab.record(path, HOPS.empty()),
        lambda path: netlab.record(path, lambda: 5),
        lambda path: netlab.record(path, netlab.doctor),
        lambda path: netlab.record(path, Source(cost({})), every_s=0),
        lambda path: netlab.record(path, Source(cost({})), every_s=0.01),
        lambda path: netlab.record(path, Source(cost({})), overwrite=True, append=True),
        lambda path: netlab.record(path, **{"../x": Source(cost({}))}),
    ],
)
def test_what_cannot_be_recorded_is_refused_before_a_file_is_made(
    tmp_path: Path, call: Callable[[Path], object]
) -> None:
    with pytest.raises(BadInput):
        call(tmp_path / "a.netlab")

    assert not list(tmp_path.iterdir())


def test_a_source_that_fails_at_the_start_leaves_the_old_file(tmp_path: Path) -> None:
    path = bundle.save(tmp_path / "a.netlab", cost({"a": 1}))
    answers = iter([cost({"a": 2})])

    with pytest.raises(StopIteration):
        netlab.record(path, lambda: next(answers), overwrite=True)

    assert rows(bundle.load(path)["cost"]) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_exists_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.netlab"
    path.write_text("precious")

    with pytest.raises(BundleError, match="exists already"):
        netlab.record(path, Source(cost({})))

    assert path.read_text() == "precious"


def test_a_time_that_goes_back_does_not_put_looks_out_of_order(tmp_path: Path) -> None:
    source = Source(cost({"a": 1}))
    with record(tmp_path / "a.netlab", source) as recording:
        recording._moments.last_ns += 10**18  # as if the clock had been 30 years ahead at first
        for runs in (2, 3):
            source.frame = cost({"a": runs})
            recording.write()

    segments = bundle.load(recording.path).items_by_name["table"].segments

    assert np.all(np.diff([segment.at_ns for segment in segments]) > 0)


@pytest.mark.parametrize("set_by_s", [-3600, 3600])
def test_a_clock_that_is_set_meanwhile_leaves_the_looks_as_far_apart_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_by_s: int
) -> None:
    source = Source(cost({"a": 1}))
    with record(tmp_path / "a.netlab", source) as recording:
        moved = SimpleNamespace(
            monotonic_ns=time.monotonic_ns, time_ns=lambda: time.time_ns() + set_by_s * 10**9
        )
        monkeypatch.setattr(clock, "time", moved)
        source.frame = cost({"a": 2})

    replay = netlab.replay(recording.path)
    replay.seek((replay.end - replay.begin).total_seconds() / 2)

    assert pd.Timedelta(0) < replay.end - replay.begin < pd.Timedelta(minutes=10)
    assert rows(replay.cost()) == {"a": 1}
    assert netlab.coverage(bundle.load(recording.path)["table"])["detail"].str.contains(
        f"clock moved by {set_by_s:+}.0 s", regex=False
    ).tolist() == [True]


@pytest.mark.privileged
def test_what_connections_said_is_recorded_and_played_again(tmp_path: Path) -> None:
    path = tmp_path / "said.netlab"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with (
            netlab.capture(protocols="http", port=port) as capture,
            netlab.record(path, capture, every_s=NEVER),
        ):
            with socket.create_connection(server.getsockname()) as client:
                accepted, _ = server.accept()
                client.sendall(b"GET /cart HTTP/1.1\r\nHost: shop\r\n\r\n")
                accepted.recv(1000)
                accepted.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                client.recv(1000)
                accepted.close()
            wait_until(lambda: (capture.requests()["outcome"] == "answered").sum() == 2)

    saved = netlab.load(path)["requests"]
    past = netlab.replay(path)
    past.seek(past.end.to_pydatetime())
    assert saved["status"].tolist() == ["404", "404"]
    assert_frame_equal(past.requests("http"), saved, check_like=True)


def test_a_misspelt_option_is_told_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"record\(\) has no option 'every'.* Did you mean 'every_s'\?"):
        netlab.record(tmp_path / "one.netlab", table=Source(cost({})), every=3)
