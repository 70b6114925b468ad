"""The sockets of a network namespace that take from anybody: those that listen, and UDP's without a peer.

Source: net/ipv4/tcp_diag.c, which tells of a listening socket how many wait for accept(2) and how many may,
and sock_diag_put_meminfo() in net/core/sock.c. No privilege is needed.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from netlab.kernel import keys, sockdiag
from netlab.kernel.sockdiag import Sockets, State

_SKMEMINFO = 7  # INET_DIAG_SKMEMINFO
MEMORY = np.dtype(  # enum of SK_MEMINFO_* in include/uapi/linux/sock_diag.h; bytes but for the last one
    [
        (name, "u4")
        for name in ("rmem", "rcvbuf", "wmem", "sndbuf", "forward", "queued", "options", "backlog", "drops")
    ]
)
_STATES = {socket.IPPROTO_TCP: State.LISTEN, socket.IPPROTO_UDP: State.CLOSE}

Memory: TypeAlias = npt.NDArray[np.void]


@dataclass(frozen=True, slots=True)
class Listeners:
    """Sockets without a peer, one a row, and what the kernel says of their memory (dtype `MEMORY`)."""

    sockets: Sockets
    memory: Memory

    def where(self, keep: npt.NDArray[Any]) -> Listeners:
        """Return those that *keep* (flags or places) selects."""
        return Listeners(self.sockets.where(keep), keys.chosen(self.memory, keep))


def listeners(protocols: Iterable[int]) -> Listeners:
    """Return those of the calling thread's network namespace, of TCP, UDP or both by number."""
    families = socket.AF_INET, socket.AF_INET6
    found = joined([_listed(family, protocol) for protocol in protocols for family in families])
    return found.where(sockdiag.latest(found.sockets))


def joined(parts: list[Listeners]) -> Listeners:
    """Put several tables below each other."""
    return Listeners(
        sockdiag.joined(part.sockets for part in parts),
        keys.joined((part.memory for part in parts), MEMORY),
    )


def _listed(family: int, protocol: int) -> Listeners:
    dump = sockdiag.dump(family, protocol, 1 << _STATES[protocol], _SKMEMINFO)
    memory = np.zeros(len(dump), MEMORY)
    for group in dump.groups(sockdiag.MESSAGE.itemsize):
        told = group.prefix((_SKMEMINFO,), MEMORY)
        if told is not None:
            keys.put(told, into=memory, at=group.rows)
    return Listeners(sockdiag.table_of(protocol, dump), memory)
