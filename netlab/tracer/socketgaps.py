"""What the socket tables cannot tell of the sockets in them."""

from __future__ import annotations

import socket
from typing import Any

import numpy as np
import numpy.typing as npt

from netlab.frames import Gap, Missing
from netlab.kernel import netlink
from netlab.kernel.sockdiag import Sockets

_WHO = "pid, nspid, process, cmdline, cgroup, container"
_COLUMNS = (
    "opened_at, duration_s, connect_ms, last_packet_at, assured, receive_drops, error, reason, remote_name, "
    "protocol_stack"
)
_COLUMNS_DETAIL = "not in the socket tables; netlab.capture() sees connections begin and end"
_WAYS = Missing("via_*", Gap.UNAVAILABLE, None, "netlab.with_gateway() looks them up")
_CLOSED = Missing(
    "connections that failed or closed before", Gap.UNSEEN, None, "netlab.capture() traces them"
)
_DIRECTION_DETAIL = (
    "told from the ports: incoming where a socket listens on the local port, outgoing where it is ephemeral"
)
_UNOWNED_DETAIL = "no process has a descriptor: not accepted yet, closed by its process, or in TIME-WAIT"
UNTOLD_MARK = "the kernel tells marks only with CAP_NET_ADMIN, and none of a socket in TIME-WAIT"
UNCOUNTED_RTOS = "this kernel does not count retransmission timeouts; Linux 6.7 and later do"
_UDP_DETAIL = "the kernel does not count per UDP socket; netlab.capture() does"


def of(
    sockets: Sockets, pid: np.ma.MaskedArray[Any, Any], guessed: npt.NDArray[np.bool_], unreadable: int
) -> list[Missing]:
    """Say what the tables do not tell of these *sockets*, as far as there are some that it is missing of.

    Parameters
    ----------
    sockets
        What the tables told.
    pid
        Whose each socket is, masked where that is not known.
    guessed
        Which sockets have a direction that their ports alone tell.
    unreadable
        How many processes could not be asked for their sockets.
    """
    gaps = [Missing(_COLUMNS, Gap.UNAVAILABLE, None, _COLUMNS_DETAIL), _WAYS, _CLOSED]
    gaps += unowned(sockets, pid, unreadable)
    for what, kind, where, detail in (
        ("direction", Gap.APPROXIMATE, guessed, _DIRECTION_DETAIL),
        (f"{_WHO}, uid, inode", Gap.UNAVAILABLE, ~sockets.owned, _UNOWNED_DETAIL),
        ("bytes, packets", Gap.UNAVAILABLE, sockets.protocol == socket.IPPROTO_UDP, _UDP_DETAIL),
        ("rtos", Gap.UNAVAILABLE, sockets.lacks("total_rto"), UNCOUNTED_RTOS),
        ("mark", Gap.UNAVAILABLE, np.ma.getmaskarray(sockets.mark), UNTOLD_MARK),
    ):
        count = int(where.sum())
        if count:
            gaps.append(Missing(what, kind, count, detail))
    return [*gaps, netlink.INTERRUPTED] if sockets.interrupted else gaps


def unowned(sockets: Sockets, pid: np.ma.MaskedArray[Any, Any], unreadable: int) -> list[Missing]:
    """Say of how many of these *sockets* some process is the owner, and not which; see `of`."""
    count = int((sockets.owned & np.ma.getmaskarray(pid)).sum())
    return [Missing(_WHO, Gap.UNAVAILABLE, count, _owner_detail(unreadable))] if count else []


def _owner_detail(unreadable: int) -> str:
    if unreadable:
        return f"processes that could not be looked at: {unreadable}; root with CAP_SYS_PTRACE may"
    return "no process in this /proc holds the socket: it is the kernel's, or of another pid namespace"
