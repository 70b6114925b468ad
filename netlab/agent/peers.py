"""Who is at the other end of the socket, and requests that never come to an end."""

from __future__ import annotations

import array
import asyncio
import grp
import logging
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from starlette.types import Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

from netlab.agent.problems import RefusedError

HEADERS_WITHIN_S = 10.0
_SO_PEERGROUPS = 59  # include/uapi/asm-generic/socket.h
_MOST_REFUSED = 64  # connections that are told in words that there are too many
_MOST_BYTES = 1024  # of what Python's getsockopt() returns
_log = logging.getLogger("netlab.agent")


@dataclass(frozen=True, slots=True)
class Peer:
    """A process that has connected, as the kernel tells (unix(7): SO_PEERCRED)."""

    pid: int
    uid: int
    gid: int
    groups: frozenset[int]

    @classmethod
    def of(cls, connection: socket.socket) -> Peer:
        """Return who opened *connection*, a unix socket."""
        pid, uid, gid = struct.unpack(
            "=iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        )
        try:
            listed = array.array("I", connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MOST_BYTES))
        except OSError:  # ERANGE: more groups than fit; then it is the first one that counts
            listed = array.array("I")
        return cls(pid, uid, gid, frozenset([gid, *listed]))

    def may(self, group: int | None) -> bool:
        """Tell whether the agent serves it: root does not need to be in the *group*."""
        return self.uid == 0 or (group is not None and group in self.groups)


def members_of(group: int | None) -> Callable[[Scope], RefusedError | None]:
    """Return what tells why a peer is refused: root and members of *group* are not."""

    def admit(scope: Scope) -> RefusedError | None:
        peer: Peer | None = scope.get("state", {}).get("peer")
        if peer is not None and peer.may(group):
            return None
        return RefusedError(
            HTTPStatus.FORBIDDEN,
            f"user {peer.uid if peer else 'unknown'} is not in the group that this agent serves",
            fix="sudo usermod --append --groups GROUP USER, then log in again",
        )

    return admit


class PeerProtocol(H11Protocol):
    """HTTP/1.1 that knows its peer on a unix socket, and does not wait for ever for a request's headers."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Note who has connected."""
        super().connection_made(transport)
        if len(self.connections) > (self.limit_concurrency or _MOST_REFUSED) + _MOST_REFUSED:
            transport.abort()  # descriptors would run out for those that are served, and for captures
            return
        connection = transport.get_extra_info("socket")
        if connection is not None and connection.family == socket.AF_UNIX:
            peer = Peer.of(connection)
            self.app_state = {**self.app_state, "peer": peer}
            _log.info("connection from pid %d, uid %d", peer.pid, peer.uid)
        self._bound_headers()

    def data_received(self, data: bytes) -> None:
        """Take what came; the rest of the headers has the time that is left."""
        super().data_received(data)
        self._bound_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._forget_timer()
        super().connection_lost(exc)

    def _bound_headers(self) -> None:
        if self._is_serving():
            self._forget_timer()
        elif self._late is None:
            self._late = self.loop.call_later(HEADERS_WITHIN_S, self._give_up)

    def _is_serving(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _forget_timer(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _give_up(self) -> None:
        self._late = None
        if not self._is_serving():
            self.transport.close()


def group_id(name: str) -> int:
    """Return the number of the group of this name; KeyError if there is none."""
    return grp.getgrnam(name).gr_gid
