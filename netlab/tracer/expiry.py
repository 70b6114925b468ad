"""When an open attempt whose end was not seen counts as ended: its socket stays away from complete lists."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from netlab.kernel.keys import chosen
from netlab.tracer.records import Attempts, joined

# A socket leaves the hash table that is listed just before the state change that tells of its end, enters it
# just after the one that tells of its start, and a list made while others come and go may skip it.
_AWAY_NS = 1_000_000_000


class Absent:
    """Remembers the open attempts that were not listed at each look since some time."""

    def __init__(self) -> None:
        self._keys = _keys(joined([]))
        self._since_ns = np.empty(0, np.int64)

    def gone(self, unlisted: Attempts, now_ns: int) -> Attempts:
        """Return, as ended unseen, those *unlisted* now that were so at every look for a second.

        Parameters
        ----------
        unlisted
            Every open attempt that the present list should have and has not.
        now_ns
            The present kernel time.
        """
        keys = _keys(unlisted)
        _, here, before = np.intersect1d(keys, self._keys, return_indices=True)
        since_ns = np.full(len(keys), now_ns)
        since_ns[here] = self._since_ns[before]
        self._keys, self._since_ns = keys, since_ns
        over = chosen(unlisted, now_ns - since_ns > _AWAY_NS)
        over["closed_ns"], over["last_state"] = now_ns, 0  # see records.end_unseen()
        return over


def _keys(attempts: Attempts) -> npt.NDArray[np.void]:
    """Identify attempts: by socket and start, or by cookie where the start was not seen."""
    keys = np.empty(len(attempts), [("who", "u8"), ("opened_ns", "u8")])
    keys["who"] = np.where(attempts["opened_ns"] != 0, attempts["socket"], attempts["cookie"])
    keys["opened_ns"] = attempts["opened_ns"]
    return keys
