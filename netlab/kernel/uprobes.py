"""Programs run where user space enters functions of a file, or returns from them.

A probe is on the file, whoever maps it and whenever, and goes with its descriptor. Since Linux 6.6 one link
has several (kernel/trace/bpf_trace.c); before that, perf_event_open(2) makes one each, and the kernel waits
some 0.1 s for each that is closed, one after the other (perf_uprobe_destroy() holds event_mutex).
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from netlab.errors import CapabilityError, ProgramError
from netlab.kernel import btf, syscall
from netlab.kernel.libc import libc
from netlab.kernel.syscall import Command

_MULTI = 48  # BPF_TRACE_UPROBE_MULTI: enum bpf_attach_type, include/uapi/linux/bpf.h
_NUMBERS = {"x86_64": 298, "aarch64": 241, "riscv64": 241, "s390x": 331, "ppc64le": 319}
_DEVICE = Path("/sys/bus/event_source/devices/uprobe")
_ATTRIBUTES = struct.Struct("=IIQQQQQIIQQ56x")  # struct perf_event_attr, 128 bytes of it
_CLOSE_ON_EXEC = 8  # PERF_FLAG_FD_CLOEXEC
_CLOSED_AT_ONCE = 256
_SET_PROGRAM, _ENABLE = 0x40042408, 0x2400  # PERF_EVENT_IOC_SET_BPF, PERF_EVENT_IOC_ENABLE


class Place(NamedTuple):
    """Where a function of a unit runs: at the entry of functions of a file, or at their return."""

    function: str
    offsets: list[int]
    at_return: bool


def require() -> None:
    """Refuse to go on without uprobes.

    Raises
    ------
    CapabilityError
        If this kernel has none.
    """
    if not _has_links():
        _device()


def attach_type() -> int:
    """Return what a program has to be loaded for."""
    return _MULTI if _has_links() else 0


def attach(program: int, file: int, place: Place) -> list[int]:
    """Run the *program* of a descriptor at a *place* of an open *file*; return what keeps it there.

    Raises
    ------
    CapabilityError
        If this kernel has no uprobes.
    ProgramError
        If it refuses these.
    """
    path = ctypes.create_string_buffer(f"/proc/self/fd/{file}".encode())
    if not _has_links():
        return _events(program, path, place)
    places = np.array(place.offsets, np.uint64)
    where = (ctypes.addressof(path), places.ctypes.data, 0, 0, len(places), place.at_return, 0)
    link = syscall.bpf(Command.LINK_CREATE, struct.pack("=IIIIQQQQIIQ", program, 0, _MULTI, 0, *where))
    if link < 0:
        raise _refused()
    return [link]


def close(links: Iterable[int]) -> None:
    """Close descriptors, for each of which the kernel waits until nobody runs its program: many at a time."""
    links = list(links)
    if links:  # a host with many containers has thousands, and a container may have few threads
        with ThreadPoolExecutor(min(len(links), _CLOSED_AT_ONCE)) as threads:
            list(threads.map(os.close, links))


@cache
def _has_links() -> bool:
    return btf.has_field("bpf_uprobe_multi_link", "cnt")


def _events(program: int, path: ctypes.Array[ctypes.c_char], place: Place) -> list[int]:
    kind, return_flag = _device()
    number = _NUMBERS.get(platform.machine(), -1)
    events: list[int] = []
    with ExitStack() as placed:
        placed.callback(close, events)
        for offset in place.offsets:
            where = (ctypes.addressof(path), offset)
            wanted = (kind, _ATTRIBUTES.size, return_flag if place.at_return else 0, 1, 0, 0, 0, 1, 0, *where)
            event = int(libc().syscall(number, _ATTRIBUTES.pack(*wanted), -1, 0, -1, _CLOSE_ON_EXEC))
            if event < 0:
                raise _refused()
            events.append(event)
            _run(program, event)
        placed.pop_all()
    return events


def _run(program: int, event: int) -> None:
    import fcntl  # not on every system that this module is imported on

    try:
        fcntl.ioctl(event, _SET_PROGRAM, program)
        fcntl.ioctl(event, _ENABLE, 0)
    except OSError as error:
        raise ProgramError(f"a program could not be attached to a uprobe: {error.strerror}") from error


def _refused() -> ProgramError:
    return ProgramError(
        f"a uprobe could not be placed: {syscall.last_error()}",
        fix="netlab.doctor() tells what this kernel allows",
    )


@cache
def _device() -> tuple[int, int]:
    """Return the number of this kind of event, and the flag that asks for the return."""
    try:
        kind = int((_DEVICE / "type").read_text(encoding="ascii"))
        bit = (_DEVICE / "format" / "retprobe").read_text(encoding="ascii").strip().removeprefix("config:")
    except (OSError, ValueError) as error:
        raise CapabilityError(
            "this kernel has no uprobes", fix="Use one with CONFIG_UPROBE_EVENTS, or leave clear_text out"
        ) from error
    return kind, 1 << int(bit)
