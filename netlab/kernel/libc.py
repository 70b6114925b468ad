"""The C library of this process, for system calls that Python has no function for."""

from __future__ import annotations

import ctypes
from functools import cache


@cache
def libc() -> ctypes.CDLL:
    """Return it; not before a call is to be made, because not every system has one that is found so."""
    return ctypes.CDLL(None, use_errno=True)
