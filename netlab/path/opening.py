"""What it means when a socket cannot be opened."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from netlab.errors import NetlabError, ProbeError


@contextlib.contextmanager
def opening(what: str) -> Iterator[None]:
    """Say what keeps the block from opening *what*; a lack of privileges is left for it to explain.

    Raises
    ------
    ProbeError
        If this process has too many files open, or the kernel has no such sockets.
    """
    try:
        yield
    except (NetlabError, PermissionError):
        raise
    except OSError as error:
        raise ProbeError(f"cannot open {what}: {os.strerror(error.errno or 0)}", fix=fix(error)) from error


def fix(error: OSError, otherwise: str = "") -> str:
    """Return how to get a socket that was refused with *error*."""
    if error.errno in {errno.EMFILE, errno.ENFILE}:
        return "Raise the number of open files, `ulimit -n`, or ask for less at once"
    if error.errno == errno.EAFNOSUPPORT:
        return "This host has that IP version switched off: leave it out"
    return otherwise
