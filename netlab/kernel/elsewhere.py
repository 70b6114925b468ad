"""Sockets and processes where the kernel is not Linux, as psutil shows them.

Tried on Linux only, where psutil answers the same questions from /proc.
"""

from __future__ import annotations

import shlex
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, NamedTuple

from netlab.errors import CapabilityError
from netlab.kernel.processes import Process, printable

_NAME_BYTES = 15  # as many as Linux keeps: records have no room for more
_KINDS = {0: "inet", socket.IPPROTO_TCP: "tcp", socket.IPPROTO_UDP: "udp"}
_ADDRESSES = 1 << 16


class Ends(NamedTuple):
    """A socket's tuple: addresses have 4 or 16 bytes, the remote one none where there is no peer."""

    protocol: int
    local: bytes
    local_port: int
    remote: bytes
    remote_port: int


@dataclass(frozen=True, slots=True)
class Socket:
    """One socket in one list."""

    ends: Ends
    state: str  # psutil's word, such as "SYN_SENT"; "NONE" of UDP
    pid: int | None  # None where the system does not say


@dataclass(frozen=True, slots=True)
class Listed:
    """The sockets there are, one of several processes once for each."""

    sockets: list[Socket]
    only_own: bool  # whether other users' are left out


def required() -> Any:
    """Return psutil, which is asked for outside of Linux alone.

    Raises
    ------
    CapabilityError
        If it is not installed; the message says how to get it.
    """
    try:
        import psutil
    except ImportError as error:
        raise CapabilityError(
            'mode="poll" lists sockets by psutil on this system, and it is not installed',
            fix=f"Run: {shlex.quote(sys.executable)} -m pip install psutil",
        ) from error
    return psutil


def sockets(protocol: int = 0) -> Listed:
    """List the TCP and UDP sockets, or those of one IPPROTO.

    macOS tells only root of all processes; others get those of the processes that they may look at.
    """
    psutil, kind = required(), _KINDS[protocol]
    try:
        return Listed([_socket(one, one.pid) for one in psutil.net_connections(kind)], only_own=False)
    except psutil.AccessDenied:
        return Listed(list(of_own_processes(protocol)), only_own=True)


def of_own_processes(protocol: int = 0) -> Iterator[Socket]:
    """List the sockets of the processes that this one may look at, process by process."""
    psutil, kind = required(), _KINDS[protocol]
    for pid in psutil.pids():
        with suppress(psutil.Error):  # not ours to look at, or gone
            yield from [_socket(one, pid) for one in psutil.Process(pid).net_connections(kind)]


def describe(pids: Iterable[int], known: Mapping[int, Process] | None = None) -> dict[int, Process]:
    """Return what is to be known of each of *pids* that runs; those in *known* are not asked again.

    `started_ns` is in nanoseconds of UTC, unlike Linux's: it is there to tell processes of one pid apart.
    """
    psutil, known = required(), known or {}
    found = {}
    for pid in pids:
        with suppress(psutil.Error):
            one = psutil.Process(pid)
            started_ns = _started_ns(one)
            earlier = known.get(pid)
            same = earlier if earlier and earlier.started_ns == started_ns else None
            found[pid] = same or _process(psutil, one, started_ns)
    return found


def oldest(pids: Iterable[int]) -> int:
    """Return which of *pids* has run longest; those that are gone come last."""
    psutil = required()

    def age(pid: int) -> tuple[bool, int, int]:
        with suppress(psutil.Error):
            return False, _started_ns(psutil.Process(pid)), pid
        return True, 0, pid

    return min(pids, key=age)


def _started_ns(process: Any) -> int:
    started_ns: int = round(process.create_time() * 1e6) * 1000  # it is a float: the rest is noise
    return started_ns


def _process(psutil: Any, one: Any, started_ns: int) -> Process:
    """Describe a process; what the system keeps from us stays empty, as of other users' processes."""
    name, cmdline = "", ""
    with suppress(psutil.Error):
        name = one.name()
    with suppress(psutil.Error):
        cmdline = " ".join(one.cmdline())
    name, cmdline = (printable(_bytes(name)[:_NAME_BYTES]), printable(_bytes(cmdline)))
    return known_by(one.pid, name, cmdline or None, started_ns)


def known_by(pid: int, name: str = "", cmdline: str | None = None, started_ns: int = 0) -> Process:
    """Return the process of which so much is known."""
    return Process(
        pid, name, cmdline, uid=0, netns=None, nspid=None, cgroup=None, container=None, started_ns=started_ns
    )


def _bytes(text: str) -> bytes:
    return text.encode(errors="backslashreplace")


def _socket(found: Any, pid: int | None) -> Socket:
    protocol = socket.IPPROTO_UDP if found.type == socket.SOCK_DGRAM else socket.IPPROTO_TCP
    (local, local_port), (remote, remote_port) = found.laddr or ("", 0), found.raddr or ("", 0)
    ends = Ends(int(protocol), _packed(local), local_port, _packed(remote), remote_port)
    return Socket(ends, found.status, pid or None)  # 0: nobody's, as Windows says


@lru_cache(_ADDRESSES)
def _packed(address: str) -> bytes:
    return ip_address(address.partition("%")[0]).packed if address else b""
