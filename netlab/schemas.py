"""The schemas of netlab's frames: every column, its dtype, unit and meaning. Data only."""

from __future__ import annotations

from netlab.frames import Column, Kind, Schema

_TEXT, _CATEGORY, _INTEGER = Kind.TEXT, Kind.CATEGORY, Kind.INTEGER
_REAL, _FLAG, _TIME = Kind.REAL, Kind.FLAG, Kind.TIME

CONNECTIONS = Schema(
    "connections",
    (
        Column("protocol", _CATEGORY, "tcp or udp"),
        Column("family", _INTEGER, "address family of the socket: 4 or 6 (an IPv4-mapped address keeps 6)"),
        Column(
            "state",
            _CATEGORY,
            "TCP state as in RFC 9293; UDP: established (connected) or unconnected; closed when it ended",
        ),
        Column("direction", _CATEGORY, "outgoing, incoming, or unknown"),
        Column("local_address", _TEXT, "this end's address as the socket sees it"),
        Column("local_port", _INTEGER, "this end's port"),
        Column("remote_address", _TEXT, "the peer's address as the socket sees it"),
        Column("remote_port", _INTEGER, "the peer's port"),
        Column("remote_name", _TEXT, "the name the peer's address was looked up under"),
        Column("pid", _INTEGER, "owning process, as numbered in the root pid namespace"),
        Column("nspid", _INTEGER, "the owner's process id in its own pid namespace"),
        Column("process", _TEXT, "the owner's command name"),
        Column("cmdline", _TEXT, "the owner's command line"),
        Column("uid", _INTEGER, "the owner's user id"),
        Column("netns", _INTEGER, "inode of the network namespace"),
        Column(
            "cgroup",
            _TEXT,
            "path of the owner's control group, as in /proc/PID/cgroup seen from the root namespace: version "
            "2's or, if it says more, one of version 1; … in front: the beginning was not read",
        ),
        Column("container", _TEXT, "id of the owner's container, or its name (LXC, systemd-nspawn)"),
        Column("opened_at", _TIME, "when the attempt began; UDP: the first packet that was seen"),
        Column(
            "closed_at",
            _TIME,
            "when it ended; missing while it is open; of a UDP flow that went idle, its last packet",
        ),
        Column("duration_s", _REAL, "closed_at - opened_at, or the age so far", "s"),
        Column(
            "connect_ms",
            _REAL,
            "from the first SYN to the established state; UDP: from the first packet to the first answer",
            "ms",
        ),
        Column("last_packet_at", _TIME, "UDP: the last packet, to some milliseconds"),
        Column("assured", _FLAG, "UDP: packets were seen both ways"),
        Column("bytes_sent", _INTEGER, "payload sent, each byte once", "bytes"),
        Column("bytes_received", _INTEGER, "payload received in order, each byte once", "bytes"),
        Column(
            "packets_sent",
            _INTEGER,
            "segments sent and sent again; the kernel leaves an acceptor's SYN-ACK out; UDP: datagrams",
            "packets",
        ),
        Column(
            "packets_received",
            _INTEGER,
            "segments received; UDP: datagrams put into the receive queue",
            "packets",
        ),
        Column(
            "receive_drops", _INTEGER, "UDP: datagrams that came and found the receive queue full", "packets"
        ),
        Column("retransmits", _INTEGER, "segments sent again, SYNs included", "packets"),
        Column("syn_retransmits", _INTEGER, "SYNs sent again before the handshake ended", "packets"),
        Column("rtt_ms", _REAL, "smoothed round-trip time (RFC 6298 SRTT)", "ms"),
        Column("rtt_var_ms", _REAL, "round-trip time variation (RFC 6298 RTTVAR)", "ms"),
        Column("min_rtt_ms", _REAL, "smallest round-trip time in the kernel's window", "ms"),
        Column("cwnd", _INTEGER, "congestion window", "packets"),
        Column("out_of_order", _INTEGER, "segments received out of order", "packets"),
        Column("rtos", _INTEGER, "retransmission timeouts; missing where the kernel does not count them"),
        Column("rwnd_limited_ms", _REAL, "time the peer's receive window held the sender up", "ms"),
        Column("error", _CATEGORY, "errno name of the failure, such as ECONNREFUSED"),
        Column("reason", _TEXT, "the failure in words"),
        Column(
            "nat_local_address",
            _TEXT,
            "this end's address as the peer's side sees it: beyond what conntrack translates in the own "
            "namespace, then on the host; all nat_* are missing where neither translates",
        ),
        Column("nat_local_port", _INTEGER, "this end's port there"),
        Column(
            "nat_remote_address",
            _TEXT,
            "the peer's address there: where the packets go or come from in truth",
        ),
        Column("nat_remote_port", _INTEGER, "the peer's port there"),
        Column("via_gateway", _TEXT, "next hop's address; missing where the peer is on the link"),
        Column("via_mac", _TEXT, "next hop's link-layer address"),
        Column("via_interface", _TEXT, "interface the packets leave by"),
        Column("via_address", _TEXT, "source address they leave with, before translation"),
        Column("via_subnet", _TEXT, "network of that address, or else of the next hop, on the interface"),
        Column(
            "via_type",
            _CATEGORY,
            "type of the route: unicast, local, broadcast, anycast, multicast; of one that leads nowhere "
            "blackhole, unreachable or prohibit; none where no route matches",
        ),
        Column(
            "seen",
            _CATEGORY,
            "live (its start was traced), backfill (its socket was open before), poll (a snapshot)",
        ),
        Column(
            "pid_source",
            _CATEGORY,
            "how the owner is known: by connect, send, receive, close, create (of the socket), "
            "or socket (holds the descriptor)",
        ),
        Column("cookie", _INTEGER, "the kernel's socket cookie, as sock_diag reports it"),
        Column("inode", _INTEGER, "inode of the socket, as in /proc/PID/fd"),
    ),
)

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

