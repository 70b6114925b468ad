"""The past of frames whose changes were not recorded, as far as their own times tell it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from netlab.bundle.contents import Item, schema_of
from netlab.bundle.history import FOR_EVER, History, Times
from netlab.bundle.loading import history_of
from netlab.bundle.manifest import missing_of
from netlab.frames import Gap, Missing
from netlab.schemas import CONNECTIONS, CONNTRACK_EVENTS, DNS, DROPS, EVENTS, HOPS, REQUESTS, TLS

_ALWAYS = np.iinfo(np.int64).min
_HAPPENED = {EVENTS.name: "at", CONNTRACK_EVENTS.name: "at"}
_TOOK = {  # known when it was over: from when on, and how many ms later
    REQUESTS.name: ("requested_at", "duration_ms"),
    TLS.name: ("requested_at", "duration_ms"),
    DNS.name: ("asked_at", "latency_ms"),
}
_LASTED = {CONNECTIONS.name: ("opened_at", "closed_at"), DROPS.name: ("first_at", "last_at")}
_ONLY_LATER = {  # all that is not known before the end, of what lasts
    CONNECTIONS.name: [
        "state", "closed_at", "duration_s", "connect_ms", "last_packet_at", "assured", "bytes_sent",
        "bytes_received", "packets_sent", "packets_received", "receive_drops", "retransmits",
        "syn_retransmits", "rtt_ms", "rtt_var_ms", "min_rtt_ms", "cwnd", "out_of_order", "rtos",
        "rwnd_limited_ms", "receive_queue_bytes", "send_queue_bytes", "error", "reason",
    ],
    DROPS.name: ["last_at", "tcp_flags", "packets", "bytes"],
}  # fmt: skip
_UNTOLD = "of rows that had not ended: only their ends are in the recording; netlab.record() keeps changes"


def pasts(items: Mapping[str, Item], *, most_bytes: int) -> dict[str, History]:
    """Return the past of each frame: as it was recorded, or else as its times tell it."""
    return {
        name: history_of(
            item.segments, schema_of(item.frame), made_by=item.origins[0].netlab, most_bytes=most_bytes
        )
        if item.segments
        else of_frame(item.frame, end_ns(item))
        for name, item in items.items()
    }


def span(items: Mapping[str, Item], past: Mapping[str, History]) -> tuple[int, int]:
    """Return from when to when there is something to see."""
    times = np.concatenate([_moments(each) for each in past.values()])
    ends = [end_ns(item) for item in items.values()]
    return int(min([*times, *ends])), int(max([*times, *ends]))


def of_frame(frame: pd.DataFrame, end_ns: int) -> History:
    """Return the past of a frame that was looked at once, at its end: what lasts has two versions."""
    schema = frame.attrs["schema"]
    gaps = told = [missing_of(gap) for gap in frame.attrs["coverage"]]
    rows, since = frame.reset_index(drop=True), _since(frame)
    until = np.full(len(rows), FOR_EVER)
    if schema in _LASTED:
        over = _ns(frame[_LASTED[schema][1]], end_ns)
        unknown = [name for name in _ONLY_LATER[schema] if name in rows]
        earlier = rows.assign(**{name: rows[name].mask(np.ones(len(rows), bool)) for name in unknown})
        rows = pd.concat([earlier, rows], ignore_index=True)
        since, until = np.concatenate([since, over]), np.concatenate([over, until])
        told = [*gaps, Missing(", ".join(unknown), Gap.UNAVAILABLE, None, _UNTOLD)]
    rows.attrs = {**frame.attrs, "coverage": []}
    return History(rows, since, until, np.array([_ALWAYS, end_ns]), [told, gaps])


def _since(frame: pd.DataFrame) -> Times:
    """Return from when on each row was known."""
    schema = frame.attrs["schema"]
    if schema == HOPS.name:
        return _when_over(frame)
    if schema in _TOOK:
        begun, took_ms = (frame[name] for name in _TOOK[schema])
        return _ns(begun + pd.to_timedelta(took_ms.fillna(0).astype(float), unit="ms"), _ALWAYS)
    if schema in _LASTED:
        return _ns(frame[_LASTED[schema][0]], _ALWAYS)
    return _ns(frame[_HAPPENED[schema]], _ALWAYS) if schema in _HAPPENED else np.full(len(frame), _ALWAYS)


def _when_over(hops: pd.DataFrame) -> Times:
    """Return when the last answer of each run was there: only then is it known which probes are lost."""
    took = pd.to_timedelta(hops["rtt_ms"].fillna(0).astype(float), unit="ms")
    answered = hops["sent_at"] + took
    runs = answered.groupby([hops["trace"], hops["target_address"], hops["run"]], dropna=False)
    return _ns(runs.transform("max"), _ALWAYS)


def _ns(times: pd.Series, missing_ns: int) -> Times:
    known = times.notna().to_numpy()
    found = np.full(len(times), missing_ns, np.int64)
    found[known] = times[known].astype("datetime64[ns, UTC]").astype("int64")
    return found


def _moments(past: History) -> Times:
    times = np.concatenate([past.from_ns, past.until_ns, past.told_ns])
    known: Times = times[(times != _ALWAYS) & (times != FOR_EVER)]
    return known


def end_ns(item: Item) -> int:
    """Return when a frame was looked at last."""
    if item.segments and item.origins[-1].ended_at is None:
        return item.segments[-1].at_ns
    ends = [origin.ended_at or origin.created_at for origin in item.origins]
    return max(int(pd.Timestamp(end).value) for end in ends)
