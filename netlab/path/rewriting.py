"""Which hops rewrite packets, as the quotes in routers' answers show it."""

from __future__ import annotations

import pandas as pd

from netlab.path.quotes import NOTHING

_TRACE = ["trace", "target", "target_address", "run", "flow"]


def boxes(hops: pd.DataFrame) -> dict[str, str]:
    """Return by address which fields each hop rewrites: the next hop's quotes are the first to show it.

    A NAT that translates the quote back as RFC 5508 section 4.2 wants it leaves no trace. Many forget the
    transport checksum, which is how dublin-traceroute finds them, and some forget all of it.
    """
    if "rewritten" not in hops:
        return {}
    quoted = hops.reindex(columns=[*_TRACE, "ttl", "address", "rewritten"]).dropna(subset=["address"])
    quoted = quoted.drop_duplicates([*_TRACE, "ttl"]).sort_values([*_TRACE, "ttl"])
    before = quoted.groupby(_TRACE, dropna=False)[["ttl", "address", "rewritten"]].shift()
    changed = quoted["rewritten"].notna() & (quoted["rewritten"] != NOTHING)
    changed &= (quoted["rewritten"] != before["rewritten"]) & (quoted["ttl"] == before["ttl"] + 1)
    changed = changed.fillna(value=False)
    return dict(zip(before.loc[changed, "address"], quoted.loc[changed, "rewritten"], strict=True))
