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
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from loopback import Echo, cookie

import netlab
from netlab.kernel import capabilities

pytestmark = pytest.mark.privileged
CONTAINER = "0123456789abcdef" * 4


def outgoing(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["direction"] == "outgoing"]


def only(frame: pd.DataFrame) -> pd.Series:
    assert len(frame) == 1
    return frame.iloc[0]


@pytest.mark.kernels
def test_a_process_that_has_exited_is_named_with_its_command_line(echo: Echo) -> None:
    command = ["curl", "-s", "-m", "1", f"http://127.0.0.1:{echo.port}/path"]
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
        subprocess.run([sys.executable, "-c", client, str(echo.port), nasty], check=True, timeout=10)

    line = only(outgoing(capture.connections()))["cmdline"]
    assert line.isprintable()
    assert "\\x1b[31mred\\nline \\xff" in line
    assert len(line) < 600


def test_a_process_in_its_own_pid_namespace_has_both_numbers(echo: Echo) -> None:
    inside = ["unshare", "--pid", "--fork", "--mount-proc", "curl", "-s", "-m", "1"]
    with netlab.capture(port=echo.port) as capture:
        subprocess.run([*inside, f"http://127.0.0.1:{echo.port}/"], check=False, timeout=10)

    row = only(outgoing(capture.connections()))
    assert row["nspid"] == 1
    assert row["pid"] > 1


@pytest.fixture(params=["v2", "v1"])
def cgroup(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A control group named as Docker names those of its containers."""
    roots = {"v2": capabilities.cgroup2_mount(), "v1": Path("/sys/fs/cgroup/memory")}
    root = roots[request.param]
    if root is None or not (root / "cgroup.procs").exists():
        root = capabilities.cgroup2_mount()
    assert root is not None
    group = root / f"docker-{CONTAINER}.scope"
    group.mkdir()
    yield group
    group.rmdir()


def test_a_container_is_known_after_its_process_and_its_cgroup_are_gone(echo: Echo, cgroup: Path) -> None:
    client = f"echo $$ > {cgroup}/cgroup.procs && exec curl -s -m 1 http://127.0.0.1:{echo.port}/"
    with netlab.capture(port=echo.port) as capture:
        subprocess.run(["sh", "-c", client], check=False, capture_output=True, timeout=10)

    assert only(outgoing(capture.connections()))["container"] == CONTAINER


def test_a_socket_passed_to_another_process_is_one_row_of_the_one_that_connected(echo: Echo) -> None:
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
        with echo.connect(4) as client:
            number = cookie(client)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [client.fileno()]))]
            ours.sendmsg([b"x"], rights)
        assert other.wait(timeout=10) == 0

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
