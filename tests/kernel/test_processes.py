from __future__ import annotations

import contextlib
import ctypes
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from netlab.kernel import processes

BECOME_NOBODY = "import os; os.setgroups([]); os.setresgid(*[65534] * 3); os.setresuid(*[65534] * 3)\n"

LIBC = ctypes.CDLL(None, use_errno=True)
IO_URING_SETUP, IO_URING_REGISTER, REGISTER_FILES = 425, 427, 2  # include/uapi/linux/io_uring.h
PARAMS_BYTES = 120


def inode(sock: socket.socket) -> int:
    return os.fstat(sock.fileno()).st_ino


@contextlib.contextmanager
def io_uring() -> Iterator[int]:
    """Make a ring and return its descriptor."""
    ring = LIBC.syscall(IO_URING_SETUP, 1, ctypes.create_string_buffer(PARAMS_BYTES))
    assert ring >= 0, os.strerror(ctypes.get_errno())
    try:
        yield ring
    finally:
        os.close(ring)


def test_the_owner_of_a_socket_is_the_process_that_holds_it() -> None:
    with socket.socket() as sock, socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as other:
        owners = processes.owners()
        found = owners.of(np.array([inode(sock), inode(other)]))

    assert found.tolist() == [os.getpid()] * 2


def test_a_socket_that_nobody_holds_has_no_owner() -> None:
    with socket.socket() as sock:
        closed = inode(sock)
    with socket.socket() as held:
        owners = processes.owners()

        assert owners.of(np.array([closed, 0, inode(held)])).tolist() == [None, None, os.getpid()]


def test_no_socket_has_an_owner_when_none_was_found() -> None:
    nobody = processes.Owners(np.zeros(0, np.int64), np.zeros(0, np.int64), unreadable=0)

    assert nobody.of(np.array([1, 2])).tolist() == [None, None]


@pytest.mark.privileged
def test_a_socket_that_only_an_io_uring_of_the_process_has_is_its_own() -> None:
    """What servers do that accept into registered files: no descriptor leads to the socket."""
    with io_uring() as ring, socket.socket() as sock:
        only_there = inode(sock)
        files = ctypes.c_int(sock.fileno())
        assert LIBC.syscall(IO_URING_REGISTER, ring, REGISTER_FILES, ctypes.byref(files), 1) == 0
        sock.close()
        with socket.socket() as beside:
            found = processes.owners().of(np.array([only_there, inode(beside)]))

    assert found.tolist() == [os.getpid()] * 2


def test_a_shared_socket_belongs_to_the_process_that_has_run_longest() -> None:
    with (
        socket.socket() as sock,
        subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[sock.fileno()]),
    ):
        found = processes.owners().of(np.array([inode(sock)]))

        assert found.tolist() == [os.getpid()]


def test_a_shared_socket_is_not_its_heirs_when_pids_have_begun_again() -> None:
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-m", "tests.support.heirs"],
        check=True,
        capture_output=True,
        text=True,
    )

    assert done.stdout.split() == ["1000", "500"], done.stderr


def test_the_owners_are_those_that_ss_names() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
        listed = subprocess.check_output(["ss", "-H", "-tanpe"], text=True).splitlines()
        owners = processes.owners()
        named = {}
        for line in listed:
            ino, pids = re.search(r"\bino:(\d+)", line), re.findall(r"pid=(\d+)", line)
            if ino and pids:
                named[int(ino[1])] = set(map(int, pids))
        found = owners.of(np.array(list(named)))

    assert len(named) >= 2
    assert all(pid in pids for pid, pids in zip(found.tolist(), named.values(), strict=True))


@pytest.mark.privileged
def test_processes_of_other_users_are_counted_as_unreadable() -> None:
    code = f"from netlab.kernel import processes\n{BECOME_NOBODY}print(processes.owners().unreadable)"
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE):
        unreadable = int(subprocess.check_output([sys.executable, "-c", code], text=True))

    assert unreadable >= 2  # this process and cat, which are root's


def test_a_process_is_described_as_proc_shows_it() -> None:
    command = ["sh", "-c", "echo up; read line", "an argument", ""]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        found = processes.describe([child.pid])[child.pid]

    assert found.pid == child.pid
    assert found.name == "sh"
    assert found.cmdline == "sh -c echo up; read line an argument"
    assert found.uid == os.geteuid()
    assert found.netns == Path("/proc/self/ns/net").stat().st_ino
    assert found.container is None or len(found.container) >= 32
    assert f":{found.cgroup}\n" in Path("/proc/self/cgroup").read_text()


def test_the_start_is_told_to_a_clock_tick_whatever_the_name_is(tmp_path: Path) -> None:
    program = tmp_path / "a) 1 (b"
    program.symlink_to("/bin/cat")
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    with subprocess.Popen([program], stdin=subprocess.PIPE) as child:
        found = processes.describe([child.pid])[child.pid]
    after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    tick_ns = 10**9 // os.sysconf("SC_CLK_TCK")
    assert before - tick_ns <= found.started_ns <= after


@pytest.mark.privileged
def test_the_user_is_the_effective_one_also_where_proc_belongs_to_root() -> None:
    # A process that changed its user is not dumpable, and its files in /proc belong to root.
    as_nobody = ["setpriv", "--reuid", "65534", "--clear-groups", "cat"]
    with subprocess.Popen(as_nobody, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(b"up\n")
        child.stdin.flush()
        child.stdout.readline()

        assert processes.describe([child.pid])[child.pid].uid == 65534


def test_a_process_that_has_ended_is_left_out() -> None:
    with subprocess.Popen(["true"]) as child:
        child.wait()

    assert list(processes.describe([child.pid, os.getpid()])) == [os.getpid()]


def test_a_process_without_a_command_line_has_none() -> None:
    with subprocess.Popen(["true"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, not yet reaped
        found = processes.describe([child.pid])[child.pid]

    assert (found.name, found.cmdline) == ("true", None)


@given(st.binary(max_size=3000))
def test_what_a_process_calls_itself_is_bounded_text_without_control_characters(raw: bytes) -> None:
    text = processes.printable(raw)

    assert all(character.isprintable() or character.isspace() for character in text if character < "\x80")
    assert not any(character in text for character in "\n\r\t\x1b\x07\u202e\x9b")
    assert len(text) <= 4 * processes._LONGEST_TEXT


def test_plain_and_accented_names_stay_as_they_are() -> None:
    assert processes.printable("nginx: worker é".encode()) == "nginx: worker é"


def test_an_escape_sequence_is_shown_not_acted_upon() -> None:
    assert processes.printable(b"x\x1b[2J\ny\xff") == "x\\x1b[2J\\ny\\xff"
