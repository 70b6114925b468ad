"""Network namespaces by name, path or process: enter one, list them, tell them apart.

A namespace belongs to a thread (setns(2)), and a socket belongs to the namespace it was created in for
life: enter, open the sockets, leave, and use them from anywhere.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

from netlab.checks import nearest
from netlab.errors import BadInput, CapabilityError, KernelError
from netlab.kernel.capabilities import unescaped

NetNs: TypeAlias = str | int | os.PathLike[str] | None

_NAMED = Path("/run/netns")  # where iproute2 keeps them (ip-netns(8))
_OWN = Path("/proc/thread-self/ns/net")
_MOUNTS = Path("/proc/thread-self/mountinfo")
_CLONE_NEWNET = 0x40000000
_inside = threading.local()  # `netns` of the block that this thread is in
_libc = ctypes.CDLL(None, use_errno=True)  # os.setns() came with Python 3.12


def names() -> list[str]:
    """Return the namespaces that have a name under /run/netns, sorted."""
    try:
        return sorted(entry.name for entry in _NAMED.iterdir())
    except FileNotFoundError:
        return []


def path(netns: NetNs) -> Path:
    """Return the file that stands for *netns*.

    Parameters
    ----------
    netns
        A name under /run/netns, a path (with a slash), a process id, or None for the calling thread's own.

    Raises
    ------
    BadInput
        If there is no such namespace; the message lists those that have a name.
    """
    match netns:
        case None:
            return _OWN
        case int() if not isinstance(netns, bool):
            return _existing(Path(f"/proc/{netns}/ns/net"), f"process {netns} has no network namespace")
        case str() if netns not in {"", ".", ".."} and "/" not in netns:
            return _existing(_NAMED / netns, f"there is no network namespace {netns!r}", netns)
        case os.PathLike() | str() if "/" in os.fspath(netns):
            return _existing(Path(netns), f"there is no network namespace at {os.fspath(netns)!r}")
        case _:
            raise BadInput(f"netns {netns!r} is neither a name, a path nor a process id", fix=_known())


def inode(netns: NetNs = None) -> int:
    """Return the inode that identifies *netns* (see `path`) on this host, as `ls -Li` and lsns(8) show it."""
    file = path(netns)
    try:
        return file.stat().st_ino
    except OSError as error:
        raise _refused(f"cannot look at the network namespace {file}", error) from error


@contextmanager
def entered(netns: NetNs) -> Iterator[None]:
    """Run the block with the calling thread inside *netns*, and bring the thread back.

    Parameters
    ----------
    netns
        A name under /run/netns, a path, a process id; None stays where the thread is. So does the one
        that a block around this one has entered.

    Raises
    ------
    BadInput
        If there is no such namespace, or the file is none.
    CapabilityError
        Without CAP_SYS_ADMIN, which setns(2) asks for.

    Examples
    --------
    >>> with entered(None):
    ...     print(inode() == inode(None))
    True
    """
    if netns is None or netns == getattr(_inside, "netns", None):
        yield
        return
    target = _opened(path(netns))
    try:
        home = _opened(_OWN)
        try:
            _setns(target, f"cannot enter the network namespace {netns!r}")
            outer, _inside.netns = getattr(_inside, "netns", None), netns
            try:
                yield
            finally:
                _inside.netns = outer
                _setns(home, "cannot return to the own network namespace")
        finally:
            os.close(home)
    finally:
        os.close(target)


def _existing(file: Path, problem: str, name: str = "") -> Path:
    if os.path.lexists(file):
        return file
    raise BadInput(problem, fix=_known(name))


def _known(name: str = "") -> str:
    known = names()
    return nearest(name, known) if known else "No network namespace has a name here; `ip netns add` makes one"


def _opened(file: Path) -> int:
    try:
        return os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _refused(f"cannot open the network namespace {file}", error) from error


def _setns(descriptor: int, problem: str) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET):
        code = ctypes.get_errno()
        raise _refused(problem, OSError(code, os.strerror(code)))


def _refused(problem: str, error: OSError) -> BadInput | CapabilityError | KernelError:
    reason = f"{problem}: {error.strerror}"
    if error.errno in {errno.EPERM, errno.EACCES}:
        return CapabilityError(reason, fix="Run as root: setns(2) needs CAP_SYS_ADMIN")
    if error.errno in {errno.EINVAL, errno.ENOENT, errno.ESRCH}:
        # EINVAL: a plain file, such as `ip netns` leaves behind when its mount is gone.
        return BadInput(reason, fix=_known())
    return KernelError(reason)


def everywhere() -> dict[int, Path]:
    """Return every network namespace that has a process, a name or a mount here: inode to a file for it.

    The own one comes first. Namespaces held only by a socket or a descriptor have no file to find them by.
    """
    named = [f"{_NAMED}/{name}" for name in names()]
    # There are as many files as processes, and a Path costs ten times what a text does.
    processes = [f"/proc/{entry}/ns/net" for entry in os.listdir("/proc") if entry.isdigit()]  # noqa: PTH208
    found: dict[int, Path] = {}
    for file in [str(_OWN), *named, *mounted(), *processes]:
        with suppress(OSError):  # the process is gone, or not ours to look at
            inode_of_file = os.stat(file).st_ino  # noqa: PTH116
            if inode_of_file not in found:
                found[inode_of_file] = Path(file)
    return found


def mounted() -> list[str]:
    """Return where network namespaces are mounted, as container runtimes do outside of /run/netns."""
    text = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    fields = [line.split(" ") for line in text.splitlines()]  # proc_pid_mountinfo(5)
    return [unescaped(field[4]) for field in fields if len(field) > 4 and field[3].startswith("net:[")]
