"""What was rewritten in a probe on its way, as the quotes in routers' answers show it, and by whom."""

from __future__ import annotations

import pandas as pd

from netlab.path.probes import Flow
from netlab.wire import icmp, ip

_TRACE = ["target", "target_address", "run", "flow"]

_HEADER = {"source": "source", "id": "identification", "flow-label": "flow_label"}

# By protocol: the two-byte fields of the transport header that a NAT rewrites, and where they are.
_PORTS = {"source-port": 0, "port": 2}
_FIELDS = {
    ip.UDP: {**_PORTS, "checksum": 6},
    ip.TCP: {**_PORTS, "checksum": 16},
    ip.ICMP: {"checksum": 2, "identifier": 4},
    ip.ICMPV6: {"checksum": 2, "identifier": 4},
}


def rewritten(flow: Flow, mark: int, quote: icmp.Quote) -> str:
    """Return the fields of the quoted probe that are not as they were sent, with commas between.

    A NAT that translates the quote back as RFC 5508 section 4.2 wants it leaves no trace. Many forget the
    transport checksum, which is how dublin-traceroute finds them, and some forget all of it.
    """
    header, transport = ip.decode(flow.packet(1, mark))
    found = [
        name
        for name, attribute in _HEADER.items()
        if getattr(quote.header, attribute, None) != getattr(header, attribute, None)
    ]
    found += [
        name
        for name, place in _FIELDS[header.protocol].items()
        if len(quote.transport) >= place + 2
        and quote.transport[place : place + 2] != transport[place : place + 2]
    ]
    return ", ".join(found)


def boxes(hops: pd.DataFrame) -> dict[str, str]:
    """Return by address which fields each hop rewrites: the next hop's quotes are the first to show it."""
    if "rewritten" not in hops:
        return {}
    quoted = hops[[*_TRACE, "ttl", "address", "rewritten"]].dropna(subset=["address"])
    quoted = quoted.drop_duplicates([*_TRACE, "ttl"]).sort_values([*_TRACE, "ttl"])
    before = quoted.groupby(_TRACE, dropna=False)[["ttl", "address", "rewritten"]].shift()
    changed = quoted["rewritten"].notna() & (quoted["rewritten"] != "")
    changed &= (quoted["rewritten"] != before["rewritten"]) & (quoted["ttl"] == before["ttl"] + 1)
    changed = changed.fillna(value=False)
    return dict(zip(before.loc[changed, "address"], quoted.loc[changed, "rewritten"], strict=True))
