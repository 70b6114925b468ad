"""What the sequence numbers that a TCP socket has used tell: who connected, and how much has left the host.

A SYN takes one number. The socket that connect(2) sends it from has it among those that were acknowledged
(tcp_snd_una_update() in net/ipv4/tcp_input.c); the one that a listener makes begins behind it
(tcp_create_openreq_child() in net/ipv4/tcp_minisocks.c), and so does one that is restored (TCP_REPAIR).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from netlab.kernel.sockdiag import Masked, Sockets, State

_FIN_IS_LAST = State.FIN_WAIT_1, State.CLOSING, State.LAST_ACK


def connected(sockets: Sockets) -> npt.NDArray[np.bool_]:
    """Tell which sockets have surely connected; those that were accepted have not."""
    told: npt.NDArray[np.bool_] = (_used(sockets) - sockets.bytes_sent == 1).filled(fill_value=False)
    return told


def accepted(sockets: Sockets) -> npt.NDArray[np.bool_]:
    """Tell which sockets were surely made by a listener.

    Its SYN counts as a delivered segment. Restored ones lack that: one that has got its FIN through, or
    segments twice, cannot be told from them.
    """
    names = "delivered", "unacked", "total_retrans", "data_segs_out"
    delivered, unacked, again, data = (sockets.info(name).astype(np.int64) for name in names)
    by_listener = (_used(sockets) == sockets.bytes_sent) & (delivered + unacked + again > data)
    told: npt.NDArray[np.bool_] = by_listener.filled(fill_value=False)
    return told


def bytes_sent(sockets: Sockets, outgoing: npt.NDArray[np.bool_]) -> Masked:
    """Return how many payload bytes have left the host, each once.

    The kernel counts what a firewall of this host drops each time that it tries.

    Parameters
    ----------
    sockets
        Sockets of TCP; of others it is masked.
    outgoing
        Which of them have connected.
    """
    tried, used = sockets.bytes_sent, _used(sockets)
    syn = outgoing & (tried > used)  # what was restored is only taken for one that has connected
    sent: Masked = np.ma.maximum(np.ma.minimum(tried, used) - syn, 0)
    return sent


def _used(sockets: Sockets) -> Masked:
    """Return how many sequence numbers have left: the payload's, and the SYN's of who has connected."""
    state, waiting = sockets.tcp_info["state"], sockets.tcp_info["notsent_bytes"].astype(np.int64)
    fin = (state == State.FIN_WAIT_2) | (np.isin(state, _FIN_IS_LAST) & (waiting == 0))
    behind = sockets.records["wqueue"].astype(np.int64) - waiting  # not acknowledged
    used: Masked = sockets.info("bytes_acked").astype(np.int64) + behind - fin
    return used
