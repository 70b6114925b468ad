"""Which way packets go, on this host. Data only."""

from __future__ import annotations

from netlab.frames import Column, Kind, Schema

_TEXT = Kind.TEXT
_CATEGORY = Kind.CATEGORY
_INTEGER = Kind.INTEGER
_REAL = Kind.REAL

ROUTES = Schema(
    "routes",
    (
        Column("netns", _INTEGER, "inode of the network namespace"),
        Column("family", _INTEGER, "4 or 6"),
        Column("table", _INTEGER, "routing table: 254 is main, 255 local, 253 default"),
        Column("type", _CATEGORY, "unicast, local, broadcast, multicast, blackhole, unreachable …"),
        Column("destination", _TEXT, "network it is for; 0.0.0.0/0 or ::/0 is the default route"),
        Column("source", _TEXT, "network that the source must be in (IPv6 source routing)"),
        Column(
            "gateway", _TEXT, "next hop's address, of either family; missing where the network is on the link"
        ),
        Column("interface", _TEXT, "interface of this next hop"),
        Column("address", _TEXT, "preferred source address"),
        Column("metric", _INTEGER, "of two routes to one network the lower counts"),
        Column(
            "protocol", _CATEGORY, "who made it: kernel, boot (ip without a word), static, dhcp, ra, bird …"
        ),
        Column("scope", _CATEGORY, "global, link or host; IPv6 has global only"),
        Column("flags", _CATEGORY, "flags of the next hop by name, joined by |: linkdown, dead, onlink …"),
        Column("nexthop", _INTEGER, "this next hop's place in the route, from 0"),
        Column("nexthops", _INTEGER, "how many next hops the route has"),
        Column("weight", _INTEGER, "share of the flows, of a route with several next hops"),
        Column("nexthop_id", _INTEGER, "id of the next hop object that it uses"),
        Column("encap", _CATEGORY, "light-weight tunnel: mpls, ip, ip6, seg6, bpf …"),
        Column("mtu", _INTEGER, "the route's own MTU", "bytes"),
        Column("tos", _INTEGER, "type of service that it is for; 0 is any"),
        Column("preference", _CATEGORY, "IPv6 router preference (RFC 4191): low, medium, high"),
    ),
)

GATEWAY = Schema(
    "gateway",
    (
        Column("netns", _INTEGER, "inode of the network namespace"),
        Column("family", _INTEGER, "4 or 6"),
        Column("destination", _TEXT, "the address that was asked about"),
        Column("type", _CATEGORY, "as via_type of connections"),
        Column(
            "gateway",
            _TEXT,
            "next hop's address, of either family; missing where the destination is on the link",
        ),
        Column("mac", _TEXT, "next hop's link-layer address; missing while it is not resolved"),
        Column("neighbour", _CATEGORY, "state of the next hop's neighbour entry: reachable, stale, failed …"),
        Column("interface", _TEXT, "interface the packets leave by"),
        Column("interface_kind", _TEXT, "what it is: veth, bridge, vlan, tun …; missing of plain devices"),
        Column("vrf", _TEXT, "the VRF that the interface belongs to"),
        Column("address", _TEXT, "source address they leave with"),
        Column("subnet", _TEXT, "network of that address, or else of the next hop, on the interface"),
        Column("table", _INTEGER, "routing table that had the answer: 254 is main, 255 local"),
        Column("route", _TEXT, "network of the route that matched"),
        Column("metric", _INTEGER, "that route's metric"),
        Column("nexthops", _INTEGER, "how many next hops that route has; the kernel chose this one"),
        Column("mtu", _INTEGER, "MTU of this path, where it is known not to be the interface's", "bytes"),
        Column("error", _CATEGORY, "errno name of the kernel's refusal, such as ENETUNREACH"),
        Column("reason", _TEXT, "the refusal in words"),
    ),
)

EXPLANATION = Schema(
    "explanation",
    (
        Column("step", _INTEGER, "place on the way that this end's packets take, from 0"),
        Column(
            "station",
            _CATEGORY,
            "socket, translation, route, bridge (from port to port), peer (the other socket), hop (of a "
            "trace); unknown where the way cannot be followed",
        ),
        Column("netns", _INTEGER, "inode of the network namespace"),
        Column("namespace", _TEXT, "its name under /run/netns"),
        Column("protocol", _CATEGORY, "tcp or udp"),
        Column("src", _TEXT, "source of the packet that comes to this station"),
        Column("sport", _INTEGER, "its source port"),
        Column("dst", _TEXT, "its destination"),
        Column("dport", _INTEGER, "its destination port"),
        Column("new_src", _TEXT, "translation: the source that it leaves with"),
        Column("new_sport", _INTEGER, "translation: the source port that it leaves with"),
        Column("new_dst", _TEXT, "translation: the destination that it leaves with"),
        Column("new_dport", _INTEGER, "translation: the destination port that it leaves with"),
        Column("nat", _CATEGORY, "what the flow's entry does: snat, dnat or both"),
        Column(
            "flow_direction", _CATEGORY, "original, or reply: this end's packets answer, and are turned back"
        ),
        Column("type", _CATEGORY, "as via_type of connections"),
        Column("gateway", _TEXT, "next hop's address; missing where the destination is on the link"),
        Column("mac", _TEXT, "next hop's link-layer address, as far as it is known"),
        Column("interface", _TEXT, "interface the packet leaves by; of a bridge, its port"),
        Column("interface_kind", _TEXT, "what that is: veth, bridge, vlan …; missing of plain devices"),
        Column("subnet", _TEXT, "network of the source address, or else of the next hop, on the interface"),
        Column("to_interface", _TEXT, "the other end of that interface"),
        Column("to_netns", _INTEGER, "inode of the network namespace that it is in"),
        Column("state", _CATEGORY, "state of the socket, as in connections"),
        Column("pid", _INTEGER, "the socket's owner"),
        Column("process", _TEXT, "the owner's command name"),
        Column("ttl", _INTEGER, "hop: the TTL it answered at"),
        Column("address", _TEXT, "hop: who answered; missing when nobody did"),
        Column("rtt_ms", _REAL, "hop: median round-trip time", "ms"),
        Column("error", _CATEGORY, "errno name of the connection's failure, or of the kernel's refusal"),
        Column("reason", _TEXT, "that in words"),
        Column(
            "source",
            _CATEGORY,
            "who says so: connection (its row), conntrack, routing, bridge, sockets, traceroute",
        ),
        Column("detail", _TEXT, "what cannot be told here and why, or what else is to know"),
    ),
)
