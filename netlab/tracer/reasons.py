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
    "EHOSTUNREACH": "a router or this host found no way to the host",
    "ENETUNREACH": "there is no route to the network",
    "EACCES": "forbidden by a firewall or policy",
    "ECANCELED": "its own process closed it before the handshake ended",
    "ECONNABORTED": "aborted on this host",
}


def explain(
    errors: npt.NDArray[np.int32], last_states: npt.NDArray[np.uint8], syn_retransmits: npt.NDArray[np.uint32]
) -> tuple[pd.Categorical, pd.Series]:
    """Return the `error` and `reason` columns.

    A socket that leaves SYN-SENT without an error was closed by its own process; the kernel has no errno for
    that, and ECANCELED names it.
    """
    codes = errors.astype(np.int64)
    codes[(codes == 0) & (last_states == State.SYN_SENT)] = errno.ECANCELED
    unanswered = (codes == errno.ETIMEDOUT) & (last_states == State.SYN_SENT)
    syns = np.where(unanswered, syn_retransmits.astype(np.int64) + 1, 0)
    places, distinct = pd.factorize(codes << 32 | syns)
    cases = [(int(case) >> 32, int(case) & 0xFFFFFFFF) for case in distinct]
    names = np.array([_name(code) for code, _ in cases], object)
    sentences = pd.array([_sentence(*case) for case in cases], dtype="string")
    return pd.Categorical(names[places]), pd.Series(sentences.take(places))


def _name(code: int) -> str | None:
    return errno.errorcode.get(code, f"errno {code}") if code else None


def _sentence(code: int, syns: int) -> str | None:
    return f"no answer to {syns} SYN{'s' * (syns > 1)}" if syns else _SENTENCES.get(_name(code))
