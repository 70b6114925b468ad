"""Which way packets go, on this host. Data only."""

from __future__ import annotations

from netlab.frames import Column, Schema
from netlab.schemas.kinds import CATEGORY, INTEGER, REAL, TEXT

ROUTES = Schema(
    "routes",
    (
        Column("netns", INTEGER, "inode of the network namespace"),
        Column("family", INTEGER, "4 or 6"),
        Column("table", INTEGER, "routing table: 254 is main, 255 local, 253 default"),
        Column("type", CATEGORY, "unicast, local, broadcast, multicast, blackhole, unreachable …"),
        Column("destination", TEXT, "network it is for; 0.0.0.0/0 or ::/0 is the default route"),
        Column("source", TEXT, "network that the source must be in (IPv6 source routing)"),
        Column(
            "gateway", TEXT, "next hop's address, of either family; missing where the network is on the link"
        ),
        Column("interface", TEXT, "interface of this next hop"),
        Column("address", TEXT, "preferred source address"),
        Column("metric", INTEGER, "of two routes to one network the lower counts"),
        Column(
            "protocol", CATEGORY, "who made it: kernel, boot (ip without a word), static, dhcp, ra, bird …"
        ),
        Column("scope", CATEGORY, "global, link or host; IPv6 has global only"),
        Column("flags", CATEGORY, "flags of the next hop by name, joined by |: linkdown, dead, onlink …"),
        Column("nexthop", INTEGER, "this next hop's place in the route, from 0"),
        Column("nexthops", INTEGER, "how many next hops the route has"),
        Column("weight", INTEGER, "share of the flows, of a route with several next hops"),
        Column("nexthop_id", INTEGER, "id of the next hop object that it uses"),
        Column("encap", CATEGORY, "light-weight tunnel: mpls, ip, ip6, seg6, bpf …"),
        Column("mtu", INTEGER, "the route's own MTU", "bytes"),
        Column("tos", INTEGER, "type of service that it is for; 0 is any"),
        Column("preference", CATEGORY, "IPv6 router preference (RFC 4191): low, medium, high"),
    ),
)

GATEWAY = Schema(
    "gateway",
    (
        Column("netns", INTEGER, "inode of the network namespace"),
        Column("family", INTEGER, "4 or 6"),
        Column("destination", TEXT, "the address that was asked about"),
        Column("type", CATEGORY, "as via_type of connections"),
        Column(
            "gateway",
            TEXT,
            "next hop's address, of either family; missing where the destination is on the link",
        ),
        Column("mac", TEXT, "next hop's link-layer address; missing while it is not resolved"),
        Column("neighbour", CATEGORY, "state of the next hop's neighbour entry: reachable, stale, failed …"),
        Column("interface", TEXT, "interface the packets leave by"),
        Column("interface_kind", TEXT, "what it is: veth, bridge, vlan, tun …; missing of plain devices"),
        Column("vrf", TEXT, "the VRF that the interface belongs to"),
        Column("address", TEXT, "source address they leave with"),
        Column("subnet", TEXT, "network of that address, or else of the next hop, on the interface"),
        Column("table", INTEGER, "routing table that had the answer: 254 is main, 255 local"),
        Column("route", TEXT, "network of the route that matched"),
        Column("metric", INTEGER, "that route's metric"),
        Column("nexthops", INTEGER, "how many next hops that route has; the kernel chose this one"),
        Column("mtu", INTEGER, "MTU of this path, where it is known not to be the interface's", "bytes"),
        Column("error", CATEGORY, "errno name of the kernel's refusal, such as ENETUNREACH"),
        Column("reason", TEXT, "the refusal in words"),
    ),
)

EXPLANATION = Schema(
    "explanation",
    (
        Column("step", INTEGER, "place on the way that this end's packets take, from 0"),
        Column(
            "station",
            CATEGORY,
            "socket, translation, route, bridge (from port to port), peer (the other socket), hop (of a "
            "trace); unknown where the way cannot be followed",
        ),
        Column("netns", INTEGER, "inode of the network namespace"),
        Column("namespace", TEXT, "its name under /run/netns"),
        Column("protocol", CATEGORY, "tcp or udp"),
        Column("src", TEXT, "source of the packet that comes to this station"),
        Column("sport", INTEGER, "its source port"),
        Column("dst", TEXT, "its destination"),
        Column("dport", INTEGER, "its destination port"),
        Column("new_src", TEXT, "translation: the source that it leaves with"),
        Column("new_sport", INTEGER, "translation: the source port that it leaves with"),
        Column("new_dst", TEXT, "translation: the destination that it leaves with"),
        Column("new_dport", INTEGER, "translation: the destination port that it leaves with"),
        Column("nat", CATEGORY, "what the flow's entry does: snat, dnat or both"),
        Column(
            "flow_direction", CATEGORY, "original, or reply: this end's packets answer, and are turned back"
        ),
        Column("type", CATEGORY, "as via_type of connections"),
        Column("gateway", TEXT, "next hop's address; missing where the destination is on the link"),
        Column("mac", TEXT, "next hop's link-layer address, as far as it is known"),
        Column("interface", TEXT, "interface the packet leaves by; of a bridge, its port"),
        Column("interface_kind", TEXT, "what that is: veth, bridge, vlan …; missing of plain devices"),
        Column("subnet", TEXT, "network of the source address, or else of the next hop, on the interface"),
        Column("to_interface", TEXT, "the other end of that interface"),
        Column("to_netns", INTEGER, "inode of the network namespace that it is in"),
        Column("state", CATEGORY, "state of the socket, as in connections"),
        Column("pid", INTEGER, "the socket's owner"),
        Column("process", TEXT, "the owner's command name"),
        Column("ttl", INTEGER, "hop: the TTL it answered at"),
        Column("address", TEXT, "hop: who answered; missing when nobody did"),
        Column("rtt_ms", REAL, "hop: median round-trip time", "ms"),
        Column("error", CATEGORY, "errno name of the connection's failure, or of the kernel's refusal"),
        Column("reason", TEXT, "that in words"),
        Column(
            "source",
            CATEGORY,
            "who says so: connection (its row), conntrack, routing, bridge, sockets, traceroute",
        ),
        Column("detail", TEXT, "what cannot be told here and why, or what else is to know"),
    ),
)
