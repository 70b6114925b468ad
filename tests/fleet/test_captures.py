"""A capture on two of the fleet's hosts."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import fleets
import pandas as pd
import pytest
from distributed import Client
from fleets import SPARE
from programs import wait_until

from netlab.errors import CaptureError
from netlab.fleet import Fleet, dataset, gaps
from netlab.fleet.captures import FleetCapture
from netlab.fleet.recording import COVERAGE, write
from netlab.schemas import DELTAS

pytestmark = pytest.mark.privileged

PORT, SENT = 7000, 1000


@pytest.fixture(scope="module")
def server(rig: fleets.Rig) -> Iterator[str]:
    """Have a host read what it is sent on PORT, and close: its name."""
    with rig.entered("h8"):
        listener = socket.create_server((fleets.address("h8"), PORT))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    while connection.recv(1 << 16):
                        pass

    thread = threading.Thread(target=serve)
    thread.start()
    yield "h8"
    listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    listener.close()


def talk(rig: fleets.Rig, near: str, far: str) -> None:
    with rig.entered(near):
        connection = socket.create_connection((fleets.address(far), PORT))
    with connection:
        connection.sendall(bytes(SENT))
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""


@pytest.fixture(scope="module")
def capture(client: Client) -> Iterator[FleetCapture]:
    with Fleet(client, hosts=["h1", "h8"], timeout_s=60).capture(
        netns=None, port=PORT, protocol="tcp"
    ) as found:
        found.register("test")
        yield found
    found.close()


def test_each_end_of_a_connection_is_a_row_of_its_host(
    rig: fleets.Rig, server: str, capture: FleetCapture
) -> None:
    talk(rig, "h1", server)

    told = capture.connections().groupby("host").first()

    assert told["direction"].to_dict() == {"h1": "outgoing", "h8": "incoming"}
    assert (told.loc["h1", "bytes_sent"], told.loc["h8", "bytes_received"]) == (SENT, SENT)


def test_a_delta_whose_answer_was_lost_is_told_by_the_next_call(
    rig: fleets.Rig, server: str, capture: FleetCapture
) -> None:
    capture.delta("test")
    talk(rig, "h1", server)
    received = capture._received.copy()
    capture.delta("test")
    capture._received = received  # as if no answer had come

    again, after = capture.delta("test"), capture.delta("test")

    assert again["delta_bytes_sent"].sum() == again["delta_bytes_received"].sum() == SENT
    assert after.empty


def test_a_block_with_a_duration_is_left_when_that_is_over(
    rig: fleets.Rig, server: str, client: Client
) -> None:
    fleet = Fleet(client, hosts=["h1", server], timeout_s=60)
    stop = threading.Event()

    def keep_talking() -> None:
        while not stop.wait(0.1):
            talk(rig, "h1", server)

    talker = threading.Thread(target=keep_talking)
    talker.start()
    try:
        with fleet.capture(netns=None, port=PORT, protocol="tcp", duration_s=1.0) as seen:
            pass
    finally:
        stop.set()
        talker.join()

    assert set(seen.connections()["host"]) == {"h1", server}
    assert seen.wait()
    seen.close()


@pytest.mark.filterwarnings("ignore:The inplace keyword:DeprecationWarning")  # dask's, since pandas 3.1
def test_a_recording_is_a_dataset_that_grows_adds_up_and_says_which_host_it_lost(
    rig: fleets.Rig, server: str, client: Client, spare: int, tmp_path: Path
) -> None:
    fleet = Fleet(client, hosts=["h1", server, SPARE], timeout_s=60)
    with fleet.record(tmp_path, every_s=0.2, netns=None, port=PORT, protocol="tcp"):
        talk(rig, "h1", server)
        wait_until(lambda: {file.parts[-3] for file in tmp_path.rglob("*.parquet")} >= {"host=h1", "host=h8"})
        assert set(pd.read_parquet(tmp_path)["host"]) >= {"h1", "h8"}
        os.kill(spare, signal.SIGKILL)
        wait_until(lambda: SPARE in " ".join(gaps(tmp_path)["detail"]))
        talk(rig, "h1", server)

    table = dataset(tmp_path)
    found = table.groupby("host")[["delta_bytes_sent", "delta_bytes_received"]].sum().compute()

    assert found.loc["h1"].tolist() == [2 * SENT, 0]
    assert found.loc["h8"].tolist() == [0, 2 * SENT]
    assert table[~table["closed_at"].isna()]["cookie"].compute().nunique() == 4


def test_what_connections_say_is_told_by_host(rig: fleets.Rig, server: str, client: Client) -> None:
    fleet = Fleet(client, hosts=["h1", server], timeout_s=60)
    with fleet.capture(netns=None, protocols=("http", "tls", "dns")) as capture:
        with rig.entered("h1"):
            connection = socket.create_connection((fleets.address(server), PORT))
        with connection:
            connection.sendall(b"GET /a HTTP/1.1\r\nHost: shop.example\r\n\r\n")
            wait_until(lambda: len(capture.requests("http")) == 2)

    asked, counted = capture.requests(), capture.protocol_stats()
    assert asked.set_index("on_host")["host"].to_dict() == {"h1": "shop.example", server: "shop.example"}
    assert counted.set_index("host")["requests"].to_dict() == {"h1": 1, server: 1}
    for table in (capture.dns(), capture.dns_stats(), capture.names(), capture.tls(), capture.cost()):
        assert table.columns[0] == "host"
    capture.close()


@pytest.mark.filterwarnings("ignore:The inplace keyword:DeprecationWarning")  # dask's, since pandas 3.1
def test_what_a_full_disk_did_not_take_is_written_when_there_is_room(
    rig: fleets.Rig, server: str, client: Client, small_disk: Path
) -> None:
    filling = small_disk / "filling"
    options = {"every_s": 0.2, "netns": None, "port": PORT, "protocol": "tcp"}
    with Fleet(client, hosts=["h1"], timeout_s=60).record(small_disk / "fleet", **options) as recording:
        with contextlib.suppress(OSError), filling.open("wb", buffering=0) as full:
            while full.write(bytes(4096)):
                pass
        talk(rig, "h1", server)
        wait_until(lambda: recording.failure is not None)
        filling.unlink()

    assert dataset(small_disk / "fleet")["delta_bytes_sent"].sum().compute() == SENT


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(tmp_path)], check=True)
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def test_the_time_between_two_recordings_in_one_directory_is_a_gap(client: Client, tmp_path: Path) -> None:
    for _ in range(2):
        with Fleet(client, hosts=["h1"], timeout_s=60).record(tmp_path, netns=None, port=PORT):
            pass
        with (tmp_path / COVERAGE).open("a") as torn:
            torn.write('{"at": "of a writer that was killed')

    between = gaps(tmp_path).set_index("what").loc["all rows"]
    assert between["kind"] == "unseen"
    assert between["until"] > between["at"]


@pytest.mark.filterwarnings("ignore:The inplace keyword:DeprecationWarning")  # dask's, since pandas 3.1
def test_a_host_whose_name_is_a_number_keeps_it(tmp_path: Path) -> None:
    for host in ("db1", "007"):
        place = tmp_path / f"host={host}" / "hour=2026-11-21T18"
        place.mkdir(parents=True)
        write(
            DELTAS.frame({"delta_bytes_sent": [1]}),
            datetime(2026, 11, 21, 18, tzinfo=UTC),
            place / "1.parquet",
        )

    assert sorted(dataset(tmp_path)["host"].compute()) == ["007", "db1"]


def test_a_host_that_came_after_the_start_is_told(rig: fleets.Rig, client: Client) -> None:
    with Fleet(client, timeout_s=60).capture(mode="poll", netns=None) as cap:
        pid = rig.worker(SPARE, "h1")
        client.wait_for_workers(len(fleets.HOSTS) + 1, timeout=60)
        gaps_of = [gap for gap in cap.connections().attrs["coverage"] if gap["detail"].startswith(SPARE)]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: len(client.nthreads()) == len(fleets.HOSTS))
    cap.close()

    assert [gap["detail"] for gap in gaps_of] == [f"{SPARE}: it came after the capture began"]


def test_a_capture_that_was_not_started_says_so(client: Client) -> None:
    with pytest.raises(CaptureError, match="has not been started"):
        Fleet(client).capture().connections()
