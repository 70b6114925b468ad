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
_AT_ONCE = 64  # look-ups under way in one call
_FRESH_S = 3600.0  # how long an answer is good for
_REMEMBERED = 100_000

_known: dict[str, tuple[float, str | None]] = {}  # by address: when it was answered, and with what
_lock = threading.Lock()


def names_of(addresses: Iterable[str], *, wait_s: float = WAIT_S) -> tuple[dict[str, str], int]:
    """Look up the names of *addresses* at once, for *wait_s* seconds in all.

    Returns the names by address, and how many look-ups had not ended by then. Those that have begun go on in
    daemon threads, since getnameinfo(3) cannot be cancelled; they keep neither the caller nor the exit
    waiting, and what they find is there for the next call, for an hour, as is that an address has no name.
    """
    wanted = set(addresses)
    found = _remembered(wanted)
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for address in wanted - found.keys():
        waiting.put(address)
    unfinished = waiting.qsize()
    answers: queue.SimpleQueue[tuple[str, str | None]] = queue.SimpleQueue()
    deadline = time.monotonic() + wait_s
    for _ in range(min(unfinished, _AT_ONCE)):
        threading.Thread(target=_answer, args=(waiting, answers, deadline), daemon=True).start()
    with contextlib.suppress(queue.Empty):
        while unfinished:
            address, name = answers.get(timeout=max(0.0, deadline - time.monotonic()))
            unfinished -= 1
            found[address] = name
    return {address: name for address, name in found.items() if name}, unfinished


def _remembered(addresses: set[str]) -> dict[str, str | None]:
    oldest = time.monotonic() - _FRESH_S
    with _lock:
        return {a: _known[a][1] for a in addresses if a in _known and _known[a][0] > oldest}


def _answer(
    waiting: queue.SimpleQueue[str], answers: queue.SimpleQueue[tuple[str, str | None]], deadline: float
) -> None:
    """Look up one waiting address after the other until the caller is gone."""
    with contextlib.suppress(queue.Empty):
        while time.monotonic() < deadline:
            address, name = waiting.get_nowait(), None
            with contextlib.suppress(OSError):  # nobody could be asked: that is no answer to remember
                name = _name(address)
                _remember(address, name)
            answers.put((address, name))


def _remember(address: str, name: str | None) -> None:
    with _lock:
        while len(_known) >= _REMEMBERED:
            del _known[next(iter(_known))]  # the one that was found first
        _known[address] = time.monotonic(), name


def _name(address: str) -> str | None:
    """Return the name of *address*, None if it has none; raises OSError if that could not be found out."""
    try:
        name, _ = socket.getnameinfo((address, 0), socket.NI_NAMEREQD)
    except socket.gaierror as error:
        if error.errno == socket.EAI_NONAME:
            return None
        raise
    except UnicodeError:
        return None
    return name[:_LONGEST]
