"""What a check of the doctor finds, and the advice where it is a no."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from netlab.errors import CapabilityError
from netlab.kernel import capabilities


class State(StrEnum):
    """What a check found."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found, why, and what to do about it (None when nothing needs doing)."""

    state: State
    why: str
    fix: str | None = None


@contextmanager
def granting(*needed: str) -> Iterator[None]:
    """Give a refusal the command that grants *needed* as its fix."""
    try:
        yield
    except CapabilityError as error:
        raise CapabilityError(error.problem, fix=grant_or_leave(*needed)) from error


@contextmanager
def noting(problems: list[Finding]) -> Iterator[None]:
    """Add a refusal to the *problems*."""
    try:
        yield
    except CapabilityError as error:
        problems.append(Finding(State.NO, error.problem, error.fix))


def grant_or_leave(*needed: str) -> str:
    """Return how to get what the kernel refused: privileges, or a way out of the container that filters."""
    try:
        capabilities.require(*needed, doing="")
    except CapabilityError as error:
        return error.fix
    return "This process has the capabilities, so a container's filter refuses: docker run --privileged …"


def all_of(problems: list[Finding]) -> Finding:
    """Return one no of several."""
    return Finding(
        State.NO,
        "; ".join(problem.why for problem in problems),
        "; ".join(problem.fix for problem in problems if problem.fix),
    )
