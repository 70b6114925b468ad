"""Who owns a practice network, what it consists of, and how all of it is removed.

A network called `netlab-<pid>-<number>` consists of the namespaces `netlab-<pid>-<number>-<host>` and of
every process inside them. Its owner holds a lock on `/run/netlab/<network>.lock`. The kernel drops that lock
when the owner dies, whatever kills it, and a process that got the same pid later does not have it.
"""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from itertools import count
from pathlib import Path

from pyroute2 import netns as named_namespaces

from netlab.errors import LabError
from netlab.kernel import capabilities, netns
from netlab.lab import warden
from netlab.lab.plan import HOSTS

NEEDED = ("CAP_NET_ADMIN", "CAP_SYS_ADMIN")
GRANT = "Run Python as root (sudo -E): setcap is not enough, the tools it runs would inherit nothing"

_LOCKS = Path("/run/netlab")
_NAME = re.compile(rf"(netlab-\d+-\d+)-(?:{'|'.join(HOSTS)})")
_EXIT_S = 5.0

Identity = tuple[int, int]  # device and inode of a namespace's file


class Claim:
    """A name for a network that no other network has, held until released or until this process ends."""

    def __init__(self, name: str, descriptor: int) -> None:
        self.name = name
        self.warden: subprocess.Popen[bytes] | None = None
        self._descriptor = descriptor
        self._owner = os.getpid()
        self._released = False

    @property
    def held(self) -> bool:
        """Whether the network is this process's to remove: a forked child does not own it."""
        return not self._released and os.getpid() == self._owner

    def watch(self) -> None:
        """Start the process that removes the network if this one is killed."""
        self.warden = subprocess.Popen(
            [sys.executable, "-P", warden.__file__, self.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C goes to the whole group of processes
        )

    def release(self) -> None:
        """Give the name back."""
        (_LOCKS / f"{self.name}.lock").unlink(missing_ok=True)
        os.close(self._descriptor)
        self._released = True
        if self.warden is not None:
            self.warden.communicate(b"closed")


def claim() -> Claim:
    """Return the first free name of this process, locked."""
    _LOCKS.mkdir(exist_ok=True)
    taken = set(_networks())
    for number in count(1):
        name = f"netlab-{os.getpid()}-{number}"
        if name not in taken and (claimed := _locked(name, os.O_CREAT | os.O_EXCL)):
            return claimed
    raise AssertionError("count() has no end")


def remove(network: str) -> list[str]:
    """End the processes inside *network* and delete its namespaces; return what was removed, in words."""
    namespaces = [name for name in netns.names() if _belongs(name) == network]
    removed = _end_processes({_identity(netns.path(name)) for name in namespaces})
    for name in namespaces:
        try:
            named_namespaces.remove(name)
        except FileNotFoundError:  # someone else cleans at the same time
            continue
        except OSError as error:
            raise LabError(
                f"the namespace {name} could not be deleted: {error.strerror}",
                fix=f"Run: ip netns delete {name}",
            ) from error
        removed.append(f"namespace {name}")
    return removed


def clean() -> list[str]:
    """Remove the practice networks whose owners died without closing them.

    Networks of living owners are left alone. Every process inside a removed namespace is ended.

    Returns
    -------
    list of str
        What was removed: `process 4711 (python3)`, `namespace netlab-4700-1-client`. Empty when there was
        nothing to do.

    Raises
    ------
    CapabilityError
        Without CAP_SYS_ADMIN and CAP_NET_ADMIN.
    LabError
        If a namespace cannot be deleted or a process does not end.

    Examples
    --------
    >>> import netlab
    >>> netlab.lab.clean()
    []
    """
    capabilities.require(*NEEDED, doing="remove practice networks", fix=GRANT)
    removed = []
    for network in _networks():
        claimed = _locked(network, os.O_CREAT)
        if claimed is None:
            continue
        try:
            removed += remove(network)
        finally:
            claimed.release()
    return removed


def _networks() -> list[str]:
    """Return the names of all networks that have a namespace or a lock file."""
    with_namespace = {_belongs(name) for name in netns.names()}
    with_lock = {file.stem for file in _LOCKS.glob("netlab-*-*.lock")}
    return sorted((with_namespace | with_lock) - {""})


def _belongs(namespace: str) -> str:
    match = _NAME.fullmatch(namespace)
    return match[1] if match else ""


def _locked(network: str, flags: int) -> Claim | None:
    """Return the claim on *network*, or None while somebody else holds it."""
    _LOCKS.mkdir(exist_ok=True)
    file = _LOCKS / f"{network}.lock"
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC | flags, 0o600)
    except FileExistsError:
        return None
    with suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(file.stat(), os.fstat(descriptor)):  # not one that was just released
            return Claim(network, descriptor)
    os.close(descriptor)
    return None


def _end_processes(namespaces: set[Identity]) -> list[str]:
    """Kill the processes inside the namespaces until none is left: one may fork while it is looked for."""
    ended: list[str] = []
    deadline = time.monotonic() + _EXIT_S
    while pids := _processes_in(namespaces):
        if time.monotonic() > deadline:
            raise LabError(
                f"processes {pids} in the practice network did not end within {_EXIT_S:g} s",
                fix="Run netlab.lab.clean() when they are gone",
            )
        for pid in pids:
            with suppress(ProcessLookupError):
                ended += _end(pid, namespaces)
    return ended


def _end(pid: int, namespaces: set[Identity]) -> list[str]:
    """Kill *pid* and wait until it is gone, if it is inside the namespaces."""
    descriptor = os.pidfd_open(pid)  # from here the pid cannot come to mean another process
    try:
        if not _processes_in(namespaces, [pid]):
            return []
        description = f"process {pid} ({_command(pid)})"
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        _await_exit(descriptor)
        return [description]
    finally:
        os.close(descriptor)


def _await_exit(descriptor: int) -> None:
    """Wait until the process behind a pidfd has ended: the descriptor is then readable (pidfd_open(2))."""
    ending = select.poll()
    ending.register(descriptor, select.POLLIN)
    ending.poll(_EXIT_S * 1000)


def _processes_in(namespaces: set[Identity], pids: Iterable[int] | None = None) -> list[int]:
    """Return those of *pids* (all by default), other than this process, that are inside the namespaces."""
    if pids is None:
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    found = []
    for pid in pids:
        with suppress(OSError):  # it ended meanwhile, or is a zombie, which has no namespace any more
            if pid != os.getpid() and _identity(Path(f"/proc/{pid}/ns/net")) in namespaces:
                found.append(pid)
    return found


def _identity(namespace: Path) -> Identity:
    found = namespace.stat()
    return found.st_dev, found.st_ino


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "?"
