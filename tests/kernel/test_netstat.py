"""Counters of network namespaces, of which one may have the inode of another that is gone."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator

import pytest

from netlab.kernel import netns, netstat


@contextlib.contextmanager
def space() -> Iterator[str]:
    name = f"netlab-netstat{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def test_what_grew_is_added_up_and_what_came_later_counts_whole() -> None:
    assert netstat.gained({1: 100, 2: 7}, {1: 103, 2: 7, 3: 5}) == 8


def test_a_counter_that_seems_to_go_back_takes_nothing_from_the_others() -> None:
    assert netstat.gained({1: 100, 2: 7}, {1: 99, 2: 8}) == 1


@pytest.mark.privileged
def test_a_namespace_with_the_inode_of_one_that_is_gone_is_another() -> None:
    found: dict[int, set[int]] = {}
    until = time.monotonic() + 30
    while all(len(numbers) < 2 for numbers in found.values()) and time.monotonic() < until:
        with space() as name:
            inode = netns.inode(name)
            found.setdefault(inode, set()).update(netstat.everywhere(lambda: 0, only=[inode]))

    assert max(len(numbers) for numbers in found.values()) == 2


def test_the_own_namespace_is_asked_like_any_other() -> None:
    assert netstat.everywhere(netns.inode, only=[netns.inode()]).popitem()[1] == netns.inode()
