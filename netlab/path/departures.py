"""A sending socket that also says when each packet left, by the kernel's clock."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from typing import Any

from netlab.path.crowding import Crowding
from netlab.path.target import Sockaddr

# From asm-generic/socket.h and linux/net_tstamp.h; Python's socket module lacks them.
_SO_TIMESTAMPING_NEW = 65  # the answer is three pairs of 64-bit numbers on every architecture
_TX_SOFTWARE, _SOFTWARE, _OPT_ID, _OPT_TSONLY = 1 << 1, 1 << 4, 1 << 7, 1 << 11
_WANTED = _TX_SOFTWARE | _SOFTWARE | _OPT_ID | _OPT_TSONLY
_TIMES = struct.Struct("=6q")
_EXTENDED_ERROR = struct.Struct(
    "=IBBBBII"
)  # struct sock_extended_err (linux/errqueue.h); `ee_data` is the number
_ORIGIN_TIMESTAMPING = 4
_RECVERR_OF = {socket.AF_INET: (socket.IPPROTO_IP, 11), socket.AF_INET6: (socket.IPPROTO_IPV6, 25)}
_RECVERR = set(_RECVERR_OF.values())
_ANCILLARY = 256
_QUEUE = int(socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)
_MOST_WAITING = 1024  # packets without a time; where none ever comes, they must not pile up


class Sender:
    """Sends through *sock*, which stays the caller's to close, and collects the kernel's transmit timestamps.

    The kernel notes when it hands the packet to the device (Documentation/networking/timestamping.rst), and
    the note waits in the socket's error queue: at once, unless a queueing discipline holds the packet back.
    Where the kernel or the device notes nothing, there are no stamps. What a full queue of this host drops
    is sent again; `crowding` counts that.

    Parameters
    ----------
    sock
        A raw socket with the header included.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.crowding = Crowding()
        self._sock = sock
        sock.setsockopt(*_RECVERR_OF[sock.family], 1)  # else a full queue drops packets without a word
        self._number = 0
        self._waiting: dict[int, Any] = {}
        self._stamped: list[tuple[Any, int]] = []
        self._restart()

    def send(self, packet: bytes, to: Sockaddr, what: Any) -> int:
        """Send; return the wall-clock time just before. *what* is what `stamps` will call this packet."""
        now = self.crowding.sent(lambda: self._send(packet, to))
        self._waiting[self._number] = what
        self._number += 1
        if len(self._waiting) > _MOST_WAITING:
            del self._waiting[next(iter(self._waiting))]
        return now

    def _send(self, packet: bytes, to: Sockaddr) -> int:
        now = time.time_ns()
        try:
            self._sock.sendto(packet, to)
        except OSError:
            self._restart()  # whether the kernel has counted this packet is not known
            raise
        return now

    def stamps(self) -> list[tuple[Any, int]]:
        """Return which packets left when (wall clock): those whose time has become known since last asked."""
        self._collect()
        stamped, self._stamped = self._stamped, []
        return stamped

    def _collect(self) -> None:
        while self._waiting:
            try:
                _, extras, _, _ = self._sock.recvmsg(0, _ANCILLARY, _QUEUE)
            except BlockingIOError:
                return
            number = stamp_ns = None
            for level, kind, value in extras:
                if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPING_NEW):
                    seconds, nanoseconds, *_ = _TIMES.unpack(value)
                    stamp_ns = seconds * 10**9 + nanoseconds
                elif (level, kind) in _RECVERR:
                    fields = _EXTENDED_ERROR.unpack_from(value)
                    number = fields[-1] if fields[1] == _ORIGIN_TIMESTAMPING else None
            if number in self._waiting and stamp_ns:
                self._stamped.append((self._waiting.pop(number), stamp_ns))

    def _restart(self) -> None:
        """Have the kernel count packets from 0; setting the option anew is what does it."""
        with contextlib.suppress(OSError):  # an old kernel: there will be no stamps
            self._sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPING_NEW, 0)
            self._collect()
            self._sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPING_NEW, _WANTED)
        self._waiting.clear()
        self._number = 0
