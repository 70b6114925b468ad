"""Tables that several recordings have: their rows under each other, and what is told twice only once.

Recordings of one host may overlap, and one capture may be in several. Its rows are then the same to the
nanosecond. Another capture has read the clock anew: what it tells of the same moment differs by a little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import numpy.typing as npt
import pandas as pd

from netlab.bundle.tracks import IDENTITY, distinct, hashes, told_of
from netlab.frames import Gap, Missing, concat
from netlab.schemas import ALL, CONNECTIONS, CONNTRACK_EVENTS, COST, DNS, DROPS, EVENTS, REQUESTS, TLS

_SPANS = {  # from when to when it was; others last
    CONNECTIONS.name: ("opened_at", "opened_at"),
    EVENTS.name: ("at", "at"),
    DROPS.name: ("first_at", "last_at"),  # packets added up by one capture
    REQUESTS.name: ("requested_at", "requested_at"),
    TLS.name: ("requested_at", "requested_at"),
    DNS.name: ("asked_at", "asked_at"),
    CONNTRACK_EVENTS.name: ("at", "at"),
}
_NEAR = pd.Timedelta(seconds=1)
_DOUBTFUL = (
    "rows that may tell again what another recording of this host tells: the same socket or packets within a "
    "second, seen by another capture; they count twice"
)


def together(parts: Sequence[pd.DataFrame], told_ns: Sequence[int]) -> pd.DataFrame:
    """Put tables of one kind under each other; of a row that several have, the one told last stays.

    Parameters
    ----------
    parts
        Frames of one schema.
    told_ns
        When each of them was told.
    """
    frame = concat(parts)
    schema = frame.attrs["schema"]
    if schema not in IDENTITY or schema == COST.name:  # what each capture cost is its own
        return frame
    place = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    begin, end = _SPANS.get(schema, ("", ""))
    names = [name for name in (ALL[schema].host_column, *IDENTITY[schema]) if name in frame and name != begin]
    keys = hashes(frame[[*names, begin]] if begin else frame[names])
    if begin:
        known = frame[begin].notna().to_numpy()
        if "cookie" in names:
            known = known | frame["cookie"].notna().to_numpy()
        keys = np.where(known, keys, hashes(told_of(frame)))  # else only what is alike in all is the same
    repeats = pd.Series(distinct(keys, place))
    order = np.argsort(np.asarray(told_ns)[place], kind="stable")
    stays = ~repeats.iloc[order].duplicated(keep="last").sort_index().to_numpy()
    found = frame[stays].reset_index(drop=True)
    doubtful = _doubtful(found, names, begin, end, place[stays]) if begin else 0
    gaps = [Missing(schema, Gap.APPROXIMATE, doubtful, _DOUBTFUL)] if doubtful else []
    found.attrs = {**frame.attrs, "coverage": [*frame.attrs["coverage"], *map(asdict, gaps)]}
    return found


def _doubtful(
    frame: pd.DataFrame, names: Sequence[str], begin: str, end: str, place: npt.NDArray[np.int64]
) -> int:
    """Return how many rows are like one of another part but for the time, which is near or not known."""
    rows = pd.DataFrame(
        {"key": hashes(frame[[*names]]), "place": place, "begin": frame[begin], "end": frame[end]}
    )
    rows = rows[rows.groupby("key")["place"].transform("nunique") > 1]
    rows = rows.sort_values(["key", "begin"], kind="stable", na_position="first")
    before = rows.shift()
    near = ~(rows["begin"] - before["end"] > _NEAR)  # a time that is not known is no reason
    return int(((rows["key"] == before["key"]) & (rows["place"] != before["place"]) & near).sum())
