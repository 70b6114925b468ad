"""Traces as the Datadog Agent's metrics of paths, by the names it gives them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

import pandas as pd

from netlab import checks
from netlab.errors import BadInput
from netlab.frames import Gap, Missing, known_gaps
from netlab.path.interruption import was_interrupted
from netlab.schemas import PATH_METRICS

_CUT = "interrupted before they reached the target: whether it is reachable is not known"
_NEARER = "the target answered the first TTL, which was above 1, and may be nearer"
_PREFIX = "datadog.network_path."
_NEEDED = ["target", "target_address", "protocol", "port", "ttl", "rtt_ms", "reached", "sent_at"]
_TRACE = ["trace", "target", "target_address", "protocol", "port"]


@checks.options
def path_metrics(
    hops: pd.DataFrame,
    *,
    interval_s: float | None = None,
    tags: Iterable[str] = (),
    origin: str = "network_path_integration",
) -> pd.DataFrame:
    """Return the gauges that the Datadog Agent sends for each traced path.

    Parameters
    ----------
    hops
        What `netlab.traceroute` returned, or several of those joined by `netlab.concat`.
    interval_s
        How often the path is traced, in seconds, if it is.
    tags
        More tags, such as "team:net".
    origin
        The value of the tags `origin` and `collector`.

    Returns
    -------
    DataFrame
        One row per metric of each trace, columns as in `netlab.schemas.PATH_METRICS`: the duration from the
        first probe to the last answer, whether the path is monitored (always 1), whether it reached its
        target, and at which TTL if it did and was not met at once by a trace that began further on. A path is
        reachable when its *target* answered in any run; the agent asks only whether the last hop did. A
        target that could not be probed has no metrics, and one that an interrupted trace did not reach is
        neither reachable nor unreachable.

    Raises
    ------
    BadInput
        If *hops* lacks columns of a trace, or an option cannot be right.

    Notes
    -----
    Names and tags are those of pkg/networkpath/telemetry in the Datadog Agent.

    Examples
    --------
    >>> import netlab
    >>> gauges = netlab.path.path_metrics(netlab.traceroute("127.0.0.1"))
    >>> gauges.set_index("metric")["value"]["datadog.network_path.path.hops"]
    np.float64(1.0)
    """
    checks.columns("path_metrics()", hops, _NEEDED, fix="Pass what netlab.traceroute returned")
    interval = None if interval_s is None else checks.positive("interval_s", interval_s, unit="seconds")
    more = [_tag(tag) for tag in checks.several("tags", tags)]
    table = hops.reindex(columns=["trace", *_NEEDED]).dropna(subset=["ttl"])
    cut = was_interrupted(hops)
    rows = []
    unknown = nearer = 0
    for _, trace in table.groupby(_TRACE, dropna=False, sort=False, observed=True):
        first = trace.iloc[0]
        same = {
            "tags": ",".join(sorted([*_tags(first, _tag(origin)), *more])),
            "trace": first["trace"],
            "target": first["target"],
            "at": trace["sent_at"].min(),
        }
        unknown += _is_unknown(trace, cut)
        nearer += _may_be_nearer(trace)
        rows += [
            {"metric": _PREFIX + name, "value": value, "unit": unit, **same}
            for name, value, unit in _gauges(trace, interval, cut)
        ]
    frame = PATH_METRICS.frame({name: [row[name] for row in rows] for name in (rows[0] if rows else ())})
    gaps = [
        Missing("paths", Gap.INCOMPLETE, unknown, _CUT),
        Missing("path.hops", Gap.INCOMPLETE, nearer, _NEARER),
    ]
    frame.attrs["coverage"] = [
        *known_gaps(hops),
        *(asdict(gap) for gap in gaps if gap.count),
    ]
    return frame


def _reached_at(trace: pd.DataFrame) -> pd.Series[int]:
    ttls: pd.Series[int] = trace.loc[trace["reached"].fillna(value=False), "ttl"]
    return ttls


def _is_unknown(trace: pd.DataFrame, cut: bool) -> bool:  # noqa: FBT001
    """Return whether it is not known if the target would have answered."""
    return cut and _reached_at(trace).empty


def _may_be_nearer(trace: pd.DataFrame) -> bool:
    """Return whether the target answered the first TTL, which was not 1: it may be anywhere before."""
    first = int(trace["ttl"].min())
    return first > 1 and bool((_reached_at(trace) == first).any())


def _gauges(
    trace: pd.DataFrame,
    interval_s: float | None,
    cut: bool,  # noqa: FBT001
) -> Iterator[tuple[str, float | None, str]]:
    yield "check_duration", _duration_s(trace), "seconds"
    if interval_s is not None:
        yield "check_interval", interval_s, "seconds"
    yield "path.monitored", 1, "paths"
    if _is_unknown(trace, cut):
        return
    ends = _reached_at(trace)
    if len(ends) and not _may_be_nearer(trace):
        yield "path.hops", int(ends.min()), "hops"
    yield "path.reachable", int(len(ends) > 0), "paths"
    yield "path.unreachable", int(len(ends) == 0), "paths"


def _duration_s(trace: pd.DataFrame) -> float | None:
    heard = pd.to_timedelta(trace["rtt_ms"].fillna(0).astype("float64"), unit="ms")
    duration = (trace["sent_at"] + heard).max() - trace["sent_at"].min()
    return None if pd.isna(duration) else duration.total_seconds()


def _tags(first: pd.Series[Any], origin: str) -> list[str]:
    port = first["port"]
    return [
        f"collector:{origin}",
        f"origin:{origin}",
        f"protocol:{str(first['protocol']).upper()}",
        f"destination_hostname:{first['target']}",
        f"destination_ip:{first['target_address']}",
        f"destination_port:{'unspecified' if pd.isna(port) else port}",
    ]


def _tag(tag: object) -> str:
    """Return *tag* if it is one: commas are what separates them."""
    if not isinstance(tag, str) or not tag or "," in tag:
        raise BadInput(f"tag {tag!r} is not text without commas", fix="Give one like 'team:net'")
    return tag
