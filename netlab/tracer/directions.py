"""Who opened a connection, as far as its ports tell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from netlab.kernel.sockdiag import Sockets, State

NAMES = ["incoming", "outgoing", "unknown", None]
_INCOMING, _OUTGOING, _UNKNOWN, NO_PEER = range(4)


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


def ephemeral_ports() -> range:
    """Return the ports that connect(2) takes from in the calling thread's namespace; none if not readable."""
    try:
        low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    except OSError:
        return range(0)
    return range(low, high + 1)
