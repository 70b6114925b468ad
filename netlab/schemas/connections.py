"""What captures and snapshots of connections tell. Data only."""

from __future__ import annotations

from netlab.frames import Column, Schema
from netlab.schemas.kinds import CATEGORY, FLAG, INTEGER, REAL, TEXT, TIME

CONNECTIONS = Schema(
    "connections",
    (
        Column("process", TEXT, "the owner's command name"),
        Column(
            "error",
            CATEGORY,
            "errno name of the failure, such as ECONNREFUSED; UDP: what ICMP last told of the peer, which "
            "may have answered since, if the socket is connected or asks for that (IP_RECVERR)",
        ),
        Column("remote_address", TEXT, "the peer's address as the socket sees it"),
        Column("remote_port", INTEGER, "the peer's port"),
        Column(
            "state",
            CATEGORY,
            "TCP state as in RFC 9293; UDP: established (connected) or unconnected; closed when it ended",
        ),
        Column("direction", CATEGORY, "outgoing, incoming, or unknown"),
        Column("reason", TEXT, "the failure in words"),
        Column("protocol", CATEGORY, "tcp or udp"),
        Column("remote_name", TEXT, "the name the peer's address was looked up under"),
        Column(
            "connect_ms",
            REAL,
            "from the first SYN to the established state; missing where Fast Open left the SYN to a write "
            "and it was sent again; UDP: from the first packet to the first answer, where the first packet "
            "was seen",
            "ms",
        ),
        Column("family", INTEGER, "address family of the socket: 4 or 6 (an IPv4-mapped address keeps 6)"),
        Column("local_address", TEXT, "this end's address as the socket sees it"),
        Column("local_port", INTEGER, "this end's port"),
        Column("nspid", INTEGER, "the owner's process id in its own pid namespace"),
        Column("cmdline", TEXT, "the owner's command line"),
        Column("uid", INTEGER, "the owner's user id"),
        Column(
            "mark",
            INTEGER,
            "the socket's firewall mark (SO_MARK); of a UDP flow that ended, as of its first packet",
        ),
        Column(
            "bound_ifindex",
            INTEGER,
            "index of the interface or VRF that the socket is bound to (SO_BINDTODEVICE, or the scope of a "
            "link-local address), in its own namespace; missing where it is to none",
        ),
        Column(
            "cgroup",
            TEXT,
            "path of the owner's control group, as in /proc/PID/cgroup seen from the root namespace: version "
            "2's or, if it says more, one of version 1; … in front: the beginning was not read",
        ),
        Column(
            "closed_at",
            TIME,
            "when it ended; missing while it is open; of a UDP flow that went idle, its last packet",
        ),
        Column("last_packet_at", TIME, "UDP: the last packet, to some milliseconds"),
        Column("assured", FLAG, "UDP: packets were seen both ways"),
        Column(
            "packets_sent",
            INTEGER,
            "segments sent and sent again, which the kernel counts from 0 again after 2^32; it leaves an "
            "acceptor's SYN-ACK out; UDP: datagrams",
            "packets",
        ),
        Column(
            "packets_received",
            INTEGER,
            "segments received, counted likewise; UDP: datagrams put into the receive queue",
            "packets",
        ),
        Column(
            "receive_drops", INTEGER, "UDP: datagrams that came and found the receive queue full", "packets"
        ),
        Column("rtt_var_ms", REAL, "round-trip time variation (RFC 6298 RTTVAR)", "ms"),
        Column("min_rtt_ms", REAL, "smallest round-trip time in the kernel's window", "ms"),
        Column("cwnd", INTEGER, "congestion window", "packets"),
        Column("out_of_order", INTEGER, "segments received out of order", "packets"),
        Column("rtos", INTEGER, "retransmission timeouts; missing where the kernel does not count them"),
        Column("rwnd_limited_ms", REAL, "time the peer's receive window held the sender up", "ms"),
        Column(
            "receive_queue_bytes",
            INTEGER,
            "while it is open: payload that came and that the process has not read (ss: Recv-Q); UDP: the "
            "memory that unread datagrams take, where the row is a socket and no flow",
            "bytes",
        ),
        Column(
            "send_queue_bytes",
            INTEGER,
            "while it is open: payload that the process has written and the peer has not acknowledged (ss: "
            "Send-Q); UDP: the memory of datagrams under way, likewise",
            "bytes",
        ),
        Column(
            "nat_local_address",
            TEXT,
            "this end's address as the peer's side sees it: beyond what conntrack translates in the own "
            "namespace, then on the host; all nat_* are missing where neither translates",
        ),
        Column("nat_local_port", INTEGER, "this end's port there"),
        Column(
            "nat_remote_address",
            TEXT,
            "the peer's address there: where the packets go or come from in truth",
        ),
        Column("nat_remote_port", INTEGER, "the peer's port there"),
        Column("via_gateway", TEXT, "next hop's address; missing where the peer is on the link"),
        Column("via_mac", TEXT, "next hop's link-layer address"),
        Column("via_interface", TEXT, "interface the packets leave by"),
        Column("via_address", TEXT, "source address they leave with, before translation"),
        Column("via_subnet", TEXT, "network of that address, or else of the next hop, on the interface"),
        Column(
            "via_type",
            CATEGORY,
            "type of the route: unicast, local, broadcast, anycast, multicast; of one that leads nowhere "
            "blackhole, unreachable or prohibit; none where no route matches",
        ),
        Column(
            "seen",
            CATEGORY,
            "live (its start was traced), backfill (its socket was open before; UDP: or used in a pause or "
            "by others), poll (a snapshot)",
        ),
        Column(
            "pid_source",
            CATEGORY,
            "how the owner is known: by connect, send, receive, close, create (of the socket), "
            "or socket (holds the descriptor)",
        ),
        Column(
            "protocol_stack",
            TEXT,
            "what the first bytes tell of the protocols, the outermost layer first (tls+postgres), where "
            "packets are read (`capture(protocols=…)`); missing where they tell nothing for sure",
        ),
        Column("cookie", INTEGER, "the kernel's socket cookie, as sock_diag reports it"),
        Column("inode", INTEGER, "inode of the socket, as in /proc/PID/fd"),
        Column("pid", INTEGER, "owning process, as numbered in the root pid namespace"),
        Column("container", TEXT, "id of the owner's container, or its name (LXC, systemd-nspawn)"),
        Column("netns", INTEGER, "inode of the network namespace"),
        Column("opened_at", TIME, "when the attempt began; UDP: the first packet that was seen"),
        Column("duration_s", REAL, "closed_at - opened_at, or the age so far", "s"),
        Column("bytes_sent", INTEGER, "payload sent, each byte once", "bytes"),
        Column("bytes_received", INTEGER, "payload received in order, each byte once", "bytes"),
        Column(
            "syn_retransmits",
            INTEGER,
            "SYNs, or a server's answers to it, sent again before the handshake ended",
            "packets",
        ),
        Column("retransmits", INTEGER, "segments sent again, SYNs included", "packets"),
        Column("rtt_ms", REAL, "smoothed round-trip time (RFC 6298 SRTT)", "ms"),
    ),
)