HOPS = Schema(
    "hops",
    (
        Column("trace", _TEXT, "id of the call that made the row: tells repetitions by the same flow apart"),
        Column("host", _TEXT, "name of the host that probed"),
        Column("netns", _INTEGER, "inode of the network namespace it probed from"),
        Column("source_address", _TEXT, "source address of the probe"),
        Column("gateway", _TEXT, "next hop the probes left for; missing where the target is on the link"),
        Column("interface", _TEXT, "interface they left by"),
        Column("target", _TEXT, "what was asked for"),
        Column("target_address", _TEXT, "the address that was probed"),
        Column("run", _INTEGER, "repetition of the whole trace, from 0"),
        Column("flow", _INTEGER, "flow id: probes of one flow share addresses, ports and flow label"),
        Column("ttl", _INTEGER, "TTL (hop limit) the probe left with"),
        Column("attempt", _INTEGER, "repetition of this TTL within the run, from 0"),
        Column("address", _TEXT, "who answered; missing when nobody did"),
        Column("name", _TEXT, "the answering address's name, when looked up"),
        Column("rtt_ms", _REAL, "from sending the probe to receiving the answer", "ms"),
        Column("reply", _CATEGORY, "time-exceeded, port-unreachable, syn-ack, rst …; missing = no answer"),
        Column("reached", _FLAG, "the answer came from the destination itself, judged by its type"),
        Column("sent_at", _TIME, "when the probe was sent"),
        Column("protocol", _CATEGORY, "udp, tcp, tcp-sack or icmp"),
        Column("family", _INTEGER, "4 or 6"),
        Column("source_port", _INTEGER, "source port of the probe; icmp has none"),
        Column("port", _INTEGER, "destination port of the probe; icmp has none"),
        Column("method", _CATEGORY, "how it was probed: raw or unprivileged"),
        Column("error", _TEXT, "why this target could not be probed; such a row has no probe"),
        Column("reply_ttl", _INTEGER, "TTL of the answer when it arrived"),
        Column(
            "return_hops", _INTEGER, "how many hops away the answer started, if with a TTL of 64, 128 or 255"
        ),
        Column("dscp", _INTEGER, "service class that the probe left with"),
        Column("ecn", _INTEGER, "ECN bits that the probe left with"),
        Column("quoted_ttl", _INTEGER, "TTL of the probe where it ended; this and the next four as quoted"),
        Column("quoted_dscp", _INTEGER, "its service class there"),
        Column("quoted_ecn", _INTEGER, "its ECN bits there"),
        Column(
            "rewritten",
            _TEXT,
            "what of it had changed: source, source port, identifier, checksum, id, flow label; or nothing",
        ),
        Column("mpls", _TEXT, "labels it arrived under, outermost first, as L=label,E=class,S=last,T=TTL/…"),
        Column("reply_id", _INTEGER, "IPv4 identification of the answer; some routers count with it"),
        Column(
            "clock",
            _CATEGORY,
            "kernel: transmit and receive timestamps; kernel-receive: the latter; user: the process's own",
        ),
        Column(
            "asn", _INTEGER, "number of the AS that announces the address, when looked up in a local file"
        ),
        Column("as_name", _TEXT, "that AS's name"),
    ),
)

