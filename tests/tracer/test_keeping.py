"""A capture of one network namespace keeps it: the kernel gives the inode of one that is gone to the next."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import netlab
from netlab.errors import BadInput
from netlab.kernel import netns as namespaces

pytestmark = pytest.mark.privileged
MODES = pytest.mark.parametrize("mode", ["ebpf", "poll"])
HELLO = (
    "import socket; s = socket.create_server(('127.0.0.1', 0)); "
    "c = socket.create_connection(s.getsockname()); c.close()"
)


@pytest.fixture
def names() -> Iterator[tuple[str, str]]:
    """Return two names for namespaces, of which a test makes what it needs."""
    both = f"netlab-kept-{os.getpid()}", f"netlab-next-{os.getpid()}"
    yield both
    for name in both:
        subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL, check=False)


def made(name: str) -> int:
    subprocess.run(["ip", "netns", "add", name], check=True)
    subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
    return namespaces.inode(name)


def deleted(name: str) -> None:
    subprocess.run(["ip", "netns", "del", name], check=True)


def greet(name: str) -> None:
    subprocess.run(["ip", "netns", "exec", name, sys.executable, "-c", HELLO], check=True)


def held() -> set[int]:
    """Return the inodes of the namespaces that this process has open."""
    device, found = Path("/proc/self/ns/net").stat().st_dev, set()
    for file in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            seen = file.stat()
            if seen.st_dev == device:
                found.add(seen.st_ino)
    return found


@MODES
def test_a_namespace_that_comes_after_the_one_asked_for_is_another(names: tuple[str, str], mode: str) -> None:
    first, second = names
    inode = made(first)
    with netlab.capture(netns=first, protocol="tcp", mode=mode, nat=False):
        deleted(first)
        others = set()
        for _ in range(10):
            others.add(made(second))
            deleted(second)
        assert inode in held()
    assert inode not in others
    assert inode not in held()


def test_connections_of_the_next_namespace_are_no_rows(names: tuple[str, str]) -> None:
    first, second = names
    made(first)
    with netlab.capture(netns=first, protocol="tcp", nat=False) as capture:
        greet(first)
        before = len(capture.connections())
        deleted(first)
        made(second)
        greet(second)
        after = len(capture.connections())
    assert (before, after) == (2, 2)


def test_a_namespace_given_by_its_inode_is_kept_too(names: tuple[str, str]) -> None:
    inode = made(names[0])
    with netlab.capture(netns=inode, protocol="tcp", mode="poll"):
        assert inode in held()
    assert inode not in held()


@pytest.mark.parametrize("by", ["name", "inode"])
def test_a_namespace_that_is_gone_at_the_start_is_refused(names: tuple[str, str], by: str) -> None:
    inode = made(names[0])
    capture = netlab.capture(netns=names[0] if by == "name" else inode, mode="poll")
    deleted(names[0])
    with pytest.raises(BadInput, match="gone"):
        capture.start()
    assert inode not in held()


def test_another_namespace_under_the_same_name_is_refused(names: tuple[str, str]) -> None:
    first, second = names
    made(first)
    capture = netlab.capture(netns=first, mode="poll")
    deleted(first)
    made(second)  # which may have the inode now
    made(first)
    with pytest.raises(BadInput, match="gone"):
        capture.start()