DELTAS = Schema(
    "deltas",
    (
        *CONNECTIONS.columns,
        Column("new", FLAG, "this client had not seen it before"),
        Column("delta_bytes_sent", INTEGER, "payload sent since the client's last look", "bytes"),
        Column("delta_bytes_received", INTEGER, "payload received since then", "bytes"),
        Column("delta_packets_sent", INTEGER, "segments sent since then", "packets"),
        Column("delta_packets_received", INTEGER, "segments received since then", "packets"),
        Column("delta_retransmits", INTEGER, "segments sent again since then", "packets"),
    ),
)

EVENTS = Schema(
    "events",
    (
        Column("at", TIME, "when the state changed"),
        Column("before", CATEGORY, "the state it left, spelt as ss(8) does"),
        Column("after", CATEGORY, "the state it entered"),
        Column("error", CATEGORY, "errno name, when the socket had one by then"),
        Column("protocol", CATEGORY, "tcp"),
        Column("family", INTEGER, "4 or 6"),
        Column("direction", CATEGORY, "outgoing, incoming or unknown"),
        Column("local_address", TEXT, "this end's address"),
        Column("local_port", INTEGER, "this end's port"),
        Column("remote_address", TEXT, "the peer's address"),
        Column("remote_port", INTEGER, "the peer's port"),
        Column("pid", INTEGER, "process id of the owner"),
        Column("process", TEXT, "command name of the owner"),
        Column("netns", INTEGER, "inode of the network namespace"),
        Column("cookie", INTEGER, "the kernel's socket cookie"),
    ),
)

