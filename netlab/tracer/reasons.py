"""Why an attempt ended as it did: the errno's name and a sentence."""

from __future__ import annotations

import errno

import numpy as np
import numpy.typing as npt
import pandas as pd

from netlab.kernel.sockdiag import State

_SENTENCES = {
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
    names = pd.Categorical(pd.Series(codes).map(_name), categories=None)
    reasons = pd.Series(names.astype("string")).map(_SENTENCES).astype("string")
    timed_out = codes == errno.ETIMEDOUT
    unanswered = timed_out & (last_states == State.SYN_SENT)
    reasons[unanswered] = (
        "no answer to " + pd.Series(syn_retransmits[unanswered] + 1).astype("string").to_numpy() + " SYNs"
    )
    reasons[timed_out & ~unanswered] = "the peer stopped acknowledging"
    return names, reasons


def _name(code: int) -> str | None:
    return errno.errorcode.get(code, f"errno {code}") if code else None
