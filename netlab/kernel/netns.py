"""Network namespaces by name, path or process: enter one, list them, tell them apart.

A namespace belongs to a thread (setns(2)), and a socket belongs to the namespace it was created in for
life: enter, open the sockets, leave, and use them from anywhere.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import cache
from numbers import Integral
from pathlib import Path
from types import FrameType
from typing import TypeAlias

from netlab.checks import nearest
from netlab.errors import BadInput, CapabilityError, KernelError
from netlab.kernel.capabilities import unescaped
from netlab.kernel.libc import libc

NetNs: TypeAlias = str | int | os.PathLike[str] | None

_NAMED = Path("/run/netns")  # where iproute2 keeps them (ip-netns(8))
_OWN = Path("/proc/thread-self/ns/net")
_MOUNTS = Path("/proc/thread-self/mountinfo")
_MOST_PID = 1 << 22  # what is above is an inode (proc(5): pid_max)
_CLONE_NEWNET = 0x40000000
_inside = threading.local()  # `netns` of the block that this thread is in


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
        A name under /run/netns, a path (with a slash), a process id, an inode as in frames, or None
        for the calling thread's own.

    Raises
    ------
    BadInput
        If there is no such namespace; the message lists those that have a name.
    """
    given: object = netns
    if not isinstance(given, bool) and isinstance(given, Integral):  # also one that comes from a frame
        netns = int(given)
    match netns:
        case None:
            return _OWN
        case int() if not isinstance(netns, bool) and netns > _MOST_PID:
            return _by_inode(netns)
        case int() if not isinstance(netns, bool):
            return _existing(Path(f"/proc/{netns}/ns/net"), f"process {netns} has no network namespace")
        case str() if netns not in {"", ".", ".."} and "/" not in netns:
            return _existing(_NAMED / netns, f"there is no network namespace {netns!r}", netns)
        case os.PathLike() | str() if "/" in os.fspath(netns):
            return _existing(Path(netns), f"there is no network namespace at {os.fspath(netns)!r}")
        case _:
            raise BadInput(f"netns {netns!r} is neither a name, a path nor a process id", fix=_known())


def _shown(netns: NetNs) -> str:
    return repr(os.fspath(netns) if isinstance(netns, os.PathLike) else netns)


def _by_inode(number: int) -> Path:
    file = everywhere().get(number)
    if file is None:
        raise BadInput(f"no process, name or mount here has the network namespace {number}", fix=_known())
    return file


def inode(netns: NetNs = None) -> int:
    """Return the inode that identifies *netns* (see `path`) on this host, as `ls -Li` and lsns(8) show it."""
    file = path(netns)
    try:
        return file.stat().st_ino
    except OSError as error:
        raise _refused(f"cannot look at the network namespace {file}", error) from error


def entered(netns: NetNs) -> AbstractContextManager[None]:
    """Run the block with the calling thread inside *netns*, and bring the thread back.

    Ctrl-C ends the block like any other, and cannot leave the thread where it went.

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
    return _Visit(netns)


class _Visit(AbstractContextManager[None]):
    """There and back. An interrupt that comes on the way is held until the way is done.

    Python may raise KeyboardInterrupt before the first line of `__exit__`, and a `with` block does nothing
    about that. The main thread of a notebook would stay in another namespace from then on.
    """

    def __init__(self, netns: NetNs) -> None:
        self._netns = netns
        self._outer: NetNs = None
        self._home: int | None = None
        self._handler: Callable[[int, FrameType | None], object] | None = None
        self._interrupted = False

    def __enter__(self) -> None:
        if self._netns is None or self._netns == getattr(_inside, "netns", None):
            return
        self._hold()
        try:
            target = opened(path(self._netns))
            try:
                self._home = opened(_OWN)
                _setns(target, f"cannot enter the network namespace {_shown(self._netns)}")
            finally:
                os.close(target)
            self._outer, _inside.netns = getattr(_inside, "netns", None), self._netns
        except BaseException:
            self._stay()
            raise
        if self._interrupted and self._handler:
            self._interrupted = False
            try:
                self._handler(signal.SIGINT, None)
            except BaseException:
                self.__exit__()
                raise

    def __exit__(self, *_: object) -> None:
        if self._home is None:
            return
        _inside.netns = self._outer
        try:
            _setns(self._home, "cannot return to the own network namespace")
        finally:
            self._stay()

    def _stay(self) -> None:
        """Close what the way back would take, and let interrupts through: the one that was held first."""
        if self._home is not None:
            os.close(self._home)
            self._home = None
        handler, self._handler = self._handler, None
        if handler is None:
            return
        found = signal.signal(signal.SIGINT, handler)
        if found != self._interrupt:  # the block has set another one
            signal.signal(signal.SIGINT, found)
        if self._interrupted:
            handler(signal.SIGINT, None)

    def _hold(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # no other thread is interrupted
        handler = signal.getsignal(signal.SIGINT)
        if callable(handler):  # else it is the system's, or another language's: nothing is raised here
            self._handler = handler
            signal.signal(signal.SIGINT, self._interrupt)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._is_under_way(frame):
            self._interrupted = True
        elif self._handler is not None:
            self._handler(number, frame)

    def _is_under_way(self, frame: FrameType | None) -> bool:
        while frame is not None:
            if frame.f_code in _WAYS and frame.f_locals.get("self") is self:
                return True
            frame = frame.f_back
        return False


_WAYS = {_Visit.__enter__.__code__, _Visit.__exit__.__code__}


def _existing(file: Path, problem: str, name: str = "") -> Path:
    if os.path.lexists(file):
        return file
    raise BadInput(problem, fix=_known(name))


def _known(name: str = "") -> str:
    known = names()
    return nearest(name, known) if known else "No network namespace has a name here; `ip netns add` makes one"


def opened(file: Path) -> int:
    """Open a namespace's file; of what is none nothing is opened, because a device or a FIFO would notice."""
    try:
        found = os.open(file, os.O_PATH | os.O_CLOEXEC)
        try:
            if os.fstat(found).st_dev != _nsfs():
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            return os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.close(found)
    except OSError as error:
        raise _refused(f"cannot open the network namespace {file}", error) from error


@cache
def _nsfs() -> int:
    """Return the device of the file system that all namespaces are on."""
    return _OWN.stat().st_dev


def _setns(descriptor: int, problem: str) -> None:
    if libc().setns(descriptor, _CLONE_NEWNET):  # os.setns() came with Python 3.12
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
    device = _nsfs()
    for file in [str(_OWN), *named, *mounted(), *processes]:
        with suppress(OSError):  # the process is gone, or not ours to look at
            seen = os.stat(file)  # noqa: PTH116
            # `ip netns` leaves a plain file behind when a mount is gone.
            if seen.st_dev == device and seen.st_ino not in found:
                found[seen.st_ino] = Path(file)
    return found


def mounted() -> list[str]:
    """Return where network namespaces are mounted, as container runtimes do outside of /run/netns."""
    text = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    fields = [line.split(" ") for line in text.splitlines()]  # proc_pid_mountinfo(5)
    return [unescaped(field[4]) for field in fields if len(field) > 4 and field[3].startswith("net:[")]
