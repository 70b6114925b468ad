"""Why an attempt ended as it did: the errno's name and a sentence."""

from __future__ import annotations

import errno

import numpy as np
import numpy.typing as npt
import pandas as pd

from netlab.kernel.sockdiag import State

_SENTENCES: dict[str | None, str] = {
    "ETIMEDOUT": "the peer stopped acknowledging",
    "ECONNREFUSED": "refused: the peer answered the SYN with a reset",
    "ECONNRESET": "reset by the peer",
    "EPIPE": "reset by the peer after it had closed its side",
    "EADDRNOTAVAIL": "this host had no free local port for it, and sent nothing",
    "EHOSTUNREACH": "a router or this host found no way to the host",
    "ENETUNREACH": "there is no route to the network",
    "EACCES": "forbidden by a firewall or policy",
    "ECANCELED": "its own process closed it before the handshake ended",
    "ECONNABORTED": "aborted on this host",
}


def explain(attempts: npt.NDArray[np.void]) -> tuple[pd.Categorical, pd.Series]:
    """Return the `error` and `reason` columns of attempt records.

    For a socket that leaves SYN-SENT the kernel may have no errno: it had no local port left for it, and no
    SYN was sent (EADDRNOTAVAIL is what connect(2) returned), or its own process closed it (ECANCELED).
    """
    codes = attempts["error"].astype(np.int64)
    connecting = attempts["last_state"] == State.SYN_SENT
    codes[(codes == 0) & connecting & (attempts["packets_sent"] == 0)] = errno.EADDRNOTAVAIL
    codes[(codes == 0) & connecting] = errno.ECANCELED
    unanswered = (codes == errno.ETIMEDOUT) & connecting
    rejected = (codes == errno.ECONNREFUSED) & (attempts["packets_received"] == 0)
    syns = np.where(unanswered, attempts["syn_retransmits"].astype(np.int64) + 1, 0)
    places, distinct = pd.factorize(codes << 33 | rejected.astype(np.int64) << 32 | syns)
    cases = [(int(case) >> 33, bool(int(case) >> 32 & 1), int(case) & 0xFFFFFFFF) for case in distinct]
    names = np.array([_name(code) for code, *_ in cases], object)
    sentences = pd.array([_sentence(*case) for case in cases], dtype="string")
    return pd.Categorical(names[places]), pd.Series(sentences.take(places))


def _name(code: int) -> str | None:
    return errno.errorcode.get(code, f"errno {code}") if code else None


def _sentence(code: int, rejected: bool, syns: int) -> str | None:  # noqa: FBT001 - one case's three parts
    if rejected:
        return "refused by an ICMP message, such as a firewall's reject: no packet of the peer came back"
    return f"no answer to {syns} SYN{'s' * (syns > 1)}" if syns else _SENTENCES.get(_name(code))
