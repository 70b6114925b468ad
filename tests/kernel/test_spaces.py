from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from netlab.errors import BadInput, CapabilityError, KernelError
from netlab.frames import Gap
from netlab.kernel import netns, spaces


@pytest.fixture
def space() -> Iterator[str]:
    name = f"netlab-sp{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield name
    subprocess.run(["ip", "netns", "del", name], check=True)


def test_the_own_namespace_is_asked_by_default() -> None:
    answers = spaces.ask(None, netns.inode)

    assert answers.by_inode == {netns.inode(): netns.inode()}
    assert answers.missing == []


@pytest.mark.privileged
def test_a_named_namespace_is_asked_alone(space: str) -> None:
    assert spaces.ask(space, netns.inode).by_inode == {netns.inode(space): netns.inode(space)}


@pytest.mark.privileged
def test_an_inode_as_frames_have_it_is_a_namespace(space: str) -> None:
    inode = netns.inode(space)

    assert set(spaces.ask(inode, netns.inode).by_inode) == {inode}
    assert set(spaces.ask([inode], netns.inode).by_inode) == {inode}


@pytest.mark.privileged
def test_all_namespaces_are_asked_each_from_inside(space: str) -> None:
    answers = spaces.ask("all", netns.inode)

    assert {netns.inode(), netns.inode(space)} <= set(answers.by_inode)
    assert all(asked == inside for asked, inside in answers.by_inode.items())


@pytest.mark.privileged
def test_a_namespace_that_only_a_mount_elsewhere_holds_is_asked_too(tmp_path: Path) -> None:
    place = tmp_path / "of a container"
    place.touch()
    subprocess.run(["unshare", f"--net={place}", "true"], check=True)
    try:
        assert netns.inode(place) in spaces.ask("all", netns.inode).by_inode
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.privileged
def test_what_ip_netns_left_behind_without_its_mount_is_no_namespace_that_refuses() -> None:
    left = Path(f"/run/netns/netlab-left{os.getpid()}")
    left.parent.mkdir(exist_ok=True)
    left.touch()
    try:
        answers = spaces.ask("all", netns.inode, only=[left.stat().st_ino, netns.inode()])
    finally:
        left.unlink()

    assert answers.by_inode == {netns.inode(): netns.inode()}
    assert answers.missing == []


@pytest.mark.privileged
def test_a_namespace_that_refuses_is_counted_and_the_others_answer(space: str) -> None:
    refusing = netns.inode(space)

    def question() -> str:
        if netns.inode() == refusing:
            raise CapabilityError("the kernel refused")
        return "answer"

    answers = spaces.ask("all", question)

    assert answers.by_inode[netns.inode()] == "answer"
    assert refusing not in answers.by_inode
    (gap,) = answers.missing
    assert (gap.what, gap.kind, gap.count) == ("network namespaces", Gap.UNAVAILABLE, 1)
    assert "the kernel refused" in gap.detail


def test_when_none_answers_the_first_refusal_is_raised() -> None:
    def question() -> None:
        raise KernelError("the kernel stopped answering")

    for netns_asked in (None, "all"):
        with pytest.raises(KernelError, match="stopped answering"):
            spaces.ask(netns_asked, question)


def test_an_unknown_namespace_is_refused_before_anything_is_asked() -> None:
    asked: list[None] = []

    with pytest.raises(BadInput):
        spaces.ask("no-such-namespace", lambda: asked.append(None))
    assert not asked


@pytest.mark.privileged
def test_a_process_that_looks_into_a_namespace_is_not_taken_to_be_inside(space: str) -> None:
    def where_the_process_is() -> int:
        return Path("/proc/self/ns/net").stat().st_ino

    own = where_the_process_is()

    assert set(spaces.ask("all", where_the_process_is).by_inode.values()) == {own}
    assert spaces.ask(space, where_the_process_is).by_inode == {netns.inode(space): own}
