"""A receiving socket that also says when, from how far away, and how much was missed."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
import time
from collections.abc import Iterator
from typing import NamedTuple

from netlab.wire import ip

# From asm-generic/socket.h and linux/in.h; Python's socket module lacks them. Another number on parisc and
# sparc: there the option is refused or unknown, and what it would tell is missing.
_SO_ATTACH_FILTER = 26
_SO_MEMINFO = 55
_SO_TIMESTAMPNS_NEW = 64  # the answer is two 64-bit numbers on every architecture
_IP_RECVTTL = 12

_STAMP = socket.SOL_SOCKET, _SO_TIMESTAMPNS_NEW
_TTLS = {(socket.IPPROTO_IP, socket.IP_TTL), (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT)}
_TIMESPEC = struct.Struct("=qq")
_MEMORY = struct.Struct("=9I")  # SK_MEMINFO_* (linux/sock_diag.h); the last one counts drops
_INT = struct.Struct("=i")
_LARGEST = 65535
_ANCILLARY = 256


class Heard(NamedTuple):
    """A received packet without its IP header, of which `ttl` and IPv4's `identification` are left.

    `stamp_ns` is the kernel's receive time (wall clock), `received_ns` the monotonic time after reading it.
    """

    data: bytes
    address: str
    port: int
    ttl: int | None
    stamp_ns: int | None
    received_ns: int
    identification: int | None = None


class Ear:
    """Reads *sock* without blocking; `dropped` counts what the kernel threw away because the buffer was full.

    Parameters
    ----------
    sock
        A UDP or raw socket; it stays the caller's to close.
    program
        A classic BPF program that says which packets to receive.
    """

    def __init__(self, sock: socket.socket, program: bytes = b"") -> None:
        self.dropped = 0
        self._sock = sock
        self._with_header = sock.family == socket.AF_INET and sock.type == socket.SOCK_RAW
        sock.settimeout(0)
        if program:
            attach(sock, program)
        wanted = [_STAMP]
        if sock.family == socket.AF_INET6:
            wanted.append((socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT))
        elif not self._with_header:
            wanted.append((socket.IPPROTO_IP, _IP_RECVTTL))
        for level, option in wanted:
            with contextlib.suppress(OSError):  # an old kernel: the value is missing, the packet is not
                sock.setsockopt(level, option, 1)

    def fileno(self) -> int:
        """Return the socket's descriptor, for a selector."""
        return self._sock.fileno()

    def narrow(self, program: bytes) -> None:
        """Receive only what the classic BPF *program* accepts from now on."""
        attach(self._sock, program)

    def heard(self) -> Iterator[Heard]:
        """Yield what has arrived; raises DecodeError at a raw packet whose IP header is damaged."""
        while True:
            try:
                data, extras, _, sender = self._sock.recvmsg(_LARGEST, _ANCILLARY)
            except BlockingIOError:
                self._count()
                return
            yield self._packet(data, extras, sender)

    def _count(self) -> None:
        """Ask what was dropped: a packet would tell what was before it, and the last ones drop unseen."""
        with contextlib.suppress(OSError, struct.error):  # before Linux 4.12
            told = self._sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMORY.size)
            self.dropped = _MEMORY.unpack(told)[-1]

    def _packet(self, data: bytes, extras: list[tuple[int, int, bytes]], sender: tuple[str, int]) -> Heard:
        received_ns = time.monotonic_ns()
        ttl = stamp_ns = identification = None
        for level, kind, value in extras:
            which = level, kind
            if which == _STAMP:
                seconds, nanoseconds = _TIMESPEC.unpack(value)
                stamp_ns = seconds * 10**9 + nanoseconds
            elif which in _TTLS:
                ttl = _INT.unpack(value)[0]
        if self._with_header:
            header, data = ip.decode(data)
            ttl = header.ttl
            identification = header.identification if isinstance(header, ip.IPv4) else None
        return Heard(
            data=data,
            address=sender[0],
            port=sender[1],
            ttl=ttl,
            identification=identification,
            stamp_ns=stamp_ns,
            received_ns=received_ns,
        )


class _Program(ctypes.Structure):
    """struct sock_fprog (linux/filter.h)."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def attach(sock: socket.socket, program: bytes) -> None:
    """Let only packets that the classic BPF *program* accepts into *sock*, in place of an earlier one."""
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, bytes(_Program(len(program) // 8, program)))
