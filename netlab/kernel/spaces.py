"""The same question asked in one network namespace, or in all of them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Generic, TypeVar

from netlab.errors import NetlabError
from netlab.frames import Gap, Missing
from netlab.kernel import netns as namespaces

T = TypeVar("T")

ALL = "all"


@dataclass(frozen=True, slots=True)
class Answers(Generic[T]):
    """The answers by the namespace's inode, and what to say of namespaces that gave none."""

    by_inode: dict[int, T]
    missing: list[Missing]


def ask(
    netns: namespaces.NetNs, question: Callable[[], T], *, only: Collection[int] | None = None
) -> Answers[T]:
    """Call *question* with the calling thread inside *netns*, or inside every namespace in turn.

    Parameters
    ----------
    netns
        As for `netlab.kernel.netns.entered`, or "all": those that have a process or a name here.
    question
        Called in each; may raise NetlabError, which counts that namespace as missing.
    only
        With "all": the inodes of those to ask. That none of them answers is then no error.

    Raises
    ------
    NetlabError
        If no namespace answered: what the first one said.
    """
    if netns != ALL:
        with namespaces.entered(netns):
            return Answers({namespaces.inode(): question()}, [])
    own = namespaces.inode()
    answers: dict[int, T] = {}
    refusals: list[NetlabError] = []
    for inode, file in namespaces.everywhere().items():
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
