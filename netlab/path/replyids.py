"""Were answers that never came sent at all? The numbers of those that came can tell.

A router that takes the IPv4 identification of everything it sends from one counter leaves a gap in the
numbers where an answer was made and lost, and none where it was not made (Mahajan et al., "User-level
Internet path diagnosis", SOSP 2003).
"""

from __future__ import annotations

import numpy as np

from netlab.path.bucket import Reals

_NUMBERS = 1 << 16
_LEAST = 8  # pairs of answers with nothing lost between them, and losses, to say anything
_LARGEST_STEP = 1000  # between consecutive answers: more is chance, or a counter too busy to read
_NEAR = 0.25  # how far from 0 or 1 the share of the missing answers that were sent may be
_MOST = 0.8  # share of the gaps that must say the same


def were_sent(at_s: Reals, ids: Reals) -> bool | None:
    """Return whether the missing answers had been sent; None if the numbers do not tell.

    Parameters
    ----------
    at_s
        When the probes were sent, in order.
    ids
        The identification of each one's answer, NaN without one.
    """
    came = np.flatnonzero(~np.isnan(ids))
    steps = np.diff(ids[came]) % _NUMBERS
    waits = np.diff(at_s[came])
    missing = np.diff(came) - 1
    whole = missing == 0
    if whole.sum() < _LEAST or missing.sum() < _LEAST:
        return None
    step, wait_s = np.median(steps[whole]), np.median(waits[whole])
    if not 0 < step <= _LARGEST_STEP or wait_s <= 0:
        return None
    others_per_s = (step - 1) / wait_s  # what else it sends
    shares = (steps - 1 - others_per_s * waits)[~whole] / missing[~whole]
    for sent in (True, False):
        if (np.abs(shares - sent) <= _NEAR).mean() >= _MOST:
            return sent
    return None
