"""Source ports of flows, held so that no other program uses them meanwhile."""

from __future__ import annotations

import contextlib
import os
import socket

from netlab.errors import ProbeError
from netlab.kernel.netns import NetNs, entered
from netlab.path import filters, opening
from netlab.path.listening import attach
from netlab.path.probes import Protocol
from netlab.path.target import FAMILIES

_KIND = {
    Protocol.UDP: socket.SOCK_DGRAM,
    Protocol.TCP: socket.SOCK_STREAM,
    Protocol.SACK: socket.SOCK_STREAM,
}
_LAST_PORT = 65535


class Ports(contextlib.AbstractContextManager["Ports"]):
    """The source ports of flows from one address, each taken when its flow is first asked for.

    A socket of the probes' own protocol is bound to each and neither sends nor receives. For TCP nobody
    listens on it, so the kernel itself resets the connection that a SYN-ACK offers, as a prober should.

    Parameters
    ----------
    source, scope
        The packed address, and the interface index of a link-local one.
    first
        Flow 0's port, or None for ports that the kernel picks; flow n then has the nth after it.
    """

    def __init__(
        self, protocol: Protocol, source: bytes, scope: int, *, first: int | None, netns: NetNs
    ) -> None:
        self.family = 4 if len(source) == 4 else 6
        self._kind = _KIND[protocol]
        self._address = socket.inet_ntop(FAMILIES[self.family], source)
        self._scope = scope
        self._first = first
        self._netns = netns
        self._by_flow: dict[int, socket.socket] = {}
        self._held = contextlib.ExitStack()

    def __exit__(self, *_: object) -> None:
        self._held.close()

    @property
    def own(self) -> list[int]:
        """The ports that are taken."""
        return [sock.getsockname()[1] for sock in self._by_flow.values()]

    def of(self, flow: int) -> int:
        """Return the source port of a flow; raises as `holder` does."""
        port: int = self.holder(flow).getsockname()[1]
        return port

    def holder(self, flow: int) -> socket.socket:
        """Return the socket that holds the source port of a flow.

        Raises
        ------
        ProbeError
            If the port is taken, or there is none left.
        """
        if flow not in self._by_flow:
            wanted = 0 if self._first is None else self._first + flow
            if flow >= filters.MOST_PORTS or wanted > _LAST_PORT:
                raise _none_left(flow)
            self._by_flow[flow] = self._take(wanted)
        return self._by_flow[flow]

    def _take(self, port: int) -> socket.socket:
        try:
            with entered(self._netns):
                sock = socket.socket(FAMILIES[self.family], self._kind)
            self._held.enter_context(sock)
            if self._kind is socket.SOCK_DGRAM:
                attach(sock, filters.NOTHING)
            sock.bind((self._address, port) if self.family == 4 else (self._address, port, 0, self._scope))
        except OSError as error:
            raise _refused(self._kind, self._address, port, error) from error
        return sock


def _none_left(flow: int) -> ProbeError:
    return ProbeError(
        f"there is no port left for flow {flow}", fix="Give a lower source_port, or fewer flows"
    )


def _refused(kind: socket.SocketKind, address: str, port: int, error: OSError) -> ProbeError:
    protocol = "tcp" if kind is socket.SOCK_STREAM else "udp"
    which = f"source port {port}" if port else "a source port"
    return ProbeError(
        f"cannot use {which} ({protocol}) of {address}: {os.strerror(error.errno or 0)}",
        fix=opening.fix(error, "Choose another source_port, or none"),
    )
