"""netlab.capture() against what real clients and servers counted themselves."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
from loopback import AF, LINGER_0, LOOPBACK, Echo, cookie, disconnect, finish
from programs import alive, held_by, wait_until

import netlab
from netlab.tracer import snapshot

pytestmark = pytest.mark.privileged
TCP_SYNCNT = 7  # include/uapi/linux/tcp.h
FAMILIES = pytest.mark.parametrize("family", [4, 6])


def ends(frame: pd.DataFrame, port: int, direction: str) -> pd.DataFrame:
    side = "remote_port" if direction == "outgoing" else "local_port"
    return frame[(frame[side] == port) & (frame["direction"] == direction)]


def only(frame: pd.DataFrame) -> pd.Series:
    assert len(frame) == 1
    return frame.iloc[0]


@FAMILIES
def test_a_connection_is_one_row_at_each_end_with_the_bytes_both_counted(echo: Echo, family: int) -> None:
    with netlab.capture(port=echo.port) as capture:
        answered, number = echo.talk(family, 123_456)

    frame = capture.connections()
    client, server = only(ends(frame, echo.port, "outgoing")), only(ends(frame, echo.port, "incoming"))
    assert (client["bytes_sent"], client["bytes_received"]) == (123_456, answered)
    assert (server["bytes_received"], server["bytes_sent"]) == (echo.received[0], 123_456)
    assert client["cookie"] == number
    assert client["remote_address"] == LOOPBACK[family]
    assert client["seen"] == "live"
    assert client["state"] == "closed"


@FAMILIES
def test_a_connection_names_the_process_that_made_it(echo: Echo, family: int) -> None:
    with netlab.capture(port=echo.port) as capture:
        echo.talk(family, 1)

    client = only(ends(capture.connections(), echo.port, "outgoing"))
    assert client["pid"] == os.getpid()
    assert client["pid_source"] == "connect"
    assert client["uid"] == os.getuid()


@FAMILIES
def test_a_refused_attempt_is_a_row_with_its_errno(closed_port: int, family: int) -> None:
    with netlab.capture(port=closed_port) as capture, pytest.raises(ConnectionRefusedError):
        socket.create_connection((LOOPBACK[family], closed_port))

    failure = only(capture.failures())
    assert failure["error"] == "ECONNREFUSED"
    assert "refused" in failure["reason"]
    assert pd.isna(failure["rtt_ms"])
    assert pd.isna(failure["connect_ms"])


def test_an_attempt_given_up_by_its_own_process_is_cancelled() -> None:
    with netlab.lab.practice() as net, netlab.capture(port=net.ports.drops) as capture:
        with net.client.entered():
            client = socket.socket()
        client.setsockopt(socket.IPPROTO_TCP, TCP_SYNCNT, 6)  # it does not time out before it is given up
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            client.connect((net.web.address4, net.ports.drops))
        connecting = only(ends(capture.connections(), net.ports.drops, "outgoing"))
        client.close()

    failure = only(capture.failures())
    assert connecting["state"] == "syn-sent"
    assert connecting["local_port"] > 0
    assert failure["error"] == "ECANCELED"


def test_who_gave_up_is_told_from_who_did_not_answer() -> None:
    with netlab.lab.practice() as net, netlab.capture(port=net.ports.drops) as capture:
        with net.client.entered():
            client = socket.socket()
        client.settimeout(1.5)  # a SYN, and one more a second later
        with pytest.raises(TimeoutError):
            client.connect((net.web.address4, net.ports.drops))
        client.close()

    failure = only(capture.failures())
    syns = f"{failure['syn_retransmits'] + 1} SYNs"
    assert failure["reason"] == f"its own process gave up: no answer to {syns}"


def test_a_reset_by_the_peer_is_a_failure_of_an_established_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with netlab.capture(port=port) as capture:
            client = socket.create_connection(("127.0.0.1", port))
            server, _ = listener.accept()
            server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
            server.close()
            with pytest.raises(ConnectionResetError):
                client.recv(1)
            client.close()

    failure = only(ends(capture.failures(), port, "outgoing"))
    assert failure["error"] == "ECONNRESET"
    assert failure["connect_ms"] >= 0


def test_connections_open_before_the_capture_are_in_it_once(echo: Echo) -> None:
    with echo.connect(4) as old, echo.connect(6) as older:
        old.sendall(b"before")
        with netlab.capture(port=echo.port) as capture:
            finish(old)
            frame = capture.connections()

        closed = frame[frame["cookie"] == cookie(old)]
        still_open = frame[frame["cookie"] == cookie(older)]
        assert only(closed)["seen"] == "backfill"
        assert only(closed)["bytes_sent"] == 6
        assert only(closed)["pid"] == os.getpid()
        assert pd.isna(only(closed)["opened_at"])
        assert only(still_open)["state"] == "established"


def test_a_connection_from_before_whose_end_is_not_kept_any_more_is_not_open_again(echo: Echo) -> None:
    with echo.connect(4) as old, netlab.capture(port=echo.port, max_closed=5) as capture:
        number = cookie(old)
        finish(old)
        old.close()
        for _ in range(10):
            echo.talk(4, 1)

    frame = capture.connections()
    assert number not in frame["cookie"].tolist()
    assert len(frame) == 5


def test_an_open_connection_shows_its_counters_as_they_are_now(echo: Echo) -> None:
    with netlab.capture(port=echo.port) as capture, echo.connect(4) as client:
        client.sendall(bytes(1000))
        client.recv(1000, socket.MSG_WAITALL)

        row = only(ends(capture.connections(), echo.port, "outgoing"))

    assert row["state"] == "established"
    assert (row["bytes_sent"], row["bytes_received"]) == (1000, 1000)
    assert pd.isna(row["closed_at"])


def test_a_port_filter_leaves_other_connections_out(echo: Echo, closed_port: int) -> None:
    with netlab.capture(port=closed_port) as capture:
        echo.talk(4, 1)

    assert len(capture.connections()) == 0


@pytest.mark.parametrize("option", [{"pid": os.getpid()}, {"process": "curl"}])
def test_an_owner_filter_keeps_the_connections_of_that_owner(echo: Echo, option: dict[str, object]) -> None:
    with netlab.capture(port=echo.port, **option) as capture:  # type: ignore[arg-type]
        echo.talk(4, 1)
        command = ["curl", "-s", "-m", "1", f"http://127.0.0.1:{echo.port}/"]
        subprocess.run(command, check=False, capture_output=True, timeout=10)

    outgoing = ends(capture.connections(), echo.port, "outgoing")
    assert only(outgoing)["process"] == ("curl" if "process" in option else only(outgoing)["process"])
    assert (only(outgoing)["pid"] == os.getpid()) == ("pid" in option)


def test_attempts_while_paused_are_left_out_and_counted(echo: Echo) -> None:
    with netlab.capture(port=echo.port) as capture:
        capture.pause()
        echo.talk(4, 1)
        capture.resume()
        echo.talk(4, 2)

    frame = capture.connections()
    gaps = netlab.coverage(frame)
    assert ends(frame, echo.port, "outgoing")["bytes_sent"].tolist() == [2]
    assert gaps[gaps["kind"] == "unseen"]["count"].sum() == 2  # both ends of the first


def test_an_attempt_begun_while_paused_is_no_row_when_it_ends_later(echo: Echo) -> None:
    with netlab.capture(port=echo.port) as capture:
        capture.pause()
        client = echo.connect(4)
        capture.resume()
        finish(client)
        client.close()

    frame = capture.connections()
    gaps = netlab.coverage(frame)
    assert len(frame) == 0
    assert gaps[gaps["kind"] == "unseen"]["count"].sum() == 2


def test_a_full_map_is_counted_and_the_attempts_are_rows_from_their_start(echo: Echo) -> None:
    with netlab.capture(port=echo.port, max_open=4) as capture:
        clients = [echo.connect(4) for _ in range(50)]
        while_open = capture.connections()
        for client in clients:
            finish(client)
            client.close()

    frame = capture.connections()
    assert len(while_open) == len(frame) == 100
    assert set(while_open["state"]) == {"established"}
    assert set(frame["state"]) == {"closed"}
    assert frame["opened_at"].notna().all()
    assert frame["local_port"].notna().all()
    assert set(frame["local_address"]) == {LOOPBACK[4]}
    assert frame["pid"].eq(os.getpid()).all()
    gaps = netlab.coverage(frame)
    lost = gaps[gaps["kind"] == "lost"]
    assert (lost["what"].tolist(), lost["count"].tolist()) == (["connect_ms, syn_retransmits"], [96])


def test_an_attempt_that_did_not_fit_into_the_map_is_open_as_long_as_its_socket(echo: Echo) -> None:
    with netlab.capture(port=echo.port, max_open=1) as capture:
        clients = [echo.connect(4) for _ in range(3)]
        time.sleep(1.2)  # longer than a connect() without a SYN counts as asking
        frame = capture.connections()
        for client in clients:
            client.close()

    assert frame["state"].tolist() == ["established"] * 6
    assert frame["reason"].isna().all()


def test_a_full_map_keeps_no_account_of_connections_that_nobody_asked_for(
    echo: Echo, closed_port: int
) -> None:
    with netlab.capture(port=echo.port, max_open=2) as capture, echo.connect(4), echo.connect(4):
        for _ in range(300):
            with socket.socket() as other:
                assert other.connect_ex(("127.0.0.1", closed_port)) == errno.ECONNREFUSED
        frame = capture.connections()

        gaps = netlab.coverage(frame)
        assert gaps.loc[gaps["kind"] == "lost", "count"].tolist() == [2]
        assert len(frame) == 4
        assert len(capture._watch._tcp._unfollowed) < 100  # one for each place in memory that a socket had


def test_a_full_map_brings_no_row_of_a_local_end_that_nobody_asked_for(echo: Echo) -> None:
    wanted, server = ("127.0.0.2", 0), ("127.0.0.1", echo.port)
    options = {"local": wanted[0], "port": echo.port, "max_open": 2}
    with netlab.capture(**options) as capture, contextlib.ExitStack() as held:

        def unjudged() -> list[int]:
            gaps = netlab.coverage(capture.connections())
            return gaps.loc[gaps["detail"].str.contains("local="), "count"].tolist()

        for _ in range(2):
            held.enter_context(socket.create_connection(server, source_address=wanted))
        for _ in range(20):
            socket.create_connection(server).close()
        wait_until(lambda: unjudged() == [20])

    assert capture.connections()["local_address"].tolist() == [wanted[0]] * 2


def test_ten_thousand_connections_are_as_many_rows_or_counted(echo: Echo) -> None:
    with netlab.capture(port=echo.port) as capture:
        for _ in range(10_000):
            echo.talk(4, 10)

    frame = capture.connections()
    gaps = netlab.coverage(frame)
    lost = gaps[(gaps["kind"] == "lost") & (gaps["what"] == "connections")]["count"].sum()
    closed = ends(frame, echo.port, "outgoing")["closed_at"].notna().sum()
    assert closed + lost >= 10_000
    assert closed <= 10_000
    assert len(frame) + lost == 20_000


def reset_by_client(port: int, family: int) -> None:
    """Connect to a server that reads from the connection and holds it, and end it by a reset."""
    with (
        socket.create_server((LOOPBACK[family], port), family=AF[family]) as listener,
        socket.create_connection((LOOPBACK[family], port)) as client,
    ):
        server, _ = listener.accept()
        with server:
            client.sendall(b"x")
            server.recv(1)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
            client.close()


@FAMILIES
def test_an_accepted_connection_belongs_to_the_process_that_reads_from_it(
    closed_port: int, family: int
) -> None:
    with netlab.capture(port=closed_port, pid=os.getpid()) as capture:
        reset_by_client(closed_port, family)

    server = only(ends(capture.connections(), closed_port, "incoming"))
    assert (server["pid"], server["pid_source"]) == (os.getpid(), "receive")
    assert server["error"] == "ECONNRESET"


def test_an_owner_filter_says_how_many_connections_of_nobody_known_may_belong(closed_port: int) -> None:
    with (
        netlab.capture(port=closed_port, pid=os.getpid()) as capture,
        socket.create_server(("127.0.0.1", closed_port)) as listener,  # which nobody accepts from
        socket.create_connection(listener.getsockname()) as client,
    ):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)

    frame = capture.connections()
    gaps = netlab.coverage(frame)
    may_belong = gaps[gaps["detail"].str.contains("may belong")]
    assert len(frame) == 1
    assert (may_belong["kind"].tolist(), may_belong["count"].tolist()) == (["unseen"], [1])


def test_a_connection_its_process_closes_by_reset_belongs_to_that_process(closed_port: int) -> None:
    with (
        netlab.capture(port=closed_port) as capture,
        socket.create_server(("", closed_port)) as listener,
        socket.create_connection(("127.0.0.1", closed_port)),
    ):
        server, _ = listener.accept()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
        server.close()

    row = only(ends(capture.connections(), closed_port, "incoming"))
    assert (row["pid"], row["pid_source"]) == (os.getpid(), "close")


def test_connections_of_other_processes_take_no_room_from_those_asked_for(echo: Echo) -> None:
    others = (
        f"import socket\nfor _ in range(300): socket.create_connection(('127.0.0.1', {echo.port})).close()"
    )
    with netlab.capture(process="curl", port=echo.port, max_closed=5) as capture:
        command = ["curl", "-s", "-m", "1", f"http://127.0.0.1:{echo.port}/"]
        subprocess.run(command, check=False, capture_output=True, timeout=10)
        subprocess.run([sys.executable, "-c", others], check=True, timeout=30)
        time.sleep(0.2)  # several drains

    frame = capture.connections()
    assert only(frame)["process"] == "curl"
    assert "lost" not in set(netlab.coverage(frame)["kind"])


def test_a_port_filter_finds_the_local_port_that_connect_chooses() -> None:
    chosen = 40_000 + 2 * (os.getpid() % 5_000)  # another process's test would be seen, too
    with netlab.lab.practice() as net:
        with net.client.entered():
            Path("/proc/sys/net/ipv4/ip_local_port_range").write_text(f"{chosen} {chosen}")
            client, other = socket.socket(), socket.socket()
        with netlab.capture(port=chosen) as capture, client, other:
            other.bind(("", chosen + 1))
            for attempt in (client, other):
                attempt.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    attempt.connect((net.web.address4, net.ports.drops))
            pending = only(capture.connections())

        assert (pending["local_port"], pending["state"]) == (chosen, "syn-sent")
        assert only(capture.failures())["local_port"] == chosen


def test_a_socket_used_again_shows_the_port_of_each_of_its_attempts() -> None:
    with netlab.lab.practice() as net:
        with net.client.entered():
            again = socket.socket()
        with netlab.capture(process=Path("/proc/self/comm").read_text().strip()) as capture, again:
            again.connect((net.web.address4, net.ports.http))
            first = again.getsockname()[1]
            disconnect(again)
            again.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                again.connect((net.web.address4, net.ports.drops))
            frame = capture.connections()

            outgoing = frame[frame["cookie"] == cookie(again)]
            assert outgoing["local_port"].tolist() == [first, again.getsockname()[1]]
            assert outgoing["state"].tolist() == ["closed", "syn-sent"]


@FAMILIES
def test_an_older_connection_is_a_row_beside_the_next_one_of_its_socket(family: int) -> None:
    with (
        socket.create_server((LOOPBACK[family], 0), family=AF[family]) as listener,
        socket.create_connection(listener.getsockname()[:2]) as client,
    ):
        port, first = listener.getsockname()[1], client.getsockname()[1]
        with netlab.capture(port=port) as capture:
            disconnect(client)
            client.connect((LOOPBACK[family], port))
            second = client.getsockname()[1]
            client.close()

    frame = ends(capture.connections(), port, "outgoing")
    assert frame["local_port"].tolist() == [first, second]
    assert frame["opened_at"].isna().tolist() == [True, False]
    assert set(frame["state"]) == {"closed"}


def test_an_older_connection_is_one_row_when_its_socket_has_another_in_a_pause() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
    ):
        port, first = listener.getsockname()[1], client.getsockname()[1]
        with netlab.capture(port=port, pid=os.getpid()) as capture:
            disconnect(client)
            wait_until(lambda: len(ends(capture.connections(), port, "outgoing").dropna(subset="closed_at")))
            socket.create_connection(listener.getsockname()).close()  # a block of its own
            capture.pause()
            client.connect(listener.getsockname())
            client.close()

    frame = ends(capture.connections(), port, "outgoing")
    assert frame["local_port"].tolist()[0] == first
    assert frame["opened_at"].isna().tolist() == [True, False]


def test_a_forked_child_takes_nothing_from_the_capture_of_its_parent(echo: Echo) -> None:
    with netlab.capture(port=echo.port) as capture:
        for _ in range(20):
            echo.talk(4, 1)
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                try:
                    capture.connections()
                except netlab.CaptureError:
                    capture.stop()
                    os._exit(0)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    assert len(capture.connections()) == 40


def test_attempts_around_the_start_and_the_stop_are_what_they_were(closed_port: int) -> None:
    refused = f"while True:\n  with socket.socket() as s: s.connect_ex(('127.0.0.1', {closed_port}))"
    with subprocess.Popen([sys.executable, "-c", f"import socket\n{refused}"]) as busy:
        try:
            frames = []
            for _ in range(2):
                with netlab.capture(port=closed_port) as capture:
                    while not len(capture.failures()):
                        time.sleep(0.01)
                frames.append(capture.failures())
        finally:
            busy.kill()

    assert {error for frame in frames for error in frame["error"]} == {"ECONNREFUSED"}


def test_captures_start_in_several_threads_at_once(echo: Echo) -> None:
    with ThreadPoolExecutor(3) as threads:
        captures = list(threads.map(lambda _: netlab.capture(port=echo.port).start(), range(3)))
    echo.talk(4, 1)
    for capture in captures:
        capture.stop()

    assert [len(capture.connections()) for capture in captures] == [2, 2, 2]


def test_what_ends_while_the_sockets_are_listed_is_one_row_that_has_ended(
    echo: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = snapshot.take

    def list_and_close(*arguments: object, **options: object) -> snapshot.Snapshot:
        try:
            return listed(*arguments, **options)
        finally:
            finish(older)
            finish(running)
            echo.talk(4, 7)

    with contextlib.ExitStack() as stack:
        older = stack.enter_context(socket.create_connection(("127.0.0.1", echo.port)))
        capture = stack.enter_context(netlab.capture(port=echo.port))
        running = stack.enter_context(socket.create_connection(("127.0.0.1", echo.port)))
        numbers = [cookie(older), cookie(running)]
        monkeypatch.setattr(snapshot, "take", list_and_close)
        clients = ends(capture.connections(), echo.port, "outgoing").set_index("cookie")
        monkeypatch.undo()

    assert len(clients) == 3
    assert clients.index.is_unique
    assert clients["state"].eq("closed").all()
    assert clients["bytes_sent"].drop(numbers).tolist() == [7]


def test_an_interrupt_in_the_last_look_still_detaches(echo: Echo, monkeypatch: pytest.MonkeyPatch) -> None:
    capture = netlab.capture(port=echo.port).start()

    def interrupted(_only: object, **_: object) -> None:
        raise KeyboardInterrupt

    echo.talk(4, 1)
    with monkeypatch.context() as patch:
        patch.setattr("netlab.tracer.snapshot.take", interrupted)
        with echo.connect(4), pytest.raises(KeyboardInterrupt):
            capture.stop()

    assert capture.state == "stopped"
    assert capture.wait(timeout_s=1)
    assert len(capture.connections()) == 4


def test_a_start_that_was_interrupted_is_none_and_can_be_made_again(
    echo: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    capture = netlab.capture(port=echo.port)
    with monkeypatch.context() as patch:
        patch.setattr("netlab.tracer.snapshot.take", interrupted)
        with pytest.raises(KeyboardInterrupt):
            capture.start()

    with pytest.raises(netlab.CaptureError, match="not been started"):
        capture.connections()
    with capture:
        echo.talk(4, 1)
    assert len(capture.connections()) == 2


def test_a_capture_that_two_threads_start_is_started_once(echo: Echo) -> None:
    capture = netlab.capture(port=echo.port)
    with ThreadPoolExecutor(2) as threads:
        failures = [one.exception() for one in [threads.submit(capture.start) for _ in range(2)]]
    capture.stop()

    assert [type(failure) for failure in failures if failure] == [netlab.CaptureError]


def test_a_pause_at_the_very_end_comes_before_or_after_it(echo: Echo) -> None:
    with netlab.capture(port=echo.port, duration_s=0.3) as capture:
        while True:
            try:
                capture.pause()
                capture.resume()
            except netlab.NetlabError as error:
                refused = error
                break

    assert isinstance(refused, netlab.CaptureError)
    assert capture.state == "stopped"


def test_a_capture_with_a_duration_ends_by_itself(echo: Echo) -> None:
    with netlab.capture(port=echo.port, duration_s=0.5) as capture:
        echo.talk(4, 1)

    assert capture.state == "stopped"
    assert len(capture.connections()) == 2


def test_stop_can_be_called_again_and_what_was_seen_stays(echo: Echo) -> None:
    capture = netlab.capture(port=echo.port).start()
    echo.talk(4, 1)
    capture.stop()
    capture.stop()

    assert len(capture.connections()) == 2
    with pytest.raises(netlab.CaptureError, match="stopped"):
        capture.start()


def test_a_capture_leaves_no_descriptor_and_no_thread_behind(echo: Echo) -> None:
    def held() -> set[str]:
        links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        return {str(link.readlink()) for link in links if link.is_symlink() and "bpf" in str(link.readlink())}

    before = held()
    with netlab.capture(port=echo.port):
        assert held() - before

    assert held() == before


def test_a_capture_that_is_forgotten_ends() -> None:
    def running() -> set[str]:
        return {thread.name for thread in threading.enumerate() if thread.name.startswith("netlab-")}

    netlab.capture().start()

    gc.collect()
    deadline = time.monotonic() + 30
    while running() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert running() == set()


@pytest.mark.parametrize("options", ["", 'protocols="http", clear_text=True'], ids=["plain", "uprobes"])
def test_sigkill_in_mid_capture_leaves_no_program_attached(options: str) -> None:
    script = textwrap.dedent(f"""
        import netlab, time
        running = netlab.capture({options}).start()
        print("ready", flush=True)
        time.sleep(60)
    """)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        held = held_by(process.pid)
        assert len(alive(held)) == len(held) > 5
        process.send_signal(signal.SIGKILL)

    wait_until(lambda: not alive(held))  # the kernel frees programs after a grace period


def test_ten_captures_at_once_and_one_killed_leave_nine_whole(echo: Echo) -> None:
    script = textwrap.dedent(f"""
        import netlab, sys
        with netlab.capture(port={echo.port}) as capture:
            print("ready", flush=True)
            sys.stdin.readline()
        print(len(capture.connections()), flush=True)
    """)
    command = [sys.executable, "-c", script]
    with contextlib.ExitStack() as running:
        others = [
            running.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            for _ in range(9)
        ]
        with netlab.capture(port=echo.port) as capture:
            assert all(other.stdout and other.stdout.readline() == "ready\n" for other in others)
            held = set().union(*(held_by(other.pid) for other in others), held_by(os.getpid()))
            echo.talk(4, 1)
            others[0].kill()
            others[0].wait()
            echo.talk(6, 1)
            rows = [other.communicate("\n")[0] for other in others[1:]]

    assert rows == ["4\n"] * 8
    assert len(capture.connections()) == 4
    assert held
    wait_until(lambda: not alive(held))
