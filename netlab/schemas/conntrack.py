"""What the kernel tracks and translates. Data only."""

from __future__ import annotations

from netlab.frames import Column, Kind, Schema

_TEXT = Kind.TEXT
_CATEGORY = Kind.CATEGORY
_INTEGER = Kind.INTEGER
_TIME = Kind.TIME

CONNTRACK = Schema(
    "conntrack",
    (
        Column("protocol", _CATEGORY, "tcp, udp, icmp …; the number where it has no name"),
        Column("family", _INTEGER, "4 or 6"),
        Column("src", _TEXT, "source of the original direction"),
        Column("sport", _INTEGER, "source port (ICMP: identifier; GRE: key)"),
        Column("dst", _TEXT, "destination of the original direction"),
        Column("dport", _INTEGER, "destination port (GRE: key)"),
        Column("reply_src", _TEXT, "source of the expected reply"),
        Column("reply_sport", _INTEGER, "source port of the reply"),
        Column("reply_dst", _TEXT, "destination of the reply"),
        Column("reply_dport", _INTEGER, "destination port of the reply"),
        Column("state", _CATEGORY, "state of TCP, SCTP or DCCP as conntrack(8) names it"),
        Column("status", _CATEGORY, "status flags by name, joined by |"),
        Column(
            "timeout_s",
            _INTEGER,
            "time until the entry expires without traffic; missing while a flow table has it",
            "s",
        ),
        Column("packets", _INTEGER, "original direction; missing when accounting is off", "packets"),
        Column("bytes", _INTEGER, "original direction, headers included", "bytes"),
        Column("reply_packets", _INTEGER, "reply direction", "packets"),
        Column("reply_bytes", _INTEGER, "reply direction", "bytes"),
        Column("mark", _INTEGER, "connection mark"),
        Column("zone", _INTEGER, "conntrack zone; 0 is the default zone"),
        Column(
            "zone_direction",
            _CATEGORY,
            "original or reply: the zone is of this direction only, the other is in the default zone",
        ),
        Column("labels", _CATEGORY, "numbers of the labels that are set, joined by |"),
        Column("helper", _CATEGORY, "helper that follows the protocol, such as ftp"),
        Column("secctx", _CATEGORY, "security context of the flow"),
        Column("started_at", _TIME, "when it was made; missing if nf_conntrack_timestamp was off then"),
        Column("offload", _CATEGORY, "software or hardware: a flow table forwards it, past conntrack"),
        Column("use", _INTEGER, "references the kernel holds to the entry"),
        Column("id", _INTEGER, "the kernel's id of the entry: a hash, rarely shared by two"),
        Column("icmp_type", _INTEGER, "ICMP type of the original direction"),
        Column("icmp_code", _INTEGER, "ICMP code of the original direction"),
        Column("netns", _INTEGER, "inode of the network namespace"),
        Column("nat", _CATEGORY, "snat, dnat, both; missing when the flow is not translated"),
    ),
)

NAT = Schema(
    "nat",
    (
        *CONNTRACK.columns,
        Column(
            "kind",
            _CATEGORY,
            "snat, dnat, both; masquerade: a snat to an address of this namespace; hairpin: sent back to the "
            "link it came from",
        ),
    ),
)

CONNTRACK_EVENTS = Schema(
    "conntrack_events",
    (
        Column("at", _TIME, "when it happened"),
        Column("clock", _CATEGORY, "whose time `at` is: kernel, or user (when netlab read the message)"),
        Column(
            "event",
            _CATEGORY,
            "new, update, destroy; found: no event, a dump had it (at the start, or after a loss)",
        ),
        *CONNTRACK.columns,
        Column("stopped_at", _TIME, "when it was destroyed, if nf_conntrack_timestamp was on"),
    ),
)
