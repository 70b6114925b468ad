"""What captures and snapshots of connections tell. Data only."""

from __future__ import annotations

from netlab.frames import Column, Kind, Schema

_TEXT = Kind.TEXT
_CATEGORY = Kind.CATEGORY
_INTEGER = Kind.INTEGER
_REAL = Kind.REAL
_FLAG = Kind.FLAG
_TIME = Kind.TIME

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
            "mark",
            _INTEGER,
            "the socket's firewall mark (SO_MARK); of a UDP flow that ended, as of its first packet",
        ),
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
        Column(
            "syn_retransmits",
            _INTEGER,
            "SYNs, or a server's answers to it, sent again before the handshake ended",
            "packets",
        ),
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
