"""When a UDP flow is over: the kernel's own timeouts, as conntrack has them in each network namespace."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from netlab.kernel import spaces
from netlab.tracer.records import Attempts

_SYSCTLS = Path("/proc/sys/net/netfilter")
_READ_EVERY_S = 60.0
_NS = 1_000_000_000
# include/net/netns/conntrack.h and udp_timeouts in net/netfilter/nf_conntrack_proto_udp.c
_UNANSWERED_S, _ANSWERED_S = 30, 120


class UdpTimeouts:
    """How long a flow may be silent: in its namespace, answered or not."""

    def __init__(self) -> None:
        self._by_inode: dict[int, tuple[int, int]] = {}
        self._expire = 0.0

    def of(self, flows: Attempts) -> npt.NDArray[np.int64]:
        """Return each flow's timeout in nanoseconds."""
        inodes, places = np.unique(flows["netns"], return_inverse=True)
        self._read({int(inode) for inode in inodes})
        seconds = np.array([self._by_inode[int(inode)] for inode in inodes], np.int64)
        answered = flows["established_ns"] != 0
        timeouts: npt.NDArray[np.int64] = np.where(answered, seconds[places, 1], seconds[places, 0]) * _NS
        return timeouts

    def _read(self, inodes: set[int]) -> None:
        now = time.monotonic()
        if now < self._expire and inodes <= self._by_inode.keys():
            return
        answers = spaces.ask(spaces.ALL, _timeouts, only=inodes).by_inode
        self._by_inode = dict.fromkeys(inodes, (_UNANSWERED_S, _ANSWERED_S)) | answers
        self._expire = now + _READ_EVERY_S


def _timeouts() -> tuple[int, int]:
    """Return the timeouts of the calling thread's namespace; the kernel's defaults without conntrack."""
    try:
        unanswered = int((_SYSCTLS / "nf_conntrack_udp_timeout").read_text())
        return unanswered, int((_SYSCTLS / "nf_conntrack_udp_timeout_stream").read_text())
    except OSError:
        return _UNANSWERED_S, _ANSWERED_S
