"""Descriptors: what netlab leaves of them to the rest of its process, and what to do where none is left."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from netlab.errors import KernelError, NetlabError

_LEFT = 4  # one of so many
_RAISE = "Raise the number of open files: `ulimit -n 65536` before the process starts"


def leave_some(any_open: int, *, doing: str) -> None:
    """Refuse to open more of what there may be hundreds of, if what is left is for others.

    The kernel gives the lowest number that is free: that of a copy of *any_open* tells how many are taken.

    Raises
    ------
    KernelError
        If only the last quarter of the descriptors that this process may have is free.
    """
    import resource  # not on every system that this module is imported on

    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        lowest = os.dup(any_open)
    except OSError:
        lowest = most
    else:
        os.close(lowest)
    if most != resource.RLIM_INFINITY and lowest >= most - most // _LEFT:
        raise KernelError(
            f"netlab does not {doing}: of the {most} descriptors that this process may have, the last "
            "quarter is left to the rest of it",
            fix=_RAISE,
        )


@contextmanager
def explained(*, doing: str) -> Iterator[None]:
    """Say how to get more descriptors where the block finds none left.

    Raises
    ------
    KernelError
        If this process, or the host, has too many files open.
    """
    try:
        yield
    except NetlabError:
        raise
    except OSError as error:
        if error.errno not in {errno.EMFILE, errno.ENFILE}:
            raise
        raise KernelError(f"cannot {doing}: {os.strerror(error.errno).lower()}", fix=_RAISE) from error
