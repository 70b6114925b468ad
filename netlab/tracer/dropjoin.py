"""Which connection a drop or a reset belongs to, and which of them explain why it failed."""

from __future__ import annotations

import pandas as pd

_TUPLE = ["src", "sport", "dst", "dport"]
_OWN = ["local_address", "local_port", "remote_address", "remote_port"]
_TRANSLATED = [f"nat_{name}" for name in _OWN]
_ATTEMPT = [
    "protocol",
    "netns",
    "opened_at",
    "closed_at",
    "state",
    "error",
    "connect_ms",
    "cookie",
    "pid",
    "process",
]
_DROP = [
    "kind",
    "reason",
    "location",
    "protocol",
    "interface",
    "netns",
    "tcp_flags",
    "packets",
    "cookie",
    "first_at",
    "last_at",
]
_MOST_CLAUSES = 3
# The kernel tells of a packet when it has done with it: a reset may have ended the connection by then.
_LATE = pd.Timedelta(milliseconds=10)

# Copies made for a sniffer, and frames that were another host's: the connection lost nothing by them.
_NOT_ITS_OWN = {"PACKET_SOCK_ERROR", "OTHERHOST"}
_RESET_ERRORS = {"ECONNREFUSED", "ECONNRESET", "EPIPE"}  # whose sentences speak of the reset already

# What the kernel's names mean; a name that is not here stands for itself.
_MEANING = {
    "NETFILTER_DROP": "by the firewall or a full conntrack table",
    "BPF_CGROUP_EGRESS": "by an eBPF program of its control group, such as systemd's IPAddressDeny=",
    "SOCKET_FILTER": "by a filter of the socket or of its control group",
    "TC_INGRESS": "by a tc filter or eBPF program at the interface, such as Cilium's",
    "TC_EGRESS": "by a tc filter or eBPF program at the interface, such as Cilium's",
    "XFRM_POLICY": "by an IPsec policy",
    "IP_OUTNOROUTES": "for want of a route",
    "IP_INNOROUTES": "for want of a route",
    "IP_RPFILTER": "by the reverse-path filter",
    "IP_INHDR": "because its TTL ran out or its IP header was wrong",
    "NO_SOCKET": "because nothing listened on the port",
    "TCP_LISTEN_OVERFLOW": "because the listener's queue was full",
    "SOCKET_RCVBUFF": "because the socket's receive buffer was full",
    "SOCKET_BACKLOG": "because the socket's backlog was full",
    "NEIGH_FAILED": "because the next hop's link-layer address was not found",
    "NEIGH_QUEUEFULL": "because too many waited for the next hop's link-layer address",
    "QDISC_DROP": "by the interface's queue",
    "QDISC_OVERLIMIT": "by the interface's queue",
    "IP_CSUM": "for a wrong checksum",
    "TCP_CSUM": "for a wrong checksum",
    "UDP_CSUM": "for a wrong checksum",
    "PROTO_MEM": "because the protocol's memory was used up (net.ipv4.tcp_mem, udp_mem)",
    "CPU_BACKLOG": "because the CPU's backlog was full (net.core.netdev_max_backlog)",
    "TCP_RFC7323_PAWS": "because its timestamp was too old (PAWS)",
    "PKT_TOO_BIG": "because it was too big for the next link",
    "TCP_ABORT_ON_CLOSE": "because it was closed with unread data",
    "TCP_STATE": "because its process aborted it",
    "TCP_ABORT_ON_DATA": "because data came after it was closed",
}
_MEANING_OF_RESETS = _MEANING | {
    "TCP_FLAGS": "because its listener knew no such connection, as after a restart",
    "TCP_KEEPALIVE_TIMEOUT": "because its keepalive probes were not answered",
}


def with_owners(drops: pd.DataFrame, connections: pd.DataFrame) -> pd.DataFrame:
    """Fill `cookie`, `pid` and `process` of drops from the connection they belong to.

    A drop between two sockets of this host belongs to the one that sent the packet.
    """
    pairs = _pairs(connections, drops)
    sender = (pairs["src"] == pairs["local_address"]) & (pairs["sport"] == pairs["local_port"])
    by_cookie = pairs["cookie"] == pairs["cookie_of_drop"]
    pairs = pairs.assign(by_cookie=by_cookie.fillna(value=False), sender=sender.fillna(value=False))
    order = pairs.sort_values(["drop", "by_cookie", "sender", "opened_at"], kind="stable")
    best = order.drop_duplicates("drop", keep="last").set_index("drop")
    known = drops.copy()
    for name in ("cookie", "pid", "process"):
        found = best[name].reindex(drops.index).astype(drops[name].dtype)
        known[name] = found.fillna(drops[name])
    known.attrs = drops.attrs
    return known


def with_drops(connections: pd.DataFrame, drops: pd.DataFrame) -> pd.DataFrame:
    """Add to the `reason` of attempts that failed, or wait for an answer, what was done to their packets.

    The same rows in the same order; one without a drop on this host keeps what it had. Where a row of drops
    reaches beyond an attempt's life, because its tuple was used again, the number of packets is left out.
    """
    failing = connections["error"].notna() | (connections["state"] == "syn-sent")
    found = _explaining(_pairs(connections[failing], drops))
    told = connections.copy()
    lacking = [
        gap if gap["what"] == "connections" else gap | {"what": f"reason: {gap['what']}"}
        for gap in drops.attrs["coverage"]
    ]
    told.attrs = connections.attrs | {"coverage": [*connections.attrs["coverage"], *lacking]}
    if len(found):
        added = _together(found.assign(clause=_clauses(found))).reindex(told.index)
        before = told["reason"]
        told["reason"] = (before + "; " + added).fillna(before).fillna(added).astype(before.dtype)
    return told


