"""What the kernel tracks and translates. Data only."""

from __future__ import annotations

from netlab.frames import Column, Schema
from netlab.schemas.kinds import CATEGORY, INTEGER, TEXT, TIME

CONNTRACK = Schema(
    "conntrack",
    (
        Column("protocol", CATEGORY, "tcp, udp, icmp …; the number where it has no name"),
        Column("family", INTEGER, "4 or 6"),
        Column("src", TEXT, "source of the original direction"),
        Column("sport", INTEGER, "source port (ICMP: identifier; GRE: key)"),
        Column("dst", TEXT, "destination of the original direction"),
        Column("dport", INTEGER, "destination port (GRE: key)"),
        Column("reply_src", TEXT, "source of the expected reply"),
        Column("reply_sport", INTEGER, "source port of the reply"),
        Column("reply_dst", TEXT, "destination of the reply"),
        Column("reply_dport", INTEGER, "destination port of the reply"),
        Column("zone", INTEGER, "conntrack zone; 0 is the default zone"),
        Column(
            "zone_direction",
            CATEGORY,
            "original or reply: the zone is of this direction only, the other is in the default zone",
        ),
        Column("labels", CATEGORY, "numbers of the labels that are set, joined by |"),
        Column("helper", CATEGORY, "helper that follows the protocol, such as ftp"),
        Column("secctx", CATEGORY, "security context of the flow"),
        Column("started_at", TIME, "when it was made; missing if nf_conntrack_timestamp was off then"),
        Column("offload", CATEGORY, "software or hardware: a flow table forwards it, past conntrack"),
        Column("use", INTEGER, "references the kernel holds to the entry"),
        Column("id", INTEGER, "the kernel's id of the entry: a hash, rarely shared by two"),
        Column("icmp_type", INTEGER, "ICMP type of the original direction"),
        Column("icmp_code", INTEGER, "ICMP code of the original direction"),
        Column("state", CATEGORY, "state of TCP, SCTP or DCCP as conntrack(8) names it"),
        Column("status", CATEGORY, "status flags by name, joined by |"),
        Column(
            "timeout_s",
            INTEGER,
            "time until the entry expires without traffic; missing while a flow table has it",
            "s",
        ),
        Column("packets", INTEGER, "original direction; missing when accounting is off", "packets"),
        Column("bytes", INTEGER, "original direction, headers included", "bytes"),
        Column("reply_packets", INTEGER, "reply direction", "packets"),
        Column("reply_bytes", INTEGER, "reply direction", "bytes"),
        Column("mark", INTEGER, "connection mark"),
        Column("netns", INTEGER, "inode of the network namespace"),
        Column("nat", CATEGORY, "snat, dnat, both; missing when the flow is not translated"),
    ),
)

NAT = Schema(
    "nat",
    (
        *CONNTRACK.columns,
        Column(
            "kind",
            CATEGORY,
            "snat, dnat, both; masquerade: a snat to an address of this namespace; hairpin: sent back to the "
            "link it came from",
        ),
    ),
)

CONNTRACK_EVENTS = Schema(
    "conntrack_events",
    (
        Column("at", TIME, "when it happened"),
        Column("clock", CATEGORY, "whose time `at` is: kernel, or user (when netlab read the message)"),
        Column(
            "event",
            CATEGORY,
            "new, update, destroy; found: no event, a dump had it (at the start, or after a loss)",
        ),
        *CONNTRACK.columns,
        Column("stopped_at", TIME, "when it was destroyed, if nf_conntrack_timestamp was on"),
    ),
)

CONNTRACK_STATS = Schema(
    "conntrack_stats",
    (
        Column("netns", INTEGER, "inode of the network namespace"),
        Column("cpu", INTEGER, "the CPU that counted"),
        Column("found", INTEGER, "how often NAT wanted a tuple for a new flow, and it was taken"),
        Column("invalid", INTEGER, "packets that fit no connection (state INVALID)", "packets"),
        Column("insert", INTEGER, "entries made by user space (`conntrack -I`); others are not counted"),
        Column(
            "insert_failed",
            INTEGER,
            "packets dropped because their new entry's tuple was taken, as when SNAT has no port left",
            "packets",
        ),
        Column(
            "drop",
            INTEGER,
            "packets dropped for want of an entry: insert_failed, and the rest because the table was full",
            "packets",
        ),
        Column("early_drop", INTEGER, "entries not assured that a full table gave up for new ones"),
        Column("error", INTEGER, "ICMP messages that could not be made sense of", "packets"),
        Column("search_restart", INTEGER, "look-ups that began anew because the table was changed meanwhile"),
        Column("clash_resolve", INTEGER, "racing first packets of one flow that were let through"),
        Column("chaintoolong", INTEGER, "packets dropped because the hash bucket was full", "packets"),
        Column("entries", INTEGER, "entries in the namespace's table; the same in each of its rows"),
        Column("max_entries", INTEGER, "how many it may have: nf_conntrack_max"),
        Column("buckets", INTEGER, "hash buckets, which all namespaces share: nf_conntrack_buckets"),
    ),
)
