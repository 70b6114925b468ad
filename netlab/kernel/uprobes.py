"""Programs run where user space enters a function of a file, or returns from it: perf_event_open(2).

A probe is on the file, whoever maps it and whenever. It goes with its descriptor.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import struct
from functools import cache
from pathlib import Path

from netlab.errors import CapabilityError, ProgramError
from netlab.kernel import syscall

_NUMBERS = {"x86_64": 298, "aarch64": 241, "riscv64": 241, "s390x": 331, "ppc64le": 319}
_DEVICE = Path("/sys/bus/event_source/devices/uprobe")
_ATTRIBUTES = struct.Struct("=IIQQQQQIIQQ56x")  # struct perf_event_attr of 128 bytes
_CLOSE_ON_EXEC = 8  # PERF_FLAG_FD_CLOEXEC
_SET_PROGRAM, _ENABLE = 0x40042408, 0x2400  # PERF_EVENT_IOC_SET_BPF, PERF_EVENT_IOC_ENABLE
_libc = ctypes.CDLL(None, use_errno=True)


def attach(program: int, file: int, offset: int, *, at_return: bool) -> int:
    """Run the *program* of a descriptor in an open *file* and return the descriptor that keeps it there.

    Raises
    ------
    CapabilityError
        If this kernel has no uprobes.
    ProgramError
        If it refuses this one.
    """
    kind, return_flag = _device()
    path = ctypes.create_string_buffer(f"/proc/self/fd/{file}".encode())
    wanted = return_flag if at_return else 0
    attributes = _ATTRIBUTES.pack(
        kind, _ATTRIBUTES.size, wanted, 1, 0, 0, 0, 1, 0, ctypes.addressof(path), offset
    )
    number = _NUMBERS.get(platform.machine(), -1)
    event = int(_libc.syscall(number, attributes, -1, 0, -1, _CLOSE_ON_EXEC))
    if event < 0:
        raise ProgramError(
            f"a uprobe could not be placed: {syscall.last_error()}",
            fix="netlab.doctor() tells what this kernel allows",
        )
    try:
        fcntl.ioctl(event, _SET_PROGRAM, program)
        fcntl.ioctl(event, _ENABLE, 0)
    except OSError as error:
        os.close(event)
        raise ProgramError(f"a program could not be attached to a uprobe: {error.strerror}") from error
    return event


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
