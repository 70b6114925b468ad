"""A branch of a capture that runs: the rows of a capture of its own, and no program more."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import threading
import time
from collections.abc import Iterator

import pandas as pd
import pytest
from loopback import LINGER_0, Echo, finish
from programs import held_by, wait_until

import netlab
from netlab.tracer.branch import Branched
from netlab.tracer.session import Capture

pytestmark = pytest.mark.privileged
SAME = ["protocol", "local_port", "remote_port", "direction", "bytes_sent", "bytes_received", "error", "seen"]


@pytest.fixture(scope="module")
def everything() -> Iterator[Capture]:
    """Yield a capture of everything on the host."""
    with netlab.capture() as capture:
        yield capture


def branch(everything: Capture, **options: object) -> Branched:
    return Branched(netlab.capture(**options).options, everything.base())


def rows(frame: pd.DataFrame) -> list[list[object]]:
    told = frame[SAME].astype(object).where(frame[SAME].notna(), None)
    found: list[list[object]] = told.sort_values("local_port").to_numpy().tolist()
    return found


def test_it_has_the_rows_of_a_capture_of_its_own_and_no_programs(everything: Capture, echo: Echo) -> None:
    echo.talk(4, 1)  # before both: in neither
    with netlab.capture(port=echo.port) as own:
        programs = held_by(os.getpid())
        with branch(everything, port=echo.port) as part:
            assert held_by(os.getpid()) == programs
            echo.talk(4, 300)
            echo.talk(6, 20)
            with echo.connect(4) as still_open:
                still_open.sendall(bytes(7))
                finish(still_open)
                assert rows(part.connections()) == rows(own.connections())
            assert {row[4] for row in rows(part.connections())} >= {300, 20}
        kept = rows(part.connections())
        echo.talk(4, 9)  # after its end

    assert len(kept) == 6
    assert rows(part.connections()) == kept


def test_what_was_open_before_it_is_told_as_of_the_capture_that_runs(everything: Capture, echo: Echo) -> None:
    with echo.connect(4) as old, branch(everything, port=echo.port, direction="outgoing") as part:
        assert part.connections()["closed_at"].isna().tolist() == [True]
        finish(old)

        assert part.connections()["direction"].tolist() == ["outgoing"]


def test_it_is_told_who_closes_what_the_peer_has_reset(everything: Capture, closed_port: int) -> None:
    def owners() -> list[tuple[int, str]]:
        rows = part.connections().query("direction == 'incoming' and state == 'closed'")
        return list(zip(rows["pid"], rows["pid_source"], strict=True))

    with (
        socket.create_server(("127.0.0.1", closed_port)) as server,
        branch(everything, port=closed_port) as part,
    ):
        with socket.create_connection(server.getsockname()) as client:
            accepted = server.accept()[0]
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
        wait_until(owners)
        accepted.close()

        assert owners() == [(os.getpid(), "close")]
    assert owners() == [(os.getpid(), "close")]


def test_a_pause_of_it_leaves_the_capture_that_runs_alone(everything: Capture, echo: Echo) -> None:
    everything.register("beside")
    with branch(everything, port=echo.port, direction="outgoing") as part:
        part.pause()
        echo.talk(4, 11)
        part.resume()
        echo.talk(4, 22)

        assert part.connections()["bytes_sent"].tolist() == [22]
        gaps = netlab.coverage(part.connections())
        skipped = gaps["detail"] == "attempts began while the capture was paused"
        assert gaps.loc[skipped, "count"].tolist() == [1]
    delta = everything.delta("beside")
    mine = delta[(delta["remote_port"] == echo.port) & (delta["direction"] == "outgoing")]
    assert sorted(mine["delta_bytes_sent"]) == [11, 22]


def test_a_look_at_udp_alone_ends_no_tcp_attempt_of_others(everything: Capture, echo: Echo) -> None:
    with (
        branch(everything, protocol="udp") as flows,
        branch(everything, port=echo.port) as part,
        contextlib.ExitStack() as held,
    ):
        part.register("beside")
        client = held.enter_context(echo.connect(4))
        for _ in range(4):
            flows.connections()
            time.sleep(0.4)  # an attempt whose socket is not listed for a second counts as ended

        assert set(part.connections()["state"]) == {"established"}
        first = part.delta("beside")
        finish(client)
        client.close()
        wait_until(lambda: set(part.connections()["state"]) == {"closed"})
        last = part.delta("beside")

    assert (first["new"].tolist(), last["new"].tolist()) == ([True, True], [False, False])
    assert part.connections()["opened_at"].notna().tolist() == [True, True]


def test_an_ended_flow_of_an_older_socket_has_the_direction_of_its_port() -> None:
    ends = [socket.socket(type=socket.SOCK_DGRAM) for _ in range(2)]
    with contextlib.ExitStack() as held:
        server, client = map(held.enter_context, ends)
        server.bind(("127.0.0.1", 20_000 + os.getpid() % 5_000))  # below those that the kernel chooses
        client.connect(server.getsockname())
        client.send(b"?")
        _, peer = server.recvfrom(10)
        port = server.getsockname()[1]
        with netlab.capture() as older, branch(older, port=port, direction="incoming") as part:
            server.sendto(b"!", peer)  # the first packet that is seen
            client.recv(10)
            client.send(b"?")
            server.recv(10)
            server.close()
            wait_until(lambda: part.connections()["state"].eq("closed").any())
            told = part.connections()

    assert told["local_port"].tolist() == [port]


def test_a_failure_is_told_with_its_errno(everything: Capture) -> None:
    with branch(everything, protocol="tcp") as part, socket.socket() as reserved, socket.socket() as client:
        reserved.bind(("127.0.0.1", 0))
        client.connect_ex(reserved.getsockname())
        failed = part.failures()
        port = reserved.getsockname()[1]

    assert failed.loc[failed["remote_port"] == port, "error"].tolist() == ["ECONNREFUSED"]


def test_one_that_nobody_has_any_more_ends_wherever_garbage_is_collected(everything: Capture) -> None:
    part = branch(everything).start()
    part.itself = part  # type: ignore[attr-defined]  # only the collector finds it
    watch, tcp = part._watch, everything._watch._tcp  # type: ignore[union-attr]
    del part

    def collect() -> None:
        with tcp._lock:  # type: ignore[union-attr]  # in the middle of a reading
            gc.collect()

    collecting = threading.Thread(target=collect, daemon=True)
    collecting.start()
    collecting.join(30)

    assert not collecting.is_alive()
    wait_until(lambda: watch._last is not None)  # type: ignore[union-attr]


def test_it_cannot_be_of_a_capture_that_does_not_run() -> None:
    with pytest.raises(netlab.CaptureError, match="has not been started"):
        netlab.capture().base()


def test_its_repr_counts_what_it_follows(everything: Capture, echo: Echo) -> None:
    with branch(everything, port=echo.port, direction="outgoing") as part, echo.connect(4) as still_open:
        assert repr(part) == "<netlab capture: running, 1 begun and open, 0 ended>"
        finish(still_open)
