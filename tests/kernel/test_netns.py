from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
from interrupts import interrupt_at

from netlab.errors import BadInput
from netlab.kernel import netns


@pytest.fixture
def space() -> Iterator[str]:
    name = f"netlab-t{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield name
    subprocess.run(["ip", "netns", "del", name], check=True)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.privileged
def test_the_inode_is_the_one_stat_reports(space: str) -> None:
    reported = subprocess.check_output(["stat", "-Lc", "%i", f"/run/netns/{space}"], text=True)

    assert netns.inode(space) == int(reported)
    assert netns.inode(space) != netns.inode()


@pytest.mark.privileged
@pytest.mark.parametrize("form", ["name", "path", "Path"])
def test_a_namespace_is_entered_by_name_and_path_and_left_again(space: str, form: str) -> None:
    given = {"name": space, "path": f"/run/netns/{space}", "Path": Path("/run/netns", space)}[form]
    home = netns.inode()

    with netns.entered(given):
        inside = netns.inode()

    assert (inside, netns.inode()) == (netns.inode(space), home)


@pytest.mark.privileged
def test_a_namespace_is_entered_by_the_process_in_it(space: str) -> None:
    with subprocess.Popen(["ip", "netns", "exec", space, "cat"], stdin=subprocess.PIPE) as process:
        process_is_inside(process, space)
        with netns.entered(process.pid):
            assert netns.inode() == netns.inode(space)


def process_is_inside(process: subprocess.Popen[bytes], space: str) -> None:
    while netns.inode(process.pid) != netns.inode(space):
        assert process.poll() is None


@pytest.mark.privileged
def test_a_socket_keeps_the_namespace_it_was_opened_in(space: str) -> None:
    with netns.entered(space):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    with sock, pytest.raises(OSError, match="unreachable"):
        sock.connect(("127.0.0.1", 9))  # the new namespace's loopback is down


@pytest.mark.privileged
def test_the_thread_comes_back_after_an_error(space: str) -> None:
    home = netns.inode()

    with pytest.raises(ZeroDivisionError), netns.entered(space):
        raise ZeroDivisionError

    assert netns.inode() == home


@pytest.mark.privileged
def test_ctrl_c_at_any_moment_ends_the_block_and_brings_the_thread_home(space: str) -> None:
    home, before = netns.inode(), descriptors()
    handler, ended = signal.getsignal(signal.SIGINT), []

    def visit() -> None:
        with netns.entered(space):
            sum(range(3))

    for step in itertools.count():
        sys.settrace(interrupt_at(step, visit.__code__))
        try:
            visit()
        except KeyboardInterrupt:
            ended.append(step)
        finally:
            sys.settrace(None)
        assert netns.inode() == home, step
        assert descriptors() == before, step
        assert signal.getsignal(signal.SIGINT) == handler, step
        if ended[-1:] != [step]:
            break

    assert len(ended) > 100


@pytest.mark.privileged
def test_a_handler_of_ctrl_c_that_raises_nothing_changes_nothing_and_is_called_once(space: str) -> None:
    home, pressed = netns.inode(), []
    there: list[int] = []

    def visit() -> None:
        with netns.entered(space):
            there.append(netns.inode())

    visit()
    before = signal.signal(signal.SIGINT, lambda *_: pressed.append(1))
    try:
        for step in itertools.count():
            sys.settrace(interrupt_at(step, visit.__code__))
            visit()
            sys.settrace(None)
            assert netns.inode() == home
            if len(pressed) == step:
                break
    finally:
        sys.settrace(None)
        signal.signal(signal.SIGINT, before)

    assert len(pressed) > 100
    assert set(there) == {there[0]} != {home}


@pytest.mark.privileged
def test_an_inner_block_of_the_same_namespace_stays_where_it_is(space: str) -> None:
    with netns.entered(space):
        there = netns.inode()
        with netns.entered(space):
            assert netns.inode() == there
        assert netns.inode() == there


@pytest.mark.privileged
def test_another_thread_stays_where_it_is(space: str) -> None:
    with ThreadPoolExecutor(1) as pool:
        home = pool.submit(netns.inode).result()  # starts the thread before this one moves
        with netns.entered(space):
            assert pool.submit(netns.inode).result() == home != netns.inode()


@pytest.mark.privileged
def test_entering_leaves_no_descriptor_open(space: str) -> None:
    before = descriptors()

    for _ in range(20):
        with netns.entered(space):
            pass

    assert descriptors() == before


@pytest.mark.privileged
def test_a_namespace_given_by_its_path_is_refused_by_its_path(space: str) -> None:
    code = f"""if True:
        from pathlib import Path
        from netlab.kernel.netns import entered
        with entered(Path("/run/netns/{space}")): pass
    """
    alone = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all"]
    refused = subprocess.run(
        [*alone, sys.executable, "-c", code], capture_output=True, text=True, check=False
    )

    assert f"cannot enter the network namespace '/run/netns/{space}': " in refused.stderr


@pytest.mark.privileged
def test_an_unknown_name_is_refused_with_the_nearest_one(space: str) -> None:
    with (
        pytest.raises(BadInput, match=f"no network namespace '{space}x'.*{space}"),
        netns.entered(f"{space}x"),
    ):
        pass


@pytest.mark.privileged
@pytest.mark.parametrize("make", [Path.touch, os.mkfifo], ids=["file", "FIFO"])
def test_a_file_that_is_no_namespace_is_refused_unopened(
    make: Callable[[Path], object], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    make(other)

    with pytest.raises(BadInput, match="cannot open the network namespace"), netns.entered(other):
        pass  # to open a FIFO would wait for who writes


@pytest.mark.privileged
def test_names_lists_what_ip_netns_lists(space: str) -> None:
    listed = subprocess.check_output(["ip", "netns", "list"], text=True)

    assert space in netns.names()
    assert space in listed


@pytest.mark.parametrize("given", ["", ".", "..", True, 2.5, "/no/such/namespace", 2**22 + 1])
def test_what_is_no_namespace_is_refused(given: object) -> None:
    with pytest.raises(BadInput):
        netns.path(given)  # type: ignore[arg-type]


def test_a_process_id_out_of_a_frame_is_one_like_any_other() -> None:
    number = pd.Series([os.getpid()], dtype="Int64").iloc[0]

    assert netns.inode(number) == netns.inode(os.getpid())  # type: ignore[arg-type]


def test_none_is_the_own_namespace() -> None:
    home = netns.inode()

    with netns.entered(None):
        assert netns.inode() == home == Path("/proc/thread-self/ns/net").stat().st_ino
