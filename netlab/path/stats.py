"""`netlab.path.path_stats`: loss, round-trip times and jitter per hop."""

from __future__ import annotations

import pandas as pd

from netlab.frames import known_gaps
from netlab.path.extent import has_reached, in_order, of_one_source
from netlab.path.rejections import within_path_marked
from netlab.path.significance import wilson
from netlab.schemas import HOP_STATS

_COLUMNS = ["target", "target_address", "flow", "run", "ttl", "address", "name", "rtt_ms", "reply", "reached"]
_COLUMNS += ["sent_at"]
_KEYS = ["target", "ttl"]
_QUANTILES = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99}


def path_stats(hops: pd.DataFrame) -> pd.DataFrame:
    """Count what each hop answered and how long that took.

    Parameters
    ----------
    hops
        What `netlab.traceroute` or a monitor returned, or several of those concatenated.

    Returns
    -------
    DataFrame
        One row per target and TTL, as in `netlab.schemas.HOP_STATS`. Runs and flows are taken together;
        where several addresses answered at a TTL, `addresses` is how many and `address` the one that
        answered most often. `jitter_ms` is the mean difference of consecutive round-trip times of one flow
        and address (`|D(i-1,i)|` of RFC 3550 section 6.4.1, for round trips and without its smoothing).
        Quantiles are those of what was seen: of a few answers p99 is near the largest. Probes past the end of
        the path, which a run sends where the answer at the end was lost, are left out, and so are TTLs behind
        the target at which only flows that are lost are looked for. At the end only what arrives is answered:
        a probe that somebody on the way rejected (unreachable, prohibited) is lost.

    Raises
    ------
    BadInput
        If *hops* lacks columns of a trace, or is of several hosts or namespaces.

    Examples
    --------
    >>> import netlab
    >>> stats = netlab.path.path_stats(netlab.traceroute("127.0.0.1", queries=5))
    >>> stats[["ttl", "address", "probes", "answers", "loss"]].values.tolist()
    [[1, '127.0.0.1', 5, 5, 0.0]]
    """
    probes = within_path_marked(in_order(hops, _COLUMNS, "path_stats()"))
    of_one_source(hops, "path_stats()")
    probes = probes[~_behind_the_target(probes)].reset_index(drop=True)
    turned_back = probes["rejected"] & probes["at_end"]
    probes["came"] = probes["address"].notna() & ~turned_back
    probes["rtt"] = probes["rtt_ms"].astype("float64").mask(turned_back)
    groups = probes.groupby(_KEYS, sort=True)
    found = pd.DataFrame({"probes": groups.size(), "answers": groups["came"].sum()})
    low, high = wilson(found["probes"] - found["answers"], found["probes"])
    found = found.assign(loss=1 - found["answers"] / found["probes"], loss_low=low, loss_high=high)
    rtts = groups["rtt"]
    found["min_ms"], found["max_ms"], found["mean_ms"] = rtts.min(), rtts.max(), rtts.mean()
    for column, share in _QUANTILES.items():
        found[column] = rtts.quantile(share)
    found = found.join(_of_answers(probes))
    found["first_at"], found["last_at"] = groups["sent_at"].min(), groups["sent_at"].max()
    found = found.reset_index()
    data = {name: found[name] for name in HOP_STATS.names}
    frame = HOP_STATS.frame({name: pd.array(values) for name, values in data.items()})
    frame.attrs["coverage"] = known_gaps(hops)
    return frame


def _behind_the_target(probes: pd.DataFrame) -> pd.Series[bool]:
    """Return for each of the probes whether it seeks a lost flow's end behind where others reach the target.

    Nobody answers there, and what that flow loses counts at the target.
    """
    target = probes["ttl"].where(has_reached(probes)).groupby(probes["target"]).transform("max")
    silent = probes.groupby(_KEYS)["address"].transform("count") == 0
    return silent & (probes["ttl"] > target).fillna(value=False).astype(bool)


def _of_answers(probes: pd.DataFrame) -> pd.DataFrame:
    # If none has arrived, who rejects them is all there is.
    arrived = probes.groupby(_KEYS, observed=True)["came"].transform("any").astype(bool)
    answered = probes[probes["came"] | (probes["address"].notna() & ~arrived)]
    groups = answered.groupby(_KEYS, sort=True)
    steps = answered.groupby([*_KEYS, "flow", "address"], observed=True)["rtt"].diff().abs()
    jitter = steps.groupby([answered[key] for key in _KEYS]).mean()
    counts = answered.groupby([*_KEYS, "address"]).size().rename("times").reset_index()
    most = counts.sort_values("times", kind="stable").drop_duplicates(_KEYS, keep="last").set_index(_KEYS)
    names = answered.dropna(subset=["name"]).drop_duplicates("address").set_index("address")["name"]
    return pd.DataFrame(
        {
            "address": most["address"],
            "name": most["address"].map(names),
            "addresses": groups["address"].nunique(),
            "jitter_ms": jitter,
            "last_ms": groups["rtt"].last(),
        }
    )
