"""The bpf(2) system call, which libc does not wrap."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from enum import IntEnum

from netlab.kernel.libc import libc

_NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}


class Command(IntEnum):
    """What bpf(2) is asked to do: enum bpf_cmd, include/uapi/linux/bpf.h."""

    MAP_CREATE = 0
    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    PROG_LOAD = 5
    MAP_GET_NEXT_ID = 12
    MAP_GET_FD_BY_ID = 14
    OBJ_GET_INFO_BY_FD = 15
    RAW_TRACEPOINT_OPEN = 17
    MAP_LOOKUP_AND_DELETE_ELEM = 21
    MAP_LOOKUP_BATCH = 24
    LINK_CREATE = 28
    ENABLE_STATS = 32


class ProgramKind(IntEnum):
    """The kinds of eBPF program that netlab loads: enum bpf_prog_type, include/uapi/linux/bpf.h."""

    SOCKET_FILTER = 1
    KPROBE = 2  # uprobes, too
    TRACEPOINT = 5
    CGROUP_SKB = 8
    CGROUP_SOCK = 9
    SOCK_OPS = 13
    RAW_TRACEPOINT = 17
    CGROUP_SOCK_ADDR = 18
    TRACING = 26


def bpf(command: Command, attributes: bytes | ctypes.Array[ctypes.c_char]) -> int:
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