PATH_MTU = Schema(
    "path_mtu",
    (
        Column("trace", _TEXT, "id of the call that made the row"),
        Column("host", _TEXT, "name of the host that probed"),
        Column("netns", _INTEGER, "inode of the network namespace it probed from"),
        Column("source_address", _TEXT, "source address of the probes"),
        Column("target", _TEXT, "what was asked for"),
        Column("target_address", _TEXT, "the address that was probed"),
        Column("family", _INTEGER, "4 or 6"),
        Column("protocol", _CATEGORY, "udp or icmp"),
        Column("mtu_bytes", _INTEGER, "largest packet, with its IP header, that passes", "bytes"),
        Column("ttl", _INTEGER, "hop before the limit, 0 for this host; missing where that cannot be told"),
        Column("address", _TEXT, "that hop's address, or who told the limit"),
        Column("told", _CATEGORY, "fragmentation-needed, packet-too-big; silent (a hole); interface (own)"),
        Column("at", _TIME, "when the way was tried"),
    ),
)

PATH_METRICS = Schema(
    "path_metrics",
    (
        Column("metric", _CATEGORY, "name of the gauge: datadog.network_path.path.hops …"),
        Column("value", _REAL, "its value"),
        Column("unit", _CATEGORY, "seconds, hops or paths"),
        Column("tags", _TEXT, "its tags, separated by commas"),
        Column("trace", _TEXT, "trace as in hops"),
        Column("target", _TEXT, "what was asked for"),
        Column("at", _TIME, "when the first probe was sent"),
    ),
)

HOP_STATS = Schema(
    "hop_stats",
    (
        Column("target", _TEXT, "what was asked for"),
        Column("ttl", _INTEGER, "TTL (hop limit) the probes left with"),
        Column("address", _TEXT, "who answered most often; missing when nobody did"),
        Column("name", _TEXT, "that address's name, when looked up"),
        Column("addresses", _INTEGER, "how many different addresses answered"),
        Column("probes", _INTEGER, "how many were sent"),
        Column("answers", _INTEGER, "how many of them were answered"),
        Column("loss", _REAL, "share of probes without an answer, from 0 to 1"),
        Column("loss_low", _REAL, "lower end of its 95 % interval (Wilson)"),
        Column("loss_high", _REAL, "upper end of its 95 % interval"),
        Column("last_ms", _REAL, "round-trip time of the latest answer", "ms"),
        Column("min_ms", _REAL, "smallest round-trip time", "ms"),
        Column("mean_ms", _REAL, "mean round-trip time", "ms"),
        Column("p50_ms", _REAL, "median round-trip time", "ms"),
        Column("p95_ms", _REAL, "95 % of the answers came within this time", "ms"),
        Column("p99_ms", _REAL, "99 % of the answers came within this time", "ms"),
        Column("max_ms", _REAL, "largest round-trip time", "ms"),
        Column("jitter_ms", _REAL, "mean difference between consecutive round-trip times", "ms"),
        Column("first_at", _TIME, "when the first probe was sent"),
        Column("last_at", _TIME, "when the last probe was sent"),
    ),
)

PATH_RUNS = Schema(
    "path_runs",
    (
        Column("target", _TEXT, "what was asked for"),
        Column("flow", _INTEGER, "flow id as in hops"),
        Column("run", _INTEGER, "run as in hops; of several traces of the target, counted through them"),
        Column("at", _TIME, "when the run's first probe was sent"),
        Column("path", _TEXT, "the path's id: a hash of its hops"),
        Column("hops", _TEXT, "the path's addresses by TTL; * where it is not known, or each packet differs"),
        Column("end_ttl", _INTEGER, "the last TTL that was probed on the path"),
        Column("reached", _FLAG, "the destination answered in this run"),
    ),
)

PATH_CHANGES = Schema(
    "path_changes",
    (
        Column("target", _TEXT, "what was asked for"),
        Column("flow", _INTEGER, "flow id as in hops"),
        Column("at", _TIME, "when the first run on the new path began"),
        Column("last_at", _TIME, "when the last probe on the old path was sent"),
        Column("run", _INTEGER, "the first run on the new path"),
        Column(
            "kind",
            _CATEGORY,
            "route, return (to an earlier path), remap (by a load balancer), unknown (of a single flow)",
        ),
        Column("first_ttl", _INTEGER, "the first TTL that has another hop"),
        Column("last_ttl", _INTEGER, "the last TTL that has another hop"),
        Column("before", _TEXT, "the old path's id"),
        Column("after", _TEXT, "the new path's id"),
        Column("hops_before", _TEXT, "the old path's addresses"),
        Column("hops_after", _TEXT, "the new path's addresses"),
    ),
)

