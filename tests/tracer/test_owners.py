"""Who had the connection: also when the process has exited since."""

from __future__ import annotations

import array
import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from loopback import LINGER_0, LOOPBACK, Echo, cookie, finish, outgoing
from programs import wait_until

import netlab
from netlab.kernel import processes
from netlab.tracer import system
from netlab.tracer.layout import ATTEMPT, PidSource
from netlab.tracer.owners import Owners, Processes

pytestmark = pytest.mark.privileged
FAMILIES = pytest.mark.parametrize("family", [4, 6])


def only(frame: pd.DataFrame) -> pd.Series:
    assert len(frame) == 1
    return frame.iloc[0]


@pytest.mark.kernels
@FAMILIES
def test_a_process_that_has_exited_is_named_with_its_command_line(echo: Echo, family: int) -> None:
    home = {4: "127.0.0.1", 6: "[::1]"}[family]
    command = ["curl", "-s", "-m", "1", f"http://{home}:{echo.port}/path"]
    with netlab.capture(port=echo.port) as capture:
        subprocess.run(command, check=False, capture_output=True, timeout=10)

    row = only(outgoing(capture.connections()))
    assert (row["process"], row["cmdline"]) == ("curl", " ".join(command))
    assert row["nspid"] == row["pid"]


def test_each_of_many_short_processes_has_its_own_command_line(echo: Echo) -> None:
    client = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])))"
    with netlab.capture(port=echo.port) as capture:
        started = {
            subprocess.Popen([sys.executable, "-c", client, str(echo.port), f"number={number}"])
            for number in range(40)
        }
        for process in started:
            process.wait()

    rows = outgoing(capture.connections()).set_index("pid")
    assert {pid: line.rsplit(" ", 1)[1] for pid, line in rows["cmdline"].items()} == {
        process.pid: process.args[-1] for process in started
    }


def test_a_hostile_command_line_is_escaped_and_bounded(echo: Echo) -> None:
    client = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])))"
    nasty = b"\x1b[31mred\nline \xff" + b"x" * 5000
    with netlab.capture(port=echo.port) as capture:
        subprocess.run([sys.executable, "-c", client, str(echo.port), nasty], check=True, timeout=60)

    line = only(outgoing(capture.connections()))["cmdline"]
    assert line.isprintable()
    assert "\\x1b[31mred\\nline \\xff" in line
    assert len(line) < 600


@pytest.mark.kernels
def test_a_process_in_its_own_pid_namespace_has_both_numbers(echo: Echo) -> None:
    inside = ["unshare", "--pid", "--fork", "--mount-proc", "curl", "-s", "-m", "1"]
    with netlab.capture(port=echo.port) as capture:
        subprocess.run([*inside, f"http://127.0.0.1:{echo.port}/"], check=False, timeout=10)

    row = only(outgoing(capture.connections()))
    assert row["nspid"] == 1
    assert row["pid"] > 1


@pytest.mark.kernels
def test_an_owner_that_only_a_list_told_is_known_when_a_reset_has_ended_the_connection(
    ports: tuple[int, int],
) -> None:
    with (
        socket.create_server(("127.0.0.1", ports[0])) as server,
        netlab.capture(port=ports[0]) as capture,
        socket.create_connection(server.getsockname()) as client,
        server.accept()[0],
    ):
        told = [capture.connections()]
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
        client.close()
        wait_until(lambda: set(capture.connections()["state"]) == {"closed"})
        told.append(capture.connections())

    for frame in told:
        incoming = only(frame[frame["direction"] == "incoming"])
        assert (incoming["pid"], incoming["pid_source"]) == (os.getpid(), "socket")


