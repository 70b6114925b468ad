"""Answers that end the path although the target was not reached: somebody on the way rejected the probe."""

from __future__ import annotations

import pandas as pd

from netlab.path.extent import FLOW, at_the_end, ends_path, has_reached, is_within_path
from netlab.wire import icmp

# A firewall on the target itself says so from the target's address: the probe has arrived there. Nobody who
# cannot deliver a packet is where it was to go, even if a gateway has the target's address.
_OWN_FIREWALL = icmp.Error.ADMIN_PROHIBITED.value
_CHANCE = 0.01  # how often so many in a row may be an accident


def is_rejected(hops: pd.DataFrame) -> pd.Series[bool]:
    """Return for each of the hops whether somebody on the way rejected the probe."""
    own = (hops["reply"] == _OWN_FIREWALL) & (hops["address"] == hops["target_address"])
    return ends_path(hops) & ~has_reached(hops) & ~own.fillna(value=False).astype(bool)


def without_passing(probes: pd.DataFrame) -> pd.DataFrame:
    """Return the probes, in order, without the answers of who rejected a few among those that got further.

    The TTL has another hop, which they do not show. More in a row than chance would have are an outage.
    """
    rejected = is_rejected(probes)
    if not rejected.any():
        return probes
    further = probes["reply"].notna() & ~rejected
    of_ttl = [probes[key] for key in (*FLOW, "ttl")]
    before = further.groupby(of_ttl, observed=True).cumsum()
    every = further.groupby(of_ttl, observed=True).transform("sum")
    answers = (rejected | further).groupby(of_ttl, observed=True).transform("sum")
    in_a_row = rejected.groupby([*of_ttl, before], observed=True).transform("sum")
    usual = answers * (1 - every / answers) ** in_a_row > _CHANCE
    passing = rejected & (every > 0) & usual
    return probes.assign(**{name: probes[name].mask(passing) for name in ("address", "reply")})


def within_path_marked(probes: pd.DataFrame) -> pd.DataFrame:
    """Return the probes, in order, that are within the path, with the columns `rejected` and `at_end`.

    A rejection before the end that the flow has at its nearest ends no run's path: other probes of that run
    may get further, and the one through to the target belongs to the same run. `at_end` are the TTLs at which
    the target has answered, and the last: there a rejected probe has not arrived.
    """
    rejected = is_rejected(probes)
    ttl = probes["ttl"].astype("float64")
    of_flow = [probes[key] for key in FLOW]
    nearest = ttl.where(has_reached(probes)).groupby(of_flow, observed=True).transform("min")
    passed = rejected & (ttl < nearest)
    reply = probes["reply"].astype(object).mask(passed, icmp.Error.TIME_EXCEEDED.value)
    within = is_within_path(probes.assign(reply=reply)).to_numpy()
    counted = probes.assign(rejected=rejected)[within].reset_index(drop=True)
    of_ttl = [counted[key] for key in ("target", "ttl")]
    last = counted.groupby("target", observed=True)["ttl"].transform("max")
    ends = has_reached(counted).groupby(of_ttl, observed=True).transform("any") | (counted["ttl"] == last)
    return counted.assign(at_end=ends.astype(bool))


def at_the_target(ends: pd.DataFrame, hops: pd.DataFrame) -> pd.DataFrame:
    """Return the probes that went through to the target as ones to the TTL that it has on their flow's path.

    Only where it was never reached that is the TTL at which the path was seen to end.
    """
    met = within_path_marked(hops.sort_values("sent_at", kind="stable", ignore_index=True))
    reaches = has_reached(met).groupby(met["flow"]).transform("any").astype(bool)
    return at_the_end(ends, met[~(met["rejected"] & reaches)])
