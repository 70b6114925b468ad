"""Why an attempt ended as it did: the errno's name and a sentence."""

from __future__ import annotations

import errno
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from netlab.kernel.sockdiag import State
from netlab.tracer.records import Readable, is_udp

_SILENT = "no acknowledgement came any more"
_SENTENCES: dict[str | None, str] = {
    "ETIMEDOUT": f"{_SILENT}: the peer is gone, or packets are dropped here or on the way",
    "ECONNREFUSED": "refused: the peer answered the SYN with a reset",
    "ECONNRESET": "reset by the peer",
    "EPIPE": "reset by the peer after it had closed its side",
    "EADDRNOTAVAIL": "this host had no free local port for it, and sent nothing",
    "EHOSTUNREACH": "a router or this host found no way to the host",
    "ENETUNREACH": "there is no route to the network",
    "EPERM": "forbidden on this host, by a firewall or by a program of its control group",
    "EACCES": "forbidden by a firewall or policy",
    "EINVAL": "a blackhole route or rule of this host",
    "ECANCELED": "its own process closed it before the handshake ended",
    "ECONNABORTED": "aborted on this host",
    # What ICMP says beside these: icmp_err_convert in net/ipv4/icmp.c, its like in net/ipv6/icmp.c.
    "EMSGSIZE": "a datagram that may not be cut was too large for a link on the way",
    "ENOPROTOOPT": "rejected by an ICMP message: the host does not speak the protocol, or a firewall says so",
    "EHOSTDOWN": "a router said that there is no such host",
    "ENONET": "a router said that the host is cut off",
    "ENOTSUP": "a router could not send it by the way that it asked for",
    "EPROTO": "a router or the host found a fault in the packet's header",
}


def explain(attempts: Readable, states: npt.NDArray[np.uint8]) -> tuple[pd.Categorical, pd.Series]:
    """Return the `error` and `reason` columns of attempt records in their present *states*.

    A socket that leaves SYN-SENT without an errno was closed by its own process (ECANCELED).
    """
    codes = attempts["error"].astype(np.int64)
    connecting = attempts["last_state"] == State.SYN_SENT
    unsent = (attempts["unsent"] != 0) & (states == State.CLOSE)
    codes[(codes == 0) & connecting] = errno.ECANCELED
    unanswered = (codes == errno.ETIMEDOUT) & connecting
    rejected = (codes == errno.ECONNREFUSED) & (attempts["packets_received"] == 0)
    unheard = is_udp(attempts) & (codes == errno.ECONNREFUSED)
    unread = (codes == errno.ETIMEDOUT) & ~connecting & (attempts["rwnd_limited_ms"] != 0)
    occupied = (codes == errno.EADDRNOTAVAIL) & (attempts["local_port"] != 0)
    stories = [
        (unsent, _Story.UNSENT),
        (unheard, _Story.UNHEARD),
        (rejected, _Story.REJECTED),
        (unread, _Story.UNREAD),
        (occupied, _Story.OCCUPIED),
    ]
    where, which = zip(*stories, strict=True)
    story = np.select(where, which, _Story.PLAIN).astype(np.int64)
    given_up = (codes == errno.ECANCELED) & connecting & ~is_udp(attempts) & (attempts["packets_sent"] != 0)
    syns = np.where(unanswered | given_up, attempts["syn_retransmits"].astype(np.int64) + 1, 0)
    places, distinct = pd.factorize(codes << 35 | story << 32 | syns)
    cases = [(int(case) >> 35, _Story(int(case) >> 32 & 7), int(case) & 0xFFFFFFFF) for case in distinct]
    names = np.array([_name(code) for code, *_ in cases], object)
    sentences = pd.array([_sentence(*case) for case in cases], dtype="string")
    return pd.Categorical(names).take(places), pd.Series(sentences.take(places))


class _Story(IntEnum):
    """What an errno alone does not tell."""

    PLAIN = 0
    REJECTED = 1  # by an ICMP message
    UNSENT = 2  # connect() failed before the first packet
    UNHEARD = 3  # a UDP port that nobody listens on
    UNREAD = 4  # the peer's window held data back
    OCCUPIED = 5  # the process asked for a local port that has a connection to that peer


_TOLD = {
    _Story.REJECTED: (
        "refused by an ICMP message, such as a firewall's reject: no packet of the peer came back"
    ),
    _Story.UNHEARD: "refused by an ICMP message: nobody listens on that UDP port, or a firewall rejects it",
    _Story.UNREAD: f"the peer read nothing and its window stayed closed, or {_SILENT}",
    _Story.OCCUPIED: (
        "the local port it was bound to has a connection to that peer, or had one until just now"
    ),
}


def error_names(codes: npt.NDArray[np.integer[Any]]) -> pd.Categorical:
    """Return the errnos' names, missing where there is none."""
    places, distinct = pd.factorize(codes)
    names = np.array([_name(int(code)) for code in distinct], object)
    return pd.Categorical(names).take(places)


def _name(code: int) -> str | None:
    return errno.errorcode.get(code, f"errno {code}") if code else None


def _sentence(code: int, story: _Story, syns: int) -> str | None:
    told, plain = _TOLD.get(story), _SENTENCES.get(_name(code))
    if told is not None:
        return told
    if story is _Story.UNSENT:
        return f"connect() failed before the first packet: {plain or 'its errno was not seen'}"
    silence = f"no answer to {syns} SYN{'s' * (syns > 1)}"
    if code == errno.ECANCELED and syns:
        return f"its own process gave up: {silence}"
    return silence if syns else plain


def failed(connections: pd.DataFrame) -> pd.DataFrame:
    """Return the attempts that have an error or a reason."""
    return connections[connections["error"].notna() | connections["reason"].notna()].reset_index(drop=True)