HOLDS = """
import socket, sys
host, port, family = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with socket.create_server((host, port), family=family) as server:
    print("listening", flush=True)
    accepted = server.accept()[0]
    print("accepted", flush=True)
    sys.stdin.readline()
    accepted.close()
    print("closed", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.kernels
@FAMILIES
def test_who_closes_what_the_peer_has_reset_unread_had_it(ports: tuple[int, int], family: int) -> None:
    home = (LOOPBACK[family], ports[1])
    kind = {4: socket.AF_INET, 6: socket.AF_INET6}[family]
    command = [sys.executable, "-c", HOLDS, home[0], str(home[1]), str(int(kind))]
    with (
        netlab.capture(port=ports[1]) as capture,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server,
    ):
        assert server.stdin
        assert server.stdout

        def accepted() -> pd.Series:
            return only(capture.connections().query("direction == 'incoming'"))

        assert server.stdout.readline() == "listening\n"
        with socket.create_connection(home) as client:
            assert server.stdout.readline() == "accepted\n"
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
        wait_until(lambda: accepted()["state"] == "closed")
        before = accepted()
        print(file=server.stdin, flush=True)
        assert server.stdout.readline() == "closed\n"
        after = accepted()
        print(file=server.stdin, flush=True)

    assert pd.isna(before["pid"])
    for row in (after, accepted()):
        assert (row["pid"], row["pid_source"], row["uid"]) == (server.pid, "close", os.geteuid())
        assert "server.accept" in row["cmdline"]
        assert row["error"] == "ECONNRESET"


def test_a_worker_of_the_kernel_that_closes_what_a_process_has_left_is_not_the_owner(
    ports: tuple[int, int],
) -> None:
    """Sockets that are on their way through each other, with nobody to take them out, a worker collects.

    Before Linux 6.9 it is the process that closes the next socket of this kind, here this one.
    """

    def left(*others: socket.socket) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            socket.send_fds(ours, [b"x"], [*(other.fileno() for other in others), theirs.fileno()])
            socket.send_fds(theirs, [b"x"], [ours.fileno()])

    with (
        socket.create_server(("127.0.0.1", ports[0])) as server,
        netlab.capture(protocol="tcp", port=ports[0]) as capture,
        socket.create_connection(server.getsockname()),
    ):
        accepted = server.accept()[0]
        left(accepted)
        accepted.close()

        def is_collected() -> bool:
            left()
            for end in socket.socketpair():  # whose end begins a collection
                end.close()
            rows = capture.connections().query("direction == 'incoming'")
            return bool(rows["closed_at"].notna().all() or rows["state"].ne("established").all())

        wait_until(is_collected)
        incoming = only(capture.connections().query("direction == 'incoming'"))

    assert not str(incoming["process"]).startswith("kworker")
    if " __unix_gc\n" in Path("/proc/kallsyms").read_text():  # what a worker runs
        assert incoming["pid_source"] != "close"
    else:
        assert incoming["pid"] == os.getpid()


def test_in_a_pid_namespace_of_its_own_no_number_is_taken_for_one_of_the_roots() -> None:
    script = """
import netlab, socket
try:
    netlab.capture(pid=1)
except netlab.CapabilityError as error:
    print("--pid=host" in error.fix)
with socket.create_server(("127.0.0.1", 0)) as server:
    port = server.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port)), server.accept()[0]:
        with netlab.capture(nat=False) as capture:
            frame = capture.connections()
