"""The system call filter of a unit file, put on a command: `python sandbox.py UNIT COMMAND…`.

systemd installs such a filter with libseccomp, and so does this. What the unit answers with EPERM kills here,
so that a call which is not foreseen cannot pass as a refusal that somebody copes with.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import subprocess
import sys
from pathlib import Path

_KILL, _ALLOW, _ERRNO = 0x80000000, 0x7FFF0000, 0x00050000  # include/seccomp.h
_EQUAL = 4
_CLONE_NEWNET = 0x40000000


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("how", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


def calls(word: str) -> set[str]:
    """Return the system calls that a word of SystemCallFilter= stands for."""
    if not word.startswith("@"):
        return {word}
    shown = subprocess.run(
        ["systemd-analyze", "syscall-filter", word], capture_output=True, text=True, check=True
    ).stdout
    inside = [line.strip() for line in shown.splitlines()[1:] if not line.strip().startswith("#")]
    return set().union(*(calls(one) for one in inside if one))


def allowed(unit: Path) -> set[str]:
    """Return the system calls that *unit* allows."""
    told = re.findall(r"^SystemCallFilter=(.*)$", unit.read_text(encoding="utf-8"), re.MULTILINE)
    return set().union(*(calls(word) for line in told for word in line.split()))


def confine(names: set[str]) -> None:
    """Allow this process, and what it becomes, only these system calls, and only network namespaces."""
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    rules = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(_KILL)))
    for name in sorted(names):
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number < 0:
            continue  # of another architecture
        if name == "setns":
            only = _Comparison(1, _EQUAL, _CLONE_NEWNET, 0)
            refused = library.seccomp_rule_add_array(rules, _ALLOW, number, 1, ctypes.byref(only))
        elif name == "clone3":  # flags behind a pointer: RestrictNamespaces= has the C library use clone(2)
            refused = library.seccomp_rule_add(rules, _ERRNO | errno.ENOSYS, number, 0)
        else:
            refused = library.seccomp_rule_add(rules, _ALLOW, number, 0)
        if refused:
            raise OSError(-refused, f"{name}: {os.strerror(-refused)}")
    if refused := library.seccomp_load(rules):
        raise OSError(-refused, os.strerror(-refused))


if __name__ == "__main__":
    confine(allowed(Path(sys.argv[1])))
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 - the agent, as its test names it
