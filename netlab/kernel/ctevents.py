"""New conntrack entries as they are made, so that flows which end at once are not missed.

An entry can be gone before a dump looks: a reset in answer to a SYN deletes it (tcp_in_window and
nf_conntrack_tcp_packet, net/netfilter/nf_conntrack_proto_tcp.c). The kernel tells listeners of each entry
when its first packet leaves the host, with both tuples, after translation.
"""

from __future__ import annotations

import errno
import socket
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from netlab.closing import Closes
from netlab.errors import CaptureError
from netlab.frames import Gap, Missing
from netlab.kernel import capabilities, ctframe, netlink, netns as namespaces

_NETFILTER = 12
_NEW = 1 << 0  # NFNLGRP_CONNTRACK_NEW as a bit, include/uapi/linux/netfilter/nfnetlink_compat.h
_BUFFER_BYTES = 32 << 20  # some 40,000 entries: the kernel charges a message far more than its length
_SO_RCVBUFFORCE = 33
_LARGEST = 1 << 16

_NO_COUNTERS = Missing(
    "packets, bytes, reply_packets, reply_bytes", Gap.UNAVAILABLE, None, "a new entry has counted nothing yet"
)
_EVENTS_SYSCTL = Path("/proc/sys/net/netfilter/nf_conntrack_events")
_SILENT = Missing(
    "entries",
    Gap.UNAVAILABLE,
    None,
    "net.netfilter.nf_conntrack_events was 0: the kernel tells of no entry until it is 1",
)
_OVERFLOW = Missing(
    "entries",
    Gap.LOST,
    None,
    "they were made faster than the socket's buffer took them; how many is not known",
)


def _events_are_off() -> bool:
    """Tell whether the calling thread's namespace keeps its conntrack events to itself."""
    try:
        return _EVENTS_SYSCTL.read_text().strip() == "0"
    except OSError:  # the module is not loaded yet, or has no such setting: its default is to tell
        return False


class ConntrackEvents(Closes):
    """Listens for new conntrack entries in one network namespace; made by `netlab.conntrack_events()`."""

    def __init__(self, netns: namespaces.NetNs) -> None:
        capabilities.require("CAP_NET_ADMIN", doing="listen for conntrack entries")
        with namespaces.entered(netns):
            self._inode = namespaces.inode()
            self._silent = _events_are_off()
            self._kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETFILTER)
        self._blocks: list[bytes] = []
        self._overflows = 0
        try:
            self._kernel.settimeout(0)
            self._kernel.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
            self._kernel.bind((0, _NEW))
        except BaseException:
            self._kernel.close()
            raise

    def entries(self) -> pd.DataFrame:
        """Return every entry made since the start, in order, as it was when it was made.

        Returns
        -------
        DataFrame
            Columns as in `netlab.schemas.CONNTRACK`; counters are not known yet and missing.
        """
        self._receive()
        words = np.frombuffer(b"".join(self._blocks), np.uint32)
        frame = ctframe.frame_of(netlink.Dump.of(words), self._inode)
        frame.attrs["coverage"] = [asdict(gap) for gap in self._gaps(len(frame))]
        return frame

    def _gaps(self, entries: int) -> list[Missing]:
        gaps = [_NO_COUNTERS] if entries else []
        if self._silent:
            gaps.append(_SILENT)
        return [*gaps, _OVERFLOW] if self._overflows else gaps

    def _receive(self) -> None:
        if self._kernel.fileno() < 0:
            return
        while True:
            try:
                self._blocks.append(self._kernel.recv(_LARGEST))
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise CaptureError(f"conntrack entries could not be read: {error.strerror}") from error
                self._overflows += 1

    def close(self) -> None:
        """Stop listening and keep what was heard; safe to call again."""
        self._receive()
        self._kernel.close()


def conntrack_events(*, netns: namespaces.NetNs = None) -> ConntrackEvents:
    """Listen for new conntrack entries in a network namespace, from now until the block is left.

    Parameters
    ----------
    netns
        A name under /run/netns, a path, a process id, or None for the calling thread's namespace.

    Returns
    -------
    ConntrackEvents
        Listening already; `entries()` returns what was heard as a frame.

    Raises
    ------
    BadInput
        If there is no such namespace.
    CapabilityError
        Without CAP_NET_ADMIN.

    Notes
    -----
    The multicast group NFNLGRP_CONNTRACK_NEW of ctnetlink (net/netfilter/nf_conntrack_netlink.c). Only
    namespaces that have a conntrack user, such as a NAT rule, make entries.

    Examples
    --------
    >>> import netlab
    >>> with netlab.conntrack_events() as events:
    ...     pass
    >>> events.entries().columns[:3].tolist()
    ['protocol', 'family', 'src']
    """
    return ConntrackEvents(netns)