LISTENERS = Schema(
    "listeners",
    (
        Column("process", TEXT, "the owner's command name; of several that share the socket, one"),
        Column("protocol", CATEGORY, "tcp or udp"),
        Column("local_port", INTEGER, "the port"),
        Column("local_address", TEXT, "the address; 0.0.0.0 and :: are every address"),
        Column("accept_queue", INTEGER, "TCP: connections that wait for accept(2)", "connections"),
        Column(
            "accept_limit",
            INTEGER,
            "TCP: how many may wait: what listen(2) asked for, or net.core.somaxconn if that is less; Linux "
            "lets one more in",
            "connections",
        ),
        Column("receive_queue_bytes", INTEGER, "UDP: the memory that unread datagrams take", "bytes"),
        Column("receive_limit_bytes", INTEGER, "UDP: the memory that they may take (SO_RCVBUF)", "bytes"),
        Column(
            "drops",
            INTEGER,
            "dropped at this socket since it began: TCP: SYNs and ends of handshakes for which there was no "
            "room, above all; UDP: datagrams for which there was none, and damaged ones",
            "packets",
        ),
        Column("family", INTEGER, "address family of the socket: 4 or 6; one of 6 may take IPv4, too"),
        Column("pid", INTEGER, "owning process, as numbered in the root pid namespace"),
        Column("nspid", INTEGER, "the owner's process id in its own pid namespace"),
        Column("cmdline", TEXT, "the owner's command line"),
        Column("uid", INTEGER, "the owner's user id"),
        Column("bound_ifindex", INTEGER, "index of the interface or VRF that the socket is bound to"),
        Column("cgroup", TEXT, "path of the owner's control group, as in connections"),
        Column("container", TEXT, "id of the owner's container, or its name (LXC, systemd-nspawn)"),
        Column("netns", INTEGER, "inode of the network namespace"),
        Column("cookie", INTEGER, "the kernel's socket cookie, as sock_diag reports it"),
        Column("inode", INTEGER, "inode of the socket, as in /proc/PID/fd"),
    ),
)

DROPS = Schema(
    "drops",
    (
        Column("first_at", TIME, "when the first packet of this kind was dropped"),
        Column("last_at", TIME, "when the last one was"),
        Column("kind", CATEGORY, "dropped; reset-sent or reset-received: a TCP RST of or for this host"),
        Column(
            "reason",
            CATEGORY,
            "the kernel's name for why (enum skb_drop_reason, of resets sent enum sk_rst_reason); "
            "NOT_SPECIFIED: it let go of the packet without saying why, which may be a normal end",
        ),
        Column("location", TEXT, "kernel function that let go of the packet"),
        Column("protocol", CATEGORY, "tcp, udp, icmp or icmpv6"),
        Column("src", TEXT, "source address as in the packet at that place"),
        Column("sport", INTEGER, "source port; missing in later fragments"),
        Column("dst", TEXT, "destination address"),
        Column("family", INTEGER, "address family of the packet: 4 or 6"),
        Column("dport", INTEGER, "destination port; missing in later fragments"),
        Column("icmp_type", INTEGER, "ICMP type"),
        Column("icmp_code", INTEGER, "ICMP code"),
        Column("interface", TEXT, "the interface it came by or was about to leave by, where known"),
        Column("netns", INTEGER, "inode of the network namespace where it happened"),
        Column("tcp_flags", CATEGORY, "TCP flags of all of them together, joined by |"),
        Column(
            "packets",
            INTEGER,
            "as nft counts them: a GSO or GRO batch, or a datagram put together, is one",
            "packets",
        ),
        Column("bytes", INTEGER, "IP headers included, where they were there already", "bytes"),
        Column("cookie", INTEGER, "cookie of the connection's socket, by the kernel or else by the tuple"),
        Column("pid", INTEGER, "process id of that connection's owner"),
        Column("process", TEXT, "command name of that connection's owner"),
    ),
)

COST = Schema(
    "cost",
    (
        Column("program", TEXT, "name of the eBPF program"),
        Column("kind", CATEGORY, "program or map"),
        Column("runs", INTEGER, "how often it ran; missing while the kernel does not count"),
        Column("run_ms", REAL, "time it ran in all", "ms"),
        Column("ns_per_run", REAL, "mean time of one run", "ns"),
        Column("memory_bytes", INTEGER, "kernel memory it holds", "bytes"),
        Column("max_entries", INTEGER, "entries that fit into the map; bytes of a ring buffer"),
    ),
)
