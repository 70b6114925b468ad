"""The agent gives up what it does not need before it listens (capabilities(7))."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from netlab.errors import KernelError
from netlab.kernel.capabilities import Capability, effective

NEEDED = {
    Capability.CAP_BPF: "load eBPF programs and read their maps",
    Capability.CAP_PERFMON: "have eBPF programs read the kernel's memory",
    Capability.CAP_NET_ADMIN: "attach programs to the root control group; conntrack; sockets of every owner",
    Capability.CAP_NET_RAW: "traceroute with raw sockets",
    Capability.CAP_SYS_ADMIN: "look into other network namespaces: setns(2)",
    Capability.CAP_SYS_PTRACE: "see whose sockets they are: /proc/PID/fd",
    Capability.CAP_DAC_READ_SEARCH: "the same, of other users' processes",
}
_LAST = Path("/proc/sys/kernel/cap_last_cap")
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38  # include/uapi/linux/prctl.h
_VERSION_3 = 0x20080522  # include/uapi/linux/capability.h
_libc = ctypes.CDLL(None, use_errno=True)


def give_up() -> frozenset[str]:
    """Keep no other capability than `NEEDED`, for good; return those that are left.

    Only for the calling thread and those that it starts: to be called before there are others.
    """
    held = effective()
    kept = {capability for capability in NEEDED if capability.name in held}
    for number in range(int(_LAST.read_text(encoding="ascii")) + 1):
        if number not in kept:
            _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)  # without CAP_SETPCAP it has none to lose
    _set(kept)
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise KernelError(f"no_new_privs cannot be set: {os.strerror(ctypes.get_errno())}")
    return effective()


def _set(kept: Iterable[Capability]) -> None:
    bits = sum(1 << capability for capability in kept)
    low, high = bits & 0xFFFFFFFF, bits >> 32
    header = struct.pack("=Ii", _VERSION_3, 0)
    data = struct.pack("=IIIIII", low, low, 0, high, high, 0)
    if _libc.capset(ctypes.c_char_p(header), ctypes.c_char_p(data)):
        raise KernelError(f"capabilities cannot be given up: {os.strerror(ctypes.get_errno())}")
