"""ICMP errors about a socket's own packets, from its error queue: no privilege is needed.

IP_RECVERR and IPV6_RECVERR, ip_icmp_error() in net/ipv4/ip_sockglue.c and ipv6_icmp_error() in
net/ipv6/datagram.c. The kernel finds the socket by the ends of the quoted packet and queues what was quoted
of it: for TCP and ICMP from the transport header on, for UDP only what is behind it. Since Linux 5.9 it says
where in that RFC 4884's extensions begin, and so which labels the packet had (ip_icmp_error_rfc4884() in
net/ipv4/icmp.c). The quoted IP header it keeps: how the packet arrived there is not known.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from netlab.errors import DecodeError
from netlab.path.listening import Ear, Heard
from netlab.wire import extensions, icmp
from netlab.wire.extensions import Label

# linux/in.h, linux/in6.h; Python's socket module lacks them
_IP_RECVERR, _IPV6_RECVERR = 11, 25
_IP_RECVERR_RFC4884, _IPV6_RECVERR_RFC4884 = 26, 31
_LARGEST = 65535
_ANCILLARY = 256

# struct sock_extended_err with struct sock_ee_data_rfc4884 (linux/errqueue.h); the offender follows.
_EXTENDED = struct.Struct("=IBBBxIHBx")
_ICMP_ORIGINS = {2, 3}  # SO_EE_ORIGIN_ICMP, _ICMP6; others are this host's own
_OFFENDER = {4: struct.Struct("=4x4s"), 6: struct.Struct("=8x16s")}  # struct sockaddr_in, sockaddr_in6


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """An ICMP error: who says what about the packet that starts, from its transport on, with `quoted`.

    `labels` are those that the packet had, the outermost first.
    """

    error: icmp.Error
    quoted: bytes
    labels: tuple[Label, ...]
    address: str
    heard: Heard


class ErrorQueue(Ear):
    """Reads the ICMP errors about what *sock* sends as well as what it receives, without blocking."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._family = 4 if sock.family == socket.AF_INET else 6
        level, option, more = (
            (socket.IPPROTO_IP, _IP_RECVERR, _IP_RECVERR_RFC4884)
            if self._family == 4
            else (socket.IPPROTO_IPV6, _IPV6_RECVERR, _IPV6_RECVERR_RFC4884)
        )
        self._kind = level, option
        sock.setsockopt(level, option, 1)
        with suppress(OSError):  # before Linux 5.9: there are no labels
            sock.setsockopt(level, more, 1)

    def errors(self) -> Iterator[Reported]:
        """Yield the errors that have arrived, which takes them off the socket: it can send again."""
        while True:
            try:
                data, extras, _, sender = self._sock.recvmsg(_LARGEST, _ANCILLARY, socket.MSG_ERRQUEUE)
            except BlockingIOError:
                return
            heard = self._packet(data, extras, sender)
            for level, kind, value in extras:
                if (level, kind) == self._kind and (error := self._error(value)) is not None:
                    yield Reported(
                        error=error,
                        quoted=data,
                        labels=_labels(value, data),
                        address=self._offender(value[_EXTENDED.size :]),
                        heard=heard,
                    )

    def heard(self) -> Iterator[Heard]:
        """Yield what has arrived but errors; an error that comes meanwhile stays in its queue."""
        with suppress(OSError):  # the socket says so once, and a selector goes on saying that it is ready
            yield from super().heard()

    def _error(self, value: bytes) -> icmp.Error | None:
        _, origin, kind, code, *_ = _EXTENDED.unpack_from(value)
        if origin not in _ICMP_ORIGINS:
            return None
        return icmp.Message(family=self._family, type=kind, code=code, rest=b"", body=b"").error

    def _offender(self, value: bytes) -> str:
        (packed,) = _OFFENDER[self._family].unpack_from(value)
        return socket.inet_ntop(self._sock.family, packed)


def _labels(value: bytes, data: bytes) -> tuple[Label, ...]:
    """Return the labels behind the quote in *data*; damaged extensions have none."""
    *_, begin, _ = _EXTENDED.unpack_from(value)
    try:
        return tuple(extensions.decode_labels(extensions.objects(data[begin:]))) if begin else ()
    except DecodeError:
        return ()