ours = frame[(frame.local_port == port) | (frame.remote_port == port)]
gaps = netlab.coverage(frame)
print(ours.pid_source.tolist(), int(gaps.loc[gaps.what == "pid", "count"].sum()) >= 2)
"""
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", script]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=400)

    assert run.stdout == "True\n['socket', 'socket'] True\n"


@FAMILIES
def test_a_socket_passed_to_another_process_is_one_row_of_the_one_that_connected(
    echo: Echo, family: int
) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    receiver = """
import array, socket, sys
unix = socket.socket(fileno=int(sys.argv[1]))
_, ancillary, *_ = unix.recvmsg(1, socket.CMSG_SPACE(4))
passed = socket.socket(fileno=array.array("i", ancillary[0][2])[0])
passed.setblocking(True)
passed.sendall(b"from the other one")
passed.shutdown(socket.SHUT_WR)
while passed.recv(100): pass
"""
    command = [sys.executable, "-c", receiver, str(theirs.fileno())]
    with (
        netlab.capture(port=echo.port) as capture,
        contextlib.closing(ours),
        contextlib.closing(theirs),
        subprocess.Popen(command, pass_fds=[theirs.fileno()]) as other,
    ):
        with echo.connect(family) as client:
            number = cookie(client)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [client.fileno()]))]
            ours.sendmsg([b"x"], rights)
        assert other.wait(timeout=60) == 0

    row = only(outgoing(capture.connections()))
    assert (row["cookie"], row["pid"], row["pid_source"]) == (number, os.getpid(), "connect")
    assert row["bytes_sent"] == len("from the other one")


def test_the_owner_of_an_accepted_connection_is_described_too(closed_port: int) -> None:
    nc = shutil.which(sys.executable)
    server = (
        "import socket, sys; s = socket.create_server(('127.0.0.1', int(sys.argv[1])));"
        " print('ready', flush=True); c = s.accept()[0]; c.recv(10); c.close()"
    )
    with (
        netlab.capture(port=closed_port) as capture,
        subprocess.Popen(
            [str(nc), "-c", server, str(closed_port), "a-server"], stdout=subprocess.PIPE
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        with socket.create_connection(("127.0.0.1", closed_port)) as client:
            client.sendall(b"hello")
            client.recv(1)

    frame = capture.connections()
    row = only(frame[frame["direction"] == "incoming"])
    assert (row["pid"], row["pid_source"]) == (process.pid, "receive")
    assert re.search(r"a-server$", row["cmdline"])


FORKS = """
import os, socket, sys
for number in range(200):
    child = os.fork()
    if not child:
        open("/proc/self/comm", "w").write(f"child {number}")
        socket.create_connection(("127.0.0.1", int(sys.argv[1]))).close()
        os._exit(0)
    os.waitpid(child, 0)
"""


def forgotten(frame: pd.DataFrame) -> list[int]:
    gaps = netlab.coverage(frame)
    return gaps[gaps["detail"].str.contains("max_processes")]["count"].tolist()


def undescribed(frame: pd.DataFrame) -> list[int]:
    return [int((frame["pid"].notna() & frame["cmdline"].isna()).sum())]


@pytest.mark.kernels
def test_a_process_that_becomes_another_program_has_each_program_s_command_line(echo: Echo) -> None:
    connect = f"exec 3<>/dev/tcp/127.0.0.1/{echo.port}"
    with netlab.capture(port=echo.port) as capture:
        process = subprocess.Popen(["bash", "-c", f"{connect}; exec -a renamed bash -c '{connect}' second"])
        process.wait(10)

    rows = outgoing(capture.connections())
    assert set(rows["pid"]) == {process.pid}
    first, second = rows["cmdline"]
    assert first.startswith(f"bash -c {connect}; exec")
    assert second == f"renamed -c {connect} second"


@pytest.mark.kernels
def test_a_connection_of_a_thread_whose_main_thread_has_ended_has_its_command_line(echo: Echo) -> None:
    client = f"""
import ctypes, os, socket, threading
def connect():
    while open("/proc/self/stat").read().rpartition(")")[2].split()[0] != "Z": pass
    socket.create_connection(("127.0.0.1", {echo.port})).close()
    os._exit(0)
