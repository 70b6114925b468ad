"""Waiting while this host's own queue is full: a packet that has not left was not lost by the network."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import TypeVar

_PAUSES_S = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064)  # in all a full frame's time at 100 kbit/s

WHAT = "this host's own queue was full: they waited for it, and what others send is dropped there"
"""What the coverage says of probes that were held up."""

Sent = TypeVar("Sent")


class Crowding:
    """Sends again what a queueing discipline of this host has dropped; `held` counts packets that waited.

    The kernel tells of such a drop (ENOBUFS) only a socket that asked for errors, by IP_RECVERR or
    IPV6_RECVERR (raw_send_hdrinc() in net/ipv4/raw.c, udp_send_skb() in net/ipv4/udp.c), and of an echo
    request by an unprivileged IPv6 socket it tells nobody (ping_v6_sendmsg() in net/ipv6/ping.c).
    """

    def __init__(self) -> None:
        self.held = 0

    def sent(self, send: Callable[[], Sent]) -> Sent:
        """Return what *send* returns, called until the queue has room, for 127 ms; raises what it raises."""
        for number, pause_s in enumerate(_PAUSES_S):
            try:
                return send()
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
            self.held += not number
            time.sleep(pause_s)
        return send()
