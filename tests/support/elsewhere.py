"""A process in which netlab finds itself on another system: `python elsewhere.py PLATFORM PROC < code`.

What Linux alone has is gone from Python's modules, and /proc and /sys are empty. psutil still reads PROC,
where the real /proc is mounted: it stands for what it would ask that system.
"""

# ruff: noqa: F401 - what chooses by the platform is imported as what it is
from __future__ import annotations

import asyncio
import concurrent.futures
import ctypes
import mmap
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

_LINUX: list[tuple[ModuleType, list[str]]] = [
    (socket, ["AF_NETLINK", "AF_PACKET", "SOCK_CLOEXEC", "SOCK_NONBLOCK"]),
    (os, ["setns", "unshare", "eventfd", "memfd_create", "sched_getaffinity", "O_PATH"]),
    (time, ["CLOCK_MONOTONIC_RAW", "CLOCK_BOOTTIME"]),
    (select, ["epoll"]),
]
_POSIX: list[tuple[ModuleType, list[str]]] = [
    (socket, ["AF_UNIX"]),
    (os, ["sysconf", "geteuid", "getuid", "fork", "O_CLOEXEC", "O_DIRECTORY"]),
    (time, ["clock_getres", "CLOCK_MONOTONIC"]),
    (select, ["poll"]),
    (mmap, ["PROT_READ", "PROT_WRITE", "MAP_SHARED"]),
    (signal, ["pthread_sigmask", "pthread_kill"]),
]
_POSIX_MODULES = ["fcntl", "grp", "pwd", "resource", "termios"]
_UNDER = """
    mount --bind /proc "$0" && mount -t tmpfs none /proc && mount -t tmpfs none /sys && ip link set lo up &&
    exec "$@"
"""


def run(platform: str, code: str, place: Path) -> str:
    """Run *code* in such a process, alone in a network namespace; return what it prints."""
    proc = place / "proc"
    proc.mkdir()
    pretending = [sys.executable, __file__, platform, str(proc)]
    done = subprocess.run(
        ["unshare", "--mount", "--net", "sh", "-c", _UNDER, str(proc), *pretending],
        input=code,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class _Library(ctypes.CDLL):
    """Windows has no library of the process itself."""

    def __init__(self, name: str | None, *args: Any, **options: Any) -> None:
        if name is None:
            raise TypeError("argument of type 'NoneType' is not iterable")
        super().__init__(name, *args, **options)


def _refuse_proc(event: str, arguments: tuple[Any, ...]) -> None:
    """Have a list of /proc fail, which is an empty folder here and none at all elsewhere."""
    if event in {"os.listdir", "os.scandir"} and str(arguments[0]) in {"/proc", "/sys"}:
        raise FileNotFoundError(arguments[0])


def _pretend(platform: str) -> None:
    gone = _LINUX + (_POSIX if platform == "win32" else [])
    for module, names in gone:
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    if platform == "win32":
        sys.modules.update(dict.fromkeys(_POSIX_MODULES))  # type: ignore[arg-type]  # None: not to be found
        ctypes.CDLL = _Library  # type: ignore[misc]
    sys.addaudithook(_refuse_proc)
    sys.platform = platform


if __name__ == "__main__":
    import numpy as np
    import pandas as pd
    import psutil
    import pyarrow.parquet
    import tqdm.auto

    psutil.PROCFS_PATH = sys.argv[2]
    _pretend(sys.argv[1])
    exec(compile(sys.stdin.read(), "elsewhere", "exec"), {"__name__": "__main__", "PROC": sys.argv[2]})  # noqa: S102