threading.Thread(target=connect).start()
ctypes.CDLL(None).pthread_exit(None)
"""
    with netlab.capture(port=echo.port) as capture:
        process = subprocess.Popen([sys.executable, "-c", client, "an argument"])
        process.wait(10)

    row = only(outgoing(capture.connections()))
    assert (row["pid"], row["nspid"]) == (process.pid, process.pid)
    assert row["cmdline"].startswith(f"{sys.executable} -c ")


@pytest.mark.kernels
def test_the_user_is_the_effective_one_which_the_socket_belongs_to(echo: Echo) -> None:
    client = f"exec 3<>/dev/tcp/127.0.0.1/{echo.port}"
    with netlab.capture(port=echo.port) as capture:
        subprocess.run(["setpriv", "--euid", "65534", "--keep-groups", "bash", "-pc", client], check=True)

    assert only(outgoing(capture.connections()))["uid"] == 65534


@FAMILIES
def test_an_inherited_socket_that_both_processes_use_is_one_row_with_all_bytes(
    echo: Echo, family: int
) -> None:
    with netlab.capture(port=echo.port) as capture, echo.connect(family) as client:
        number = cookie(client)
        client.sendall(b"before")
        code = "import socket, sys; socket.socket(fileno=int(sys.argv[1])).sendall(b'of the child')"
        inherited = client.fileno()
        subprocess.run([sys.executable, "-c", code, str(inherited)], pass_fds=[inherited], check=True)
        client.sendall(b"after")
        answered = finish(client)
        information = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 240)
        sent = int.from_bytes(information[200:208], "little")  # tcpi_bytes_sent

    row = only(outgoing(capture.connections()))
    assert (row["cookie"], row["pid"], row["pid_source"]) == (number, os.getpid(), "connect")
    assert row["bytes_sent"] == row["bytes_received"] == answered == sent
    assert sent == len("before") + len("of the child") + len("after")


@FAMILIES
def test_an_open_socket_that_several_processes_hold_is_one_row_of_the_oldest_that_ss_names(
    echo: Echo, family: int
) -> None:
    with (
        echo.connect(family) as client,
        subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[client.fileno()]) as one,
        subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[client.fileno()]) as two,
    ):
        holders = {os.getpid(), one.pid, two.pid}
        listed = subprocess.check_output(["ss", "-Htnp", "dport", f"= :{echo.port}"], text=True)
        assert {int(pid) for pid in re.findall(r"pid=(\d+)", listed)} == holders
        with netlab.capture(port=echo.port) as capture:
            row = only(outgoing(capture.connections()))

    assert (row["cookie"], row["pid"], row["pid_source"]) == (row["cookie"], os.getpid(), "socket")


def test_owners_that_made_room_for_others_are_counted(echo: Echo) -> None:
    with netlab.capture(port=echo.port, max_processes=64) as capture:
        subprocess.run([sys.executable, "-c", FORKS, str(echo.port)], check=True, timeout=400)

    rows = outgoing(capture.connections())
    assert len(rows) == 200
    assert rows["process"].tolist() == [f"child {number}" for number in range(200)]
    lost = int(rows["cmdline"].isna().sum())
    assert 200 - 64 <= lost < 200
    assert rows["cgroup"].isna().sum() == lost
    assert forgotten(capture.connections()) == undescribed(capture.connections())


def test_an_owner_that_made_room_for_others_and_still_runs_is_looked_up(echo: Echo) -> None:
    once = f"exec 3<>/dev/tcp/127.0.0.1/{echo.port}; exec 3<&-; echo; read line"
    with (
        netlab.capture(port=echo.port, max_processes=64) as capture,
        subprocess.Popen(["bash", "-c", once], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process,
    ):
        assert process.stdout is not None
        process.stdout.readline()
        for _ in range(3):  # which owners make room is the kernel's choice, and the oldest only as a rule
            subprocess.run([sys.executable, "-c", FORKS, str(echo.port)], check=True, timeout=400)
        while_it_runs = capture.connections()
    afterwards = capture.connections()

    described, unknown = (frame[frame["pid"] == process.pid] for frame in (while_it_runs, afterwards))
    assert only(described)["cmdline"] == f"bash -c {once}"
    assert pd.isna(only(unknown)["cmdline"])
    assert forgotten(while_it_runs) == undescribed(while_it_runs)
    assert forgotten(afterwards) == undescribed(afterwards)


def test_a_pid_that_is_used_again_is_another_owner() -> None:
    ours = processes.describe([os.getpid()])[os.getpid()]
    earlier = replace(ours, cmdline="its predecessor", started_ns=ours.started_ns - 10**9)
    attempts = np.zeros(3, ATTEMPT)
    attempts["pid"], attempts["pid_source"] = ours.pid, PidSource.SOCKET
    attempts["process_started_ns"] = [earlier.started_ns, ours.started_ns, 1]

    found = ({earlier.pid: earlier}, {ours.pid: ours})
    known = Owners.of(Processes.none(), *found, running=system.here().running).identify(attempts)

    assert known.columns()["cmdline"].tolist() == ["its predecessor", ours.cmdline, pd.NA]
    assert [gap.count for gap in known.missing()] == [1]
