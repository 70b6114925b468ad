"""Processes as /proc shows them: who holds which socket, and who they are.

Process ids are those of this process's own /proc. Processes come and go while they are read; one that is
gone is left out. Source: proc(5), cgroups(7).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from netlab.kernel import cgroups, clock

_PROC = "/proc"
_SOCKET = "socket:["
_RING = "anon_inode:[io_uring]"
_IN_RING = re.compile(rb"^ *\d+: socket:\[(\d+)\]$", re.MULTILINE)  # in its fdinfo; 6.1 has no inodes there
_LONGEST_TEXT = 1024  # bytes of a command line that are kept
_LONGEST_PATH = 4096  # PATH_MAX, include/uapi/linux/limits.h: the kernel shows no longer cgroup
_STARTED = 22 - 3  # which field of /proc/PID/stat, counted from behind the command name
_ROOT_PIDS = 0xEFFFFFFC  # PROC_PID_INIT_INO, include/linux/proc_ns.h
_TICK_NS = 10**9 // (os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100)  # not on Windows
_UID = re.compile(rb"^Uid:\t\d+\t(\d+)", re.MULTILINE)  # the effective one; the files' owner may be root
_NSPID = re.compile(rb"^NSpid:.*\t(\d+)$", re.MULTILINE)  # the last one is the innermost
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")  # and text direction


@dataclass(frozen=True, slots=True)
class Owners:
    """Which process holds each socket; where several do, that which has run longest: it handed them out."""

    inodes: npt.NDArray[np.int64]  # ascending
    pids: npt.NDArray[np.int64]
    unreadable: int  # processes whose descriptors this process may not look at

    def of(self, inodes: npt.NDArray[Any]) -> np.ma.MaskedArray[Any, Any]:
        """Return the pid for each socket inode, masked where none is known."""
        if not len(self.inodes):
            return np.ma.array(np.zeros(len(inodes), np.int64), mask=True)
        at = np.searchsorted(self.inodes, inodes).clip(max=len(self.inodes) - 1)
        return np.ma.array(self.pids[at], mask=self.inodes[at] != inodes)


@dataclass(frozen=True, slots=True)
class Process:
    """One process; None is what could not be read."""

    pid: int
    name: str
    cmdline: str | None  # None for kernel threads too
    uid: int
    netns: int | None  # inode
    nspid: int | None  # the pid in its own pid namespace
    cgroup: str | None  # path
    container: str | None  # id or name
    started_ns: int  # since boot, to the kernel's clock tick; 0 is not known

    def began(self, at_ns: int) -> bool:
        """Say whether this may be the process that began *at_ns*, give or take a tick."""
        return self.started_ns != 0 and 0 <= at_ns - self.started_ns < 2 * _TICK_NS


def owners() -> Owners:
    """Walk /proc/PID/fd once, and return who holds the sockets."""
    found: dict[int, int] = {}
    unreadable = 0
    age = cache(_age)
    for pid in _pids():
        try:
            for inode in _sockets(pid):
                if found.setdefault(inode, pid) != pid:
                    found[inode] = min(found[inode], pid, key=age)
        except PermissionError:
            unreadable += 1
        except OSError:
            continue  # it is gone
    inodes = np.fromiter(found.keys(), np.int64, len(found))
    pids = np.fromiter(found.values(), np.int64, len(found))
    order = inodes.argsort()
    return Owners(inodes[order], pids[order], unreadable)


def describe(pids: Iterable[int]) -> dict[int, Process]:
    """Return what /proc says about each of *pids* that still runs."""
    found = ((pid, _described(pid)) for pid in pids)
    return {pid: process for pid, process in found if process is not None}


def running() -> set[int]:
    """Return the ids of the processes that there are."""
    return set(_pids())


@cache
def numbered_by_root() -> bool:
    """Tell whether process ids here are those of the root pid namespace, which eBPF programs see."""
    try:
        return Path(_PROC, "self/ns/pid").stat().st_ino == _ROOT_PIDS
    except OSError:  # a kernel without pid namespaces
        return True


def thread_group(pid: int) -> int | None:
    """Return the process that the process or thread *pid* belongs to; None where there is none."""
    status = _read(Path("/proc") / str(pid) / "status")
    found = status and re.search(rb"^Tgid:\s*(\d+)", status, re.MULTILINE)
    return int(found[1]) if found else None


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir(_PROC) if name.isdecimal())  # noqa: PTH208 - as below


def _sockets(pid: int) -> Iterator[int]:
    folder = os.open(f"{_PROC}/{pid}/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in os.listdir(folder):  # noqa: PTH208 - by descriptor, and without a Path for each name
            try:
                target = os.readlink(name, dir_fd=folder)
            except (FileNotFoundError, ProcessLookupError):
                continue  # closed since it was listed
            if target.startswith(_SOCKET):
                yield int(target[len(_SOCKET) : -1])
            elif target == _RING:  # what was registered with it, or accepted into it, needs no descriptor
                yield from map(int, _IN_RING.findall(_read(Path(_PROC, str(pid), "fdinfo", name)) or b""))
    finally:
        os.close(folder)


def _age(pid: int) -> tuple[bool, int, int]:
    """Return what puts processes in order of their age; pids do not, which the kernel uses again."""
    started_ns = _started_ns(_read(Path(_PROC, str(pid), "stat")))
    return started_ns == 0, started_ns, pid  # those that are gone come last


def _described(pid: int) -> Process | None:
    home = Path(_PROC, str(pid))
    name, status = _read(home / "comm"), _read(home / "status")
    uid = _UID.search(status or b"")
    if name is None or uid is None:
        return None
    where = cgroups.membership(_printable_lines(_read(home / "cgroup") or b""))
    return Process(
        pid=pid,
        name=printable(name.removesuffix(b"\n")),
        cmdline=printable((_read(home / "cmdline") or b"").rstrip(b"\0").replace(b"\0", b" ")) or None,
        uid=int(uid[1]),
        netns=_netns(home),
        nspid=int(nspid[1]) if (nspid := _NSPID.search(status or b"")) else None,
        cgroup=where.path,
        container=where.container,
        started_ns=_started_ns(_read(home / "stat")),
    )


def _started_ns(stat: bytes | None) -> int:
    """Read the start from the text of /proc/PID/stat, where a command name can hold anything."""
    fields = (stat or b"").rpartition(b")")[2].split()
    return clock.since_boot_ns(int(fields[_STARTED]) * _TICK_NS) if len(fields) > _STARTED else 0


def _printable_lines(raw: bytes) -> str:
    return "\n".join(printable(line, _LONGEST_PATH) for line in raw.split(b"\n"))


def _read(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except OSError:
        return None  # gone, or not ours to read


def _netns(home: Path) -> int | None:
    try:
        return (home / "ns/net").stat().st_ino
    except OSError:
        return None


def printable(raw: bytes, longest: int = _LONGEST_TEXT) -> str:
    """Return what a process says of itself as text: bounded, and what could act on a terminal escaped."""
    text = raw[:longest].decode(errors="backslashreplace")
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
