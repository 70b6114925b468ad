"""The bpf(2) system call, which libc does not wrap."""

from __future__ import annotations

import ctypes
import errno
import os
import platform

from netlab.kernel.libc import libc

_NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}


def bpf(command: int, attributes: bytes | ctypes.Array[ctypes.c_char]) -> int:
    """Return what bpf(2) returns, a descriptor or -1 with `ctypes.get_errno()` set.

    Where the kernel answers in the attributes themselves, they must be a buffer.
    """
    number = _NUMBERS.get(platform.machine())
    if number is None:
        ctypes.set_errno(errno.ENOSYS)
        return -1
    place = ctypes.c_char_p(attributes) if isinstance(attributes, bytes) else attributes
    return int(libc().syscall(number, command, place, len(attributes)))


def last_error() -> str:
    """Say why the last call failed, here or in a library that sets `ctypes.get_errno()` too."""
    return os.strerror(ctypes.get_errno())