VERDICTS = Schema(
    "verdicts",
    (
        Column("target", _TEXT, "what was asked for"),
        Column("ttl", _INTEGER, "TTL (hop limit) the probes left with"),
        Column("address", _TEXT, "who answered most often; missing when nobody did"),
        Column(
            "verdict",
            _CATEGORY,
            "ok, earlier-loss, rate-limited, path-loss, forward-loss, return-loss, mtu-hole, "
            "silent-by-policy, path-changed, unreached, not-enough-data",
        ),
        Column("why", _TEXT, "the verdict's reason in words"),
        Column("probes", _INTEGER, "how many were sent"),
        Column("answers", _INTEGER, "how many of them were answered"),
        Column("loss", _REAL, "share of probes without an answer, from 0 to 1"),
        Column("loss_low", _REAL, "lower end of its 95 % interval (Wilson)"),
        Column("loss_high", _REAL, "upper end of its 95 % interval"),
        Column("later_ttl", _INTEGER, "the later hop that lost least at the same time"),
        Column("later_loss", _REAL, "that hop's loss then"),
        Column("end_loss", _REAL, "the destination's loss; missing when it was never reached"),
        Column("longest_loss", _INTEGER, "most probes lost in a row"),
        Column("spacing_s", _REAL, "median time between consecutive answers' probes", "s"),
        Column("bucket_rate", _REAL, "answers that the fitted token bucket allows", "1/s"),
        Column("bucket_burst", _INTEGER, "answers at once that it allows"),
        Column("bucket_misfit", _REAL, "share of the foretold outcomes that came out otherwise"),
        Column(
            "bucket_evidence",
            _REAL,
            "natural logarithm of how much likelier the bucket makes the outcomes than random loss does",
        ),
        Column("span_s", _REAL, "from the first probe that counts to the last", "s"),
        Column("mtu_bytes", _INTEGER, "largest packet that passes an MTU hole behind the hop", "bytes"),
    ),
)

COMPARISON = Schema(
    "comparison",
    (
        Column("target", _TEXT, "what was asked for"),
        Column("address", _TEXT, "the hop; missing where nothing answered on either side"),
        Column("change", _CATEGORY, "same (TTL), moved, appeared or vanished"),
        Column("ttl_before", _INTEGER, "TTL at which it answered most"),
        Column("ttl_after", _INTEGER, "TTL at which it answered most"),
        Column("rtt_before_ms", _REAL, "median round-trip time", "ms"),
        Column("rtt_after_ms", _REAL, "median round-trip time", "ms"),
        Column("rtt_shift_ms", _REAL, "difference of the medians", "ms"),
        Column("rtt_p", _REAL, "p-value of the Mann-Whitney test that neither side's times are longer"),
        Column("rtt_changed", _FLAG, "the shift is significant, and not below 0.1 ms"),
        Column("loss_before", _REAL, "share of its TTL's probes without an answer, from 0 to 1"),
        Column("loss_after", _REAL, "share of its TTL's probes without an answer, from 0 to 1"),
        Column("loss_p", _REAL, "p-value of Fisher's exact test that both sides lose alike"),
        Column("loss_changed", _FLAG, "the difference is significant"),
        Column("probes_before", _INTEGER, "probes that its TTL got"),
        Column("probes_after", _INTEGER, "probes that its TTL got"),
    ),
)

DELTAS = Schema(
    "deltas",
    (
        *CONNECTIONS.columns,
        Column("new", _FLAG, "this client had not seen it before"),
        Column("delta_bytes_sent", _INTEGER, "payload sent since the client's last look", "bytes"),
        Column("delta_bytes_received", _INTEGER, "payload received since then", "bytes"),
        Column("delta_packets_sent", _INTEGER, "segments sent since then", "packets"),
        Column("delta_packets_received", _INTEGER, "segments received since then", "packets"),
        Column("delta_retransmits", _INTEGER, "segments sent again since then", "packets"),
    ),
)

