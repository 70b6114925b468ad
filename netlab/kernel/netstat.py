"""The kernel's own TCP/IP statistics of a network namespace: /proc/net/snmp, netstat and snmp6."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path

from netlab.kernel import netns, spaces

_SO_NETNS_COOKIE = 71  # include/uapi/asm-generic/socket.h, since Linux 5.14


def counters() -> dict[str, int]:
    """Return the counters of the calling thread's namespace by group and name, such as "Udp6.InErrors"."""
    found: dict[str, int] = {}
    for file in ("snmp", "netstat"):
        lines = Path(f"/proc/thread-self/net/{file}").read_text(encoding="ascii").splitlines()
        for names, values in zip(lines[::2], lines[1::2], strict=True):
            group, *words = names.replace(":", "").split()
            numbers = map(int, values.split()[1:])
            found |= {f"{group}.{word}": number for word, number in zip(words, numbers, strict=True)}
    with suppress(FileNotFoundError):  # a kernel without IPv6
        for line in Path("/proc/thread-self/net/snmp6").read_text(encoding="ascii").splitlines():
            name, number = line.split()
            group, word = name.split("6", 1)
            found[f"{group}6.{word}"] = int(number)
    return found


def everywhere(count: Callable[[], int], *, only: Collection[int] | None = None) -> dict[int, int]:
    """Return what *count* returns in each network namespace, or in those whose inodes are in *only*.

    They are told apart by a number that none ever gets again, as an inode does: see `gained`.
    """
    return dict(spaces.ask(spaces.ALL, lambda: (_cookie(), count()), only=only).by_inode.values())


def gained(before: Mapping[int, int], now: Mapping[int, int]) -> int:
    """Return by how much a counter has grown in all namespaces together since *before*."""
    # Where one is the difference of others that are read one after the other, it may seem to go back.
    return sum(max(0, count - before.get(space, 0)) for space, count in now.items())


def _cookie() -> int:
    """Return the number of the calling thread's namespace; its inode where the kernel has no other."""
    with suppress(OSError), socket.socket(socket.AF_UNIX) as own:
        return int.from_bytes(own.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), sys.byteorder)
    return netns.inode()
