"""State changes with the connection each belongs to, as a frame."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from netlab.columns import categories
from netlab.kernel.keys import chosen
from netlab.kernel.sockdiag import State
from netlab.schemas import EVENTS
from netlab.tracer.reasons import error_names
from netlab.tracer.records import Attempts, is_udp
from netlab.tracer.rows import STATES, identity, owner_names

_MOMENTS = ("opened_ns", "established_ns", "closed_ns")
_FIRST = (2, 3)  # TCP_SYN_SENT, TCP_SYN_RECV: where a socket's life as a connection begins


def frame(changes: npt.NDArray[np.void], attempts: Attempts, *, to_utc_ns: int) -> pd.DataFrame:
    """Return the changes of *attempts*, in order; those of other connections are left out.

    Parameters
    ----------
    changes
        What the programs reported, ordered by time.
    attempts
        The records of the attempts asked for.
    to_utc_ns
        What to add to a kernel time to get UTC.
    """
    places = _places(changes, attempts)
    known = places >= 0
    changes, whose = changes[known], chosen(attempts, places[known])
    return EVENTS.frame(
        {
            "at": changes["at_ns"].astype(np.int64) + to_utc_ns,
            "before": categories(changes["before"], STATES),
            "after": categories(changes["after"], STATES),
            "error": error_names(changes["error"]),
            **identity(whose),
            **owner_names(whose),
        }
    )


def _places(changes: npt.NDArray[np.void], attempts: Attempts) -> npt.NDArray[np.intp]:
    """Return which attempt each change belongs to, -1 for none.

    A socket's address is used again and again, so its changes are cut into lives. The programs read the clock
    once per change: one change of each life carries the very time that its attempt does.
    """
    order = np.lexsort((changes["at_ns"], changes["socket"]))
    socket, at = changes["socket"][order], changes["at_ns"][order]
    begins = np.isin(changes["after"][order], _FIRST)
    begins |= changes["before"][order] == State.CLOSE  # a listener, too, may have a place that was another's
    begins[1:] |= socket[1:] != socket[:-1]
    life = np.cumsum(begins)
    moments = pd.MultiIndex.from_arrays([socket, at])
    place_of_life = np.full(len(changes) + 1, -1, np.intp)
    seen = (attempts["socket"] != 0) & ~is_udp(attempts)  # the flows of one UDP socket end at one moment
    for name in _MOMENTS:
        known = np.flatnonzero((attempts[name] != 0) & seen)
        times = pd.MultiIndex.from_arrays([attempts["socket"][known], attempts[name][known]])
        found = times.get_indexer(moments)
        place_of_life[life[found >= 0]] = known[found[found >= 0]]
    places = np.empty(len(changes), np.intp)
    places[order] = place_of_life[life]
    return _by_cookie(places, changes, attempts)


def _by_cookie(
    places: npt.NDArray[np.intp], changes: npt.NDArray[np.void], attempts: Attempts
) -> npt.NDArray[np.intp]:
    """Find the rest by cookie: connections that were open before the capture and still are."""
    listed = np.flatnonzero((attempts["socket"] == 0) & (attempts["cookie"] != 0))
    rest = np.flatnonzero((places < 0) & (changes["cookie"] != 0))
    if len(listed) and len(rest):
        found = pd.Index(attempts["cookie"][listed]).get_indexer(pd.Index(changes["cookie"][rest]))
        places[rest[found >= 0]] = listed[found[found >= 0]]
    return places
