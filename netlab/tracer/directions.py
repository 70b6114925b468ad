"""Who opened a connection, as far as its ports tell."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from netlab.kernel import spaces
from netlab.kernel.keys import chosen
from netlab.kernel.sockdiag import Sockets, State
from netlab.tracer.layout import Direction
from netlab.tracer.records import Attempts

NAMES = ["incoming", "outgoing", "unknown", None]
_INCOMING, _OUTGOING, _UNKNOWN, NO_PEER = range(4)
_READ_EVERY_S = 60.0


def of(sockets: Sockets, ephemeral: range) -> npt.NDArray[np.int8]:
    """Tell who opened each connection from its local port.

    connect(2) never takes a port that a socket was bound to (__inet_hash_connect() in
    net/ipv4/inet_hashtables.c): a local port that also listens was accepted on, and another one from the
    ephemeral range was taken by connect(2). The rest was bound first, or its listener has gone.
    """
    records, state = sockets.records, sockets.state
    peerless = (state == State.LISTEN) | (state == State.CLOSE)
    port = sockets.protocol.astype(np.uint32) << 16 | records["local_port"]
    listens = np.isin(port, port[peerless])
    local = records["local_port"]
    taken = (local >= ephemeral.start) & (local < ephemeral.stop)
    conditions = [peerless, state == State.SYN_SENT, listens | (state == State.SYN_RECV), taken]
    verdicts = [np.int8(code) for code in (NO_PEER, _OUTGOING, _INCOMING, _OUTGOING)]
    return np.select(conditions, verdicts, np.int8(_UNKNOWN))


def of_udp(port: npt.NDArray[np.uint16], ephemeral: range) -> npt.NDArray[np.uint8]:
    """Tell who begins: a port that the kernel chose is a client's, one that was asked for is a server's."""
    chosen_port = (port >= ephemeral.start) & (port < ephemeral.stop)
    return np.where(chosen_port, np.uint8(Direction.OUTGOING), np.uint8(Direction.INCOMING))


class Ports:
    """Tells the direction of UDP flows whose first packet may have passed unseen."""

    def __init__(self) -> None:
        self._ephemeral: dict[int, range] = {}  # by the namespace's inode; of those that are gone, too
        self._expire = 0.0

    def settle(self, flows: Attempts) -> None:
        """Tell it from the ports; it is unknown where these do not tell, or the namespace cannot be asked.

        With two ports that the kernel chose, a connected socket is a client, and one that hears of a peer
        first is a server.
        """
        older = np.flatnonzero(flows["complete"] == 0)
        inodes = set(flows["netns"][older].tolist())
        self._read(inodes)
        for inode in inodes:
            mine = older[flows["netns"][older] == inode]
            ephemeral, theirs = self._ephemeral[inode], chosen(flows, mine)
            here, there = (of_udp(theirs[name], ephemeral) for name in ("local_port", "remote_port"))
            heard = theirs["direction"] == Direction.INCOMING
            untold = (here == Direction.OUTGOING) & (there == Direction.OUTGOING)
            untold &= theirs["last_state"] != State.ESTABLISHED
            told = np.where(untold, np.where(heard, Direction.INCOMING, Direction.UNKNOWN), here)
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
