"""The same question asked in one network namespace, or in all of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeAlias, TypeGuard, TypeVar, cast

from netlab.errors import BadInput, NetlabError
from netlab.frames import Gap, Missing
from netlab.kernel import netns as namespaces

T = TypeVar("T")

ALL = "all"
_UNFINDABLE = Missing(
    "network namespaces that only sockets keep",
    Gap.UNSEEN,
    None,
    "without a process, name or mount there is no file to enter them by; netlab.capture() sees what they do",
)
Spaces: TypeAlias = namespaces.NetNs | Sequence[namespaces.NetNs]


@dataclass(frozen=True, slots=True)
class Answers(Generic[T]):
    """The answers by the namespace's inode, and what to say of namespaces that gave none."""

    by_inode: dict[int, T]
    missing: list[Missing]


def ask(netns: Spaces, question: Callable[[], T], *, only: Collection[int] | None = None) -> Answers[T]:
    """Call *question* inside *netns*, or inside several namespaces in turn.

    It is called in a thread of its own that enters them. A process counts as being where its first thread is
    (/proc/PID/ns/net): who ends the processes in a namespace must not find there one that is only looking.

    Parameters
    ----------
    netns
        As for `netlab.kernel.netns.entered`, a list of such, or "all": those that have a process or a name
        here.
    question
        Called in each; may raise NetlabError, which counts that namespace as missing where several are asked.
    only
        With "all": the inodes of those to ask. That none of them answers is then no error.

    Raises
    ------
    BadInput
        If there is no such namespace; none was asked then.
    NetlabError
        If no namespace answered: what the first one said.
    """
    if is_several(netns):
        return _of_each(netns, question)
    if netns is None:
        return Answers({namespaces.inode(): question()}, [])
    if not is_all(netns):
        namespaces.path(cast("namespaces.NetNs", netns))  # refuses what can be none
    with ThreadPoolExecutor(1) as thread:
        if is_all(netns):
            return thread.submit(_in_turn, namespaces.everywhere(), question, only).result()
        return thread.submit(_inside, cast("namespaces.NetNs", netns), question).result()


def is_all(netns: object) -> bool:
    """Tell whether *netns* stands for every namespace."""
    return isinstance(netns, str) and netns == ALL


def unfindable(netns: object) -> list[Missing]:
    """Say which namespaces "all" leaves out; of others nothing."""
    return [_UNFINDABLE] if is_all(netns) else []


def is_several(netns: Spaces) -> TypeGuard[Sequence[namespaces.NetNs]]:
    """Tell whether *netns* is a list: a text is not one of its letters, nor are bytes one of numbers."""
    return isinstance(netns, Sequence) and not isinstance(netns, str | bytes | bytearray)


def _inside(netns: namespaces.NetNs, question: Callable[[], T]) -> Answers[T]:
    with namespaces.entered(netns):
        return Answers({namespaces.inode(): question()}, [])


def _of_each(several: Sequence[namespaces.NetNs], question: Callable[[], T]) -> Answers[T]:
    if not several:
        raise BadInput("netns is an empty list", fix='Give at least one, or "all"')
    files = {namespaces.inode(one): namespaces.path(one) for one in several}
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_in_turn, files, question, None).result()


def _in_turn(
    files: Mapping[int, Path], question: Callable[[], T], only: Collection[int] | None
) -> Answers[T]:
    own = namespaces.inode()
    answers: dict[int, T] = {}
    refusals: list[NetlabError] = []
    for inode, file in files.items():
        if only is not None and inode not in only:
            continue
        try:
            with namespaces.entered(None if inode == own else file):  # the own one takes no privilege
                answers[inode] = question()
        except NetlabError as error:
            refusals.append(error)
    if refusals and not answers and only is None:
        raise refusals[0]
    return Answers(answers, _silent(refusals))


def _silent(refusals: list[NetlabError]) -> list[Missing]:
    if not refusals:
        return []
    return [Missing("network namespaces", Gap.UNAVAILABLE, len(refusals), str(refusals[0]))]
