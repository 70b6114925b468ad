"""Who opened a connection, as its sequence numbers tell, or else its ports."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from netlab.kernel import sequences, spaces
from netlab.kernel.keys import chosen
from netlab.kernel.sockdiag import Sockets, State
from netlab.tracer.layout import Direction
from netlab.tracer.records import Attempts

NO_PEER = len(Direction)  # of a socket that is not connected
NAMES = [*(direction.name.lower() for direction in Direction), None]
_READ_EVERY_S = 60.0

Ways: TypeAlias = npt.NDArray[np.uint8]
Flags: TypeAlias = npt.NDArray[np.bool_]


def of(sockets: Sockets, ephemeral: range) -> Ways:
    """Tell who opened each connection: a `Direction`, or NO_PEER."""
    local, state = sockets.records["local_port"], sockets.state
    peerless = (state == State.LISTEN) | (state == State.CLOSE)
    port = sockets.protocol.astype(np.uint32) << 16 | local
    told = _by_port(local, np.isin(port, port[peerless]), ephemeral)
    conditions = [peerless, _has_connected(sockets), _was_accepted(sockets)]
    verdicts = [np.uint8(way) for way in (NO_PEER, Direction.OUTGOING, Direction.INCOMING)]
    return np.select(conditions, verdicts, told)


def proven(sockets: Sockets) -> Flags:
    """Tell of which sockets the direction is told by more than their ports."""
    return _has_connected(sockets) | _was_accepted(sockets)


def _has_connected(sockets: Sockets) -> Flags:
    told: Flags = (sockets.state == State.SYN_SENT) | sequences.connected(sockets)
    return told


def _was_accepted(sockets: Sockets) -> Flags:
    told: Flags = (sockets.state == State.SYN_RECV) | sequences.accepted(sockets)
    return told


def _by_port(local: npt.NDArray[np.uint16], listens: npt.NDArray[np.bool_], ephemeral: range) -> Ways:
    """Tell who began what goes by a local port, at which somebody *listens* or not.

    connect(2) never takes a port that a socket was bound to (__inet_hash_connect() in
    net/ipv4/inet_hashtables.c): a local port that also listens was accepted on, and another one from the
    ephemeral range was taken by connect(2). The rest was bound first, or its listener has gone.
    """
    verdicts = [np.uint8(Direction.INCOMING), np.uint8(Direction.OUTGOING)]
    return np.select([listens, _is_chosen(local, ephemeral)], verdicts, np.uint8(Direction.UNKNOWN))


def _is_chosen(port: npt.NDArray[np.uint16], ephemeral: range) -> npt.NDArray[np.bool_]:
    """Tell which ports the kernel chose."""
    return (port >= ephemeral.start) & (port < ephemeral.stop)


class Ports:
    """Tells the direction of UDP flows whose first packet may have passed unseen."""

    def __init__(self) -> None:
        self._ephemeral: dict[int, range] = {}  # by the namespace's inode; of those that are gone, too
        self._expire = 0.0

    def settle(self, flows: Attempts) -> None:
        """Tell it from the ports; it is unknown where these do not tell, or the namespace cannot be asked.

        A socket that is not connected listens at a port that was asked for. At one that the kernel chose it
        is a client, unless its peer's was chosen, too: then it is a server if it heard of the peer first.
        """
        older = np.flatnonzero(flows["complete"] == 0)
        inodes = set(flows["netns"][older].tolist())
        self._read(inodes)
        for inode in inodes:
            mine = older[flows["netns"][older] == inode]
            ephemeral, theirs = self._ephemeral[inode], chosen(flows, mine)
            here, there = (_is_chosen(theirs[name], ephemeral) for name in ("local_port", "remote_port"))
            connected = theirs["last_state"] == State.ESTABLISHED
            heard = theirs["direction"] == Direction.INCOMING
            told = _by_port(theirs["local_port"], ~connected & (~here | (there & heard)), ephemeral)
            told[~connected & here & there & ~heard] = Direction.UNKNOWN
            flows["direction"][mine] = told if ephemeral else Direction.UNKNOWN

    def _read(self, inodes: set[int]) -> None:
        now = time.monotonic()
        if not inodes or (now < self._expire and inodes <= self._ephemeral.keys()):
            return
        self._ephemeral |= dict.fromkeys(inodes - self._ephemeral.keys(), range(0))
        self._ephemeral |= spaces.ask(spaces.ALL, ephemeral_ports, only=inodes).by_inode
        self._expire = now + _READ_EVERY_S


def ephemeral_ports() -> range:
    """Return the ports that connect(2) takes from in the calling thread's namespace; none if not readable."""
    try:
        low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    except OSError:
        return range(0)
    return range(low, high + 1)