EVENTS = Schema(
    "events",
    (
        Column("at", _TIME, "when the state changed"),
        Column("before", _CATEGORY, "the state it left, spelt as ss(8) does"),
        Column("after", _CATEGORY, "the state it entered"),
        Column("error", _CATEGORY, "errno name, when the socket had one by then"),
        Column("protocol", _CATEGORY, "tcp"),
        Column("family", _INTEGER, "4 or 6"),
        Column("direction", _CATEGORY, "outgoing, incoming or unknown"),
        Column("local_address", _TEXT, "this end's address"),
        Column("local_port", _INTEGER, "this end's port"),
        Column("remote_address", _TEXT, "the peer's address"),
        Column("remote_port", _INTEGER, "the peer's port"),
        Column("pid", _INTEGER, "process id of the owner"),
        Column("process", _TEXT, "command name of the owner"),
        Column("netns", _INTEGER, "inode of the network namespace"),
        Column("cookie", _INTEGER, "the kernel's socket cookie"),
    ),
)

COST = Schema(
    "cost",
    (
        Column("program", _TEXT, "name of the eBPF program"),
        Column("kind", _CATEGORY, "program or map"),
        Column("runs", _INTEGER, "how often it ran; missing while the kernel does not count"),
        Column("run_ms", _REAL, "time it ran in all", "ms"),
        Column("ns_per_run", _REAL, "mean time of one run", "ns"),
        Column("memory_bytes", _INTEGER, "kernel memory it holds", "bytes"),
        Column("max_entries", _INTEGER, "entries that fit into the map; bytes of a ring buffer"),
    ),
)

DROPS = Schema(
    "drops",
    (
        Column("first_at", _TIME, "when the first packet of this kind was dropped"),
        Column("last_at", _TIME, "when the last one was"),
        Column("kind", _CATEGORY, "dropped; reset-sent or reset-received: a TCP RST of or for this host"),
        Column(
            "reason",
            _CATEGORY,
            "the kernel's name for why (enum skb_drop_reason, of resets sent enum sk_rst_reason); "
            "NOT_SPECIFIED: it let go of the packet without saying why, which may be a normal end",
        ),
        Column("location", _TEXT, "kernel function that let go of the packet"),
        Column("protocol", _CATEGORY, "tcp, udp, icmp or icmpv6"),
        Column("family", _INTEGER, "address family of the packet: 4 or 6"),
        Column("src", _TEXT, "source address as in the packet at that place"),
        Column("sport", _INTEGER, "source port; missing in later fragments"),
        Column("dst", _TEXT, "destination address"),
        Column("dport", _INTEGER, "destination port; missing in later fragments"),
        Column("icmp_type", _INTEGER, "ICMP type"),
        Column("icmp_code", _INTEGER, "ICMP code"),
        Column("interface", _TEXT, "the interface it came by or was about to leave by, where known"),
        Column("netns", _INTEGER, "inode of the network namespace where it happened"),
        Column("tcp_flags", _CATEGORY, "TCP flags of all of them together, joined by |"),
        Column("packets", _INTEGER, "as nft counts them: a GSO or GRO batch is one", "packets"),
        Column("bytes", _INTEGER, "IP headers included, where they were there already", "bytes"),
        Column("cookie", _INTEGER, "cookie of the connection's socket, by the kernel or else by the tuple"),
        Column("pid", _INTEGER, "process id of that connection's owner"),
        Column("process", _TEXT, "command name of that connection's owner"),
    ),
)

DOCTOR = Schema(
    "doctor",
    (
        Column("capability", _TEXT, "what netlab can do"),
        Column("state", _CATEGORY, "yes, no or unknown"),
        Column("why", _TEXT, "what was found"),
        Column("fix", _TEXT, "the command that changes it; missing when nothing needs fixing"),
    ),
)

ALL = {
    schema.name: schema
    for schema in (
        CONNECTIONS,
        DELTAS,
        EVENTS,
        CONNTRACK,
        NAT,
        CONNTRACK_EVENTS,
        ROUTES,
        GATEWAY,
        EXPLANATION,
        HOPS,
        PATH_MTU,
        PATH_METRICS,
        HOP_STATS,
        PATH_RUNS,
        PATH_CHANGES,
        VERDICTS,
        COMPARISON,
        DROPS,
        COST,
        DOCTOR,
    )
}


def as_markdown() -> str:
    """Return every schema as a Markdown document: `docs/schemas.md`."""
    parts = ["# Columns\n", "Made by `python -m netlab.schemas`. Missing values are `NA` in every column."]
    for schema in ALL.values():
        parts += [f"\n## {schema.name}\n", "| column | dtype | unit | meaning |", "|---|---|---|---|"]
        for column in schema.columns:
            meaning = column.meaning.replace("|", "\\|")
            parts.append(f"| `{column.name}` | {column.kind.value} | {column.unit} | {meaning} |")
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    import sys

    sys.stdout.write(as_markdown())