def _pairs(connections: pd.DataFrame, drops: pd.DataFrame) -> pd.DataFrame:
    """Return one row per `attempt` and `drop` that belong together, with the columns of both.

    They do by the socket's cookie, or by the tuple, the translated one too, in either direction and in any
    network namespace, if the packets were dropped in the connection's life. One whose begin or end is not
    known is taken to have lived long enough.
    """
    attempts = connections[[*_ATTEMPT, *_OWN, *_TRANSLATED]].astype({"protocol": "string"})
    attempts = attempts.rename_axis("attempt").reset_index()
    events = drops[[*_DROP, *_TUPLE]].astype({"protocol": "string", "reason": "string", "kind": "string"})
    events = events[~events["reason"].isin(_NOT_ITS_OWN)].rename_axis("drop").reset_index()
    tuples = pd.concat(
        attempts[["attempt", "protocol", *names]].set_axis(["attempt", "protocol", *_TUPLE], axis=1)
        for ends in (_OWN, _TRANSLATED)
        for names in (ends, ends[2:] + ends[:2])
    )
    by_tuple = tuples.dropna().merge(events[["drop", "protocol", *_TUPLE]].dropna(), on=["protocol", *_TUPLE])
    by_cookie = (
        attempts[["attempt", "cookie"]].dropna().merge(events[["drop", "cookie"]].dropna(), on="cookie")
    )
    same = pd.concat([by_tuple[["attempt", "drop"]], by_cookie[["attempt", "drop"]]]).drop_duplicates()
    pairs = same.merge(attempts, on="attempt").merge(events, on="drop", suffixes=("", "_of_drop"))
    over = (pairs["last_at"] < pairs["opened_at"]) | (pairs["first_at"] > pairs["closed_at"] + _LATE)
    return pairs[~over & ~_of_another_loopback(pairs)]


def _of_another_loopback(pairs: pd.DataFrame) -> pd.Series:
    """Every namespace has the same loopback addresses, and they do not lead into another one."""
    loopback = pairs["src"].str.startswith("127.") | (pairs["src"] == "::1")
    return (loopback & (pairs["netns"] != pairs["netns_of_drop"])).fillna(value=False).astype(bool)


def _explaining(pairs: pd.DataFrame) -> pd.DataFrame:
    """Leave out what the errno says already, and what is there twice; resets first, then most packets."""
    sent, dropped = pairs["kind"] == "reset-sent", pairs["kind"] == "dropped"
    reset = pairs["error"].isin(_RESET_ERRORS) & (
        (pairs["kind"] == "reset-received") | pairs["reason"].eq("TCP_RESET").fillna(value=False)
    )
    one = ["attempt", "netns_of_drop", "reason"]
    answered = pd.MultiIndex.from_frame(pairs.loc[sent, one])
    twice = dropped & pd.MultiIndex.from_frame(pairs[one]).isin(answered)
    order = pairs[~reset & ~twice].assign(later=dropped)
    return order.sort_values(["attempt", "later", "packets"], ascending=[True, True, False], kind="stable")


def _clauses(found: pd.DataFrame) -> pd.Series:
    """Return what each drop did to its attempt, in words."""
    elsewhere = (found["netns_of_drop"] != found["netns"]).fillna(value=False)
    place = (" in network namespace " + found["netns_of_drop"].astype("string")).where(elsewhere, " here")
    inside = ~(found["first_at"] < found["opened_at"]) & ~(found["last_at"] > found["closed_at"] + _LATE)
    noun = pd.Series("packet", found.index, dtype="string").mask(found["tcp_flags"] == "SYN", "SYN")
    several = ~inside | (found["packets"] > 1)
    packets = (found["packets"].astype("string") + " ").where(inside, "") + (noun + "s").where(several, noun)
    by_nft = found["location"].str.startswith("nft_") & found["reason"].str.match("NETFILTER_DROP$")
    kind = found["kind"].astype("string")
    words = found["reason"].map(_MEANING).mask(kind == "reset-sent", found["reason"].map(_MEANING_OF_RESETS))
    meaning = (" " + words.astype("string")).fillna("")
    meaning = meaning.mask(by_nft.fillna(value=False), " by nft")
    at, on = (", " + found["location"]).fillna(""), (", on " + found["interface"]).fillna("")
    detail = " (" + found["reason"].fillna("no reason told") + at + on + ")"
    what = (packets + " dropped").mask(kind == "reset-sent", "reset sent")
    return (what + place + meaning + detail).mask(kind == "reset-received", "a reset came in")


def _together(found: pd.DataFrame) -> pd.Series:
    """Put the first clauses of each attempt into one text, and say how many more there are."""
    number = found.groupby("attempt").cumcount()
    text, *others = (found[number == n].set_index("attempt")["clause"] for n in range(_MOST_CLAUSES))
    for part in others:
        text = text + ("; " + part).reindex(text.index).fillna("")
    more = found.groupby("attempt").size() - _MOST_CLAUSES
    return text + ("; and " + more.astype("string") + " more").where(more > 0, "").reindex(text.index)
