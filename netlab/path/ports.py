"""Source ports of flows, held so that no other program uses them meanwhile."""

from __future__ import annotations

import contextlib
import errno
import os
import socket

from netlab.errors import ProbeError
from netlab.kernel.netns import NetNs, entered
from netlab.path import filters
from netlab.path.listening import attach
from netlab.path.probes import Protocol, Vary
from netlab.path.target import FAMILIES, Target

_KIND = {Protocol.UDP: socket.SOCK_DGRAM, Protocol.TCP: socket.SOCK_STREAM}
_LAST = 65535


class Ports(contextlib.AbstractContextManager["Ports"]):
    """The ports of the flows to one target, each source port taken when its flow is first asked for.

    A socket of the probes' own protocol is bound to each and neither sends nor receives. For TCP nobody
    listens on it, so the kernel itself resets the connection that a SYN-ACK offers, as a prober should.

    Parameters
    ----------
    first
        Flow 0's source port, or None for ports that the kernel picks; flow n then has the nth after it.
    vary
        Whether flows differ in their source port or in their destination port, counted up from *port*.
    """

    def __init__(
        self,
        protocol: Protocol,
        target: Target,
        source: bytes,
        *,
        port: int,
        first: int | None,
        vary: Vary,
        netns: NetNs,
    ) -> None:
        self.remote = range(port, port + 1) if vary is Vary.SOURCE_PORT else range(port, _LAST + 1)
        self.own: list[int] = []
        self._kind = _KIND[protocol]
        self._target = target
        self._source = source
        self._first = first
        self._vary = vary
        self._netns = netns
        self._held = contextlib.ExitStack()

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def of(self, flow: int) -> tuple[int, int]:
        """Return the source and the destination port of a flow that was not asked for before.

        Raises
        ------
        ProbeError
            If the port is taken, or there is none left.
        """
        if self._vary is Vary.DESTINATION_PORT:
            if flow >= len(self.remote):
                raise _none_left(flow)
            return self.own[0] if self.own else self._take(self._first), self.remote[flow]
        wanted = None if self._first is None else self._first + flow
        if flow >= filters.MOST_PORTS or (wanted or 0) > _LAST:
            raise _none_left(flow)
        return self._take(wanted), self.remote[0]

    def _take(self, port: int | None) -> int:
        family = FAMILIES[self._target.family]
        address = socket.inet_ntop(family, self._source)
        try:
            with entered(self._netns):
                sock = socket.socket(family, self._kind)
            self._held.enter_context(sock)
            attach(sock, filters.NOTHING)
            sock.bind(
                (address, port or 0)
                if self._target.family == 4
                else (address, port or 0, 0, self._target.scope)
            )
        except OSError as error:
            raise _refused(self._kind, address, port, error) from error
        taken: int = sock.getsockname()[1]
        self.own.append(taken)
        return taken


def _none_left(flow: int) -> ProbeError:
    return ProbeError(
        f"there is no port left for flow {flow}", fix="Give a lower port or source_port, or fewer flows"
    )


def _refused(kind: socket.SocketKind, address: str, port: int | None, error: OSError) -> ProbeError:
    protocol = "tcp" if kind is socket.SOCK_STREAM else "udp"
    which = "a source port" if port is None else f"source port {port}"
    fix = (
        "Raise the number of open files: ulimit -n"
        if error.errno in {errno.EMFILE, errno.ENFILE}
        else "Choose another source_port, or none"
    )
    return ProbeError(
        f"cannot use {which} ({protocol}) of {address}: {os.strerror(error.errno or 0)}", fix=fix
    )
