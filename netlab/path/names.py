"""Reverse names of addresses, without ever waiting long for a resolver.

The resolver is often part of the outage that is being traced.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Iterable

WAIT_S = 2.0
_LONGEST = 255  # characters in a domain name (RFC 1035 section 2.3.4); a hosts file may say anything


def names_of(addresses: Iterable[str], *, wait_s: float = WAIT_S) -> tuple[dict[str, str], int]:
    """Look up the names of *addresses* at once, for *wait_s* seconds in all.

    Returns the names by address, and how many look-ups had not ended by then. Those go on in daemon
    threads, since getnameinfo(3) cannot be cancelled; they keep neither the caller nor the exit waiting.
    """
    wanted = set(addresses)
    answers: queue.SimpleQueue[tuple[str, str | None]] = queue.SimpleQueue()
    for address in wanted:
        threading.Thread(target=lambda a=address: answers.put((a, _name(a))), daemon=True).start()
    names: dict[str, str] = {}
    deadline = time.monotonic() + wait_s
    unfinished = len(wanted)
    with contextlib.suppress(queue.Empty):
        while unfinished:
            address, name = answers.get(timeout=max(0.0, deadline - time.monotonic()))
            unfinished -= 1
            if name:
                names[address] = name
    return names, unfinished


def _name(address: str) -> str | None:
    try:
        name, _ = socket.getnameinfo((address, 0), socket.NI_NAMEREQD)
    except (OSError, UnicodeError):
        return None
    return name[:_LONGEST]
