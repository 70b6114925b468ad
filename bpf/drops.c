/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Packets that the kernel dropped, and TCP resets it sent or received, each with the kernel's own reason.
 *
 * TCP, UDP and ICMP over IP. Alike drops are added up in a map, so that a flood of them costs a look-up each.
 *
 * Compile-time settings, put in front of this file by netlab/tracer/, beside the filters that tcp.c names:
 *   NETLAB_DROP_SAYS_NOTHING(reason)  true for the reasons that TCP also gives to packets it has done with
 *   NETLAB_DROP_HAS_REASON, NETLAB_DROP_HAS_RECEIVER, NETLAB_RESET_HAS_REASON  what this kernel's tracepoints tell
 */
#include "netlab.h"

#define NETLAB_DROP_INTERFACE 16
#define NETLAB_DROP_EXTENSIONS 4	/* IPv6 extension headers that are walked over */
#define NETLAB_HEADER_UNSET 0xffff	/* a header offset of struct sk_buff that was never set */
#define NETLAB_LATER_FRAGMENT 0x1fff	/* the offset bits of iphdr.frag_off */
/* Inodes of namespaces: fixed ones below 0xf0000000, then numbers in order (include/linux/proc_ns.h). */
#define NETLAB_FIRST_INODE 0xeffffff0
#define NETLAB_INODES (1 << 24)

/* IPv6's own numbers are macros (include/uapi/linux/in6.h), which the header tree lacks. */
#define NETLAB_HOPOPTS 0
#define NETLAB_ROUTING 43
#define NETLAB_FRAGMENT 44
#define NETLAB_ICMPV6 58
#define NETLAB_DSTOPTS 60

enum netlab_drop_kind { NETLAB_DROPPED, NETLAB_RESET_SENT, NETLAB_RESET_RECEIVED };

/* See tracer/layout.py. */
struct netlab_drop_key {
	u8 src[16];		/* as in the packet at that place; IPv4 uses the first four bytes */
	u8 dst[16];
	u64 location;		/* kernel address that let the packet go */
	u32 netns;
	u32 reason;		/* enum skb_drop_reason; of resets sent, enum sk_rst_reason */
	u16 sport;		/* of ICMP: the type */
	u16 dport;		/* of ICMP: the code */
	u8 family;		/* AF_INET or AF_INET6 */
	u8 protocol;
	u8 kind;
	u8 padding;
};

struct netlab_drop_count {
	u64 packets;
	u64 bytes;		/* of the IP packets */
	u64 first_ns;		/* CLOCK_MONOTONIC */
	u64 last_ns;
	u64 cookie;		/* of the socket the last one came from or went to; 0 when not known */
	char interface[NETLAB_DROP_INTERFACE];
	u8 tcp_flags;		/* of all of them together */
	u8 padding[7];
};

/* One event while it is put together. */
struct netlab_drop_event {
	struct netlab_drop_key key;
	struct netlab_drop_count count;
};

/*
 * Where the kernel frees what hangs on a packet (frag_list: the later fragments of a datagram, segments that GRO has put
 * together), as code addresses, which user space knows. It says that these are dropped, whatever becomes of the packet; a
 * dropped packet has been told of with the bytes of all. Before 6.2 all lists of packets are freed at one place.
 */
enum netlab_parting { NETLAB_PARTING, NETLAB_PARTING_UNEXPLAINED, NETLAB_PARTINGS };

struct netlab_span {
	u64 start;
	u64 bytes;
};

BPF_ARRAY(netlab_partings, struct netlab_span, NETLAB_PARTINGS);

/* The ends of a packet under the names that NETLAB_WANTED_PEERS() asks for. */
struct netlab_drop_ends {
	u8 local_address[16];
	u8 remote_address[16];
	u16 local_port;
	u16 remote_port;
	u16 family;
	u8 protocol;
};

BPF_HASH(netlab_drops, struct netlab_drop_key, struct netlab_drop_count, NETLAB_SIZED);

static __always_inline bool netlab_drop_has_ports(u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP;
}

static __always_inline bool netlab_drop_is_icmp(u8 protocol)
{
	return protocol == IPPROTO_ICMP || protocol == NETLAB_ICMPV6;
}

static __always_inline bool netlab_drop_has_wanted_ends(struct netlab_drop_key *key, u8 *local, u8 *remote)
{
	struct netlab_drop_ends ends = { .family = key->family, .protocol = key->protocol };

	__builtin_memcpy(ends.local_address, local, 16);
	__builtin_memcpy(ends.remote_address, remote, 16);
	if (netlab_drop_has_ports(key->protocol)) {
		ends.local_port = local == key->src ? key->sport : key->dport;
		ends.remote_port = local == key->src ? key->dport : key->sport;
	}
	return NETLAB_WANTED_PEERS(&ends);
}

/* Which end of a packet is the local one is not known here: either may be. */
static __always_inline bool netlab_drop_is_wanted(struct netlab_drop_key *key)
{
	bool ported = netlab_drop_has_ports(key->protocol);

	if (!NETLAB_WANTED_PORT(ported ? key->sport : 0) && !NETLAB_WANTED_PORT(ported ? key->dport : 0))
		return false;
	if (!netlab_drop_has_wanted_ends(key, key->src, key->dst) &&
	    !netlab_drop_has_wanted_ends(key, key->dst, key->src))
		return false;
	if (NETLAB_WANTED_NETNS(key->netns))
		return true;
	if (!key->netns)	/* taken out of a socket's queue: neither a device nor a route is left */
		netlab_count(NETLAB_DROPS_UNREAD);
	return false;
}

static __always_inline void netlab_drop_add(struct netlab_drop_event *event)
{
	struct netlab_drop_count *known;

	if (!netlab_drop_is_wanted(&event->key))
		return;
	if (netlab_is_paused()) {
		netlab_count(NETLAB_DROPS_WHILE_PAUSED);
		return;
	}
	event->count.packets = 1;
	event->count.last_ns = bpf_ktime_get_ns();
	event->count.first_ns = event->count.last_ns;
	known = netlab_drops.lookup(&event->key);
	if (!known) {
		if (!netlab_drops.insert(&event->key, &event->count))
			return;
		known = netlab_drops.lookup(&event->key);	/* another CPU was faster, or the map is full */
	}
	if (!known) {
		netlab_count(NETLAB_DROPS_FULL);
		return;
	}
	__sync_fetch_and_add(&known->packets, 1);
	__sync_fetch_and_add(&known->bytes, event->count.bytes);
	known->last_ns = event->count.last_ns;
	if (event->count.tcp_flags & ~known->tcp_flags)	/* not atomic: the next packet like it adds what got lost */
		known->tcp_flags |= event->count.tcp_flags;
	if (event->count.cookie)
		known->cookie = event->count.cookie;
}

/* What lies over IP: ports, TCP's flags, ICMP's type and code. False when it is not in the packet's first part. */
static __always_inline bool netlab_drop_read_ports(struct netlab_drop_event *event, u8 *head, u32 at, u32 end)
{
	u8 start[4] = {};

	if (at + sizeof(start) > end || netlab_probe_read(start, sizeof(start), head + at))
		return false;
	if (netlab_drop_is_icmp(event->key.protocol)) {
		event->key.sport = start[0];
		event->key.dport = start[1];
		return true;
	}
	event->key.sport = start[0] << 8 | start[1];
	event->key.dport = start[2] << 8 | start[3];
	if (event->key.protocol == IPPROTO_TCP && at + 14 <= end)
		netlab_probe_read(&event->count.tcp_flags, 1, head + at + 13);
	return true;
}

/* Both return where the next header begins, 0 when the packet is a later fragment or the header cannot be read. */
static __always_inline u32 netlab_drop_read_ipv4(struct netlab_drop_event *event, u8 *head, u32 at, u32 end)
{
	struct iphdr ip = {};

	if (at + sizeof(ip) > end || netlab_probe_read(&ip, sizeof(ip), head + at))
		return 0;
	if (ip.version != 4 || ip.ihl < 5)
		return 0;
	event->key.family = NETLAB_AF_INET;
	event->key.protocol = ip.protocol;
	__builtin_memcpy(event->key.src, &ip.saddr, 4);
	__builtin_memcpy(event->key.dst, &ip.daddr, 4);
	return netlab_ntohs(ip.frag_off) & NETLAB_LATER_FRAGMENT ? 0 : at + ip.ihl * 4;
}

static __always_inline u32 netlab_drop_read_ipv6(struct netlab_drop_event *event, u8 *head, u32 at, u32 end)
{
	struct ipv6hdr ip = {};
	u8 next, extension[4] = {};

	if (at + sizeof(ip) > end || netlab_probe_read(&ip, sizeof(ip), head + at))
		return 0;
	if (ip.version != 6)
		return 0;
	event->key.family = NETLAB_AF_INET6;
	__builtin_memcpy(event->key.src, &ip.saddr, 16);
	__builtin_memcpy(event->key.dst, &ip.daddr, 16);
	next = ip.nexthdr;
	at += sizeof(ip);
#pragma unroll
	for (int i = 0; i < NETLAB_DROP_EXTENSIONS; i++) {
		if (next != NETLAB_HOPOPTS && next != NETLAB_ROUTING && next != NETLAB_DSTOPTS && next != NETLAB_FRAGMENT)
			break;
		if (at + sizeof(extension) > end || netlab_probe_read(extension, sizeof(extension), head + at))
			return 0;
		if (next == NETLAB_FRAGMENT && (extension[2] || extension[3] & 0xf8)) {
			event->key.protocol = extension[0];
			return 0;
		}
		at += next == NETLAB_FRAGMENT ? 8 : (extension[1] + 1) * 8;	/* RFC 8200 section 4 */
		next = extension[0];
	}
	event->key.protocol = next;
	return at;
}

enum netlab_drop_parse { NETLAB_DROP_OTHER, NETLAB_DROP_UNREADABLE, NETLAB_DROP_READ };

static __always_inline enum netlab_drop_parse netlab_drop_read_packet(struct netlab_drop_event *event, struct sk_buff *skb)
{
	u8 *head = NULL, *data = NULL;
	u16 kind = 0, network = 0;
	u32 end = 0, len = 0, after;

	NETLAB_READ(kind, skb->protocol);
	kind = netlab_ntohs(kind);
	if (kind != NETLAB_ETH_IP && kind != NETLAB_ETH_IPV6)
		return NETLAB_DROP_OTHER;
	NETLAB_READ(head, skb->head);
	NETLAB_READ(data, skb->data);
	NETLAB_READ(end, skb->tail);
	NETLAB_READ(len, skb->len);
	NETLAB_READ(network, skb->network_header);
	if (network == NETLAB_HEADER_UNSET)
		return NETLAB_DROP_UNREADABLE;
	if (kind == NETLAB_ETH_IP)
		after = netlab_drop_read_ipv4(event, head, network, end);
	else
		after = netlab_drop_read_ipv6(event, head, network, end);
	if (!event->key.family)
		return NETLAB_DROP_UNREADABLE;
	if (!netlab_drop_has_ports(event->key.protocol) && !netlab_drop_is_icmp(event->key.protocol))
		return NETLAB_DROP_OTHER;
	/* data moves from header to header while a packet is worked on; counted is always from IP on */
	event->count.bytes = len + (data - (head + network));
	if (!after || !netlab_drop_read_ports(event, head, after, end))
		return NETLAB_WANTED_PORT(0) ? NETLAB_DROP_READ : NETLAB_DROP_UNREADABLE;
	return NETLAB_DROP_READ;
}

static __always_inline u32 netlab_drop_inode(struct net *net)
{
	u32 inode = 0;

	if (net)
		NETLAB_READ(inode, net->ns.inum);
	return inode;
}

static __always_inline u32 netlab_drop_sock_netns(const struct sock *sk)
{
	struct net *net = NULL;

	NETLAB_READ(net, sk->__sk_common.skc_net.net);
	return netlab_drop_inode(net);
}

/*
 * The place is the device's namespace. What skb->dev holds may be something else, since queues of TCP and UDP keep
 * their own data there (include/linux/skbuff.h), so it counts only if it leads to a namespace's inode.
 */
static __always_inline bool netlab_drop_read_device(struct netlab_drop_event *event, struct net_device *dev)
{
	struct net *net = NULL;
	u32 inode;

	if (!dev)
		return false;
	NETLAB_READ(net, dev->nd_net.net);
	inode = netlab_drop_inode(net);
	if (inode - NETLAB_FIRST_INODE >= NETLAB_INODES || (event->key.netns && event->key.netns != inode))
		return false;
	event->key.netns = inode;
	netlab_probe_read_text(event->count.interface, NETLAB_DROP_INTERFACE, &dev->name);
	return true;
}

static __always_inline void netlab_drop_read_place(struct netlab_drop_event *event, const struct sk_buff *skb,
						    const struct sock *sk)
{
	struct net_device *dev = NULL;
	struct dst_entry *dst = NULL;
	unsigned long reference = 0;
	s32 arrived_by = 0, index = 0;

	NETLAB_READ(dev, skb->dev);
	if (netlab_drop_read_device(event, dev))
		return;
	NETLAB_READ(reference, skb->_skb_refdst);	/* on its way out a packet has no device yet, but a route */
	dst = (struct dst_entry *)(reference & ~1UL);
	if (dst) {
		NETLAB_READ(dev, dst->dev);
		if (netlab_drop_read_device(event, dev)) {
			/* The route to this host itself leads to lo, whatever the packet came by. */
			NETLAB_READ(arrived_by, skb->skb_iif);
			NETLAB_READ(index, dev->ifindex);
			if (arrived_by && arrived_by != index)
				__builtin_memset(event->count.interface, 0, NETLAB_DROP_INTERFACE);
			return;
		}
	}
	if (!event->key.netns && sk)
		event->key.netns = netlab_drop_sock_netns(sk);
}

/* The reset goes back to where the packet came from. */
static __always_inline void netlab_drop_turn(struct netlab_drop_key *key)
{
	u8 address[16];
	u16 port = key->sport;

	__builtin_memcpy(address, key->src, 16);
	__builtin_memcpy(key->src, key->dst, 16);
	__builtin_memcpy(key->dst, address, 16);
	key->sport = key->dport;
	key->dport = port;
}

/* The tuple of a connected socket, as its own packets carry it. */
static __always_inline bool netlab_drop_read_sock(struct netlab_drop_event *event, const struct sock *sk)
{
	struct netlab_ends ends = {};
	u16 family = 0, protocol = 0;
	u8 state = 0;

	NETLAB_READ(family, sk->__sk_common.skc_family);
	if (family != NETLAB_AF_INET && family != NETLAB_AF_INET6)
		return false;
	NETLAB_READ(state, sk->__sk_common.skc_state);
	if (state == TCP_TIME_WAIT || state == TCP_NEW_SYN_RECV || state == TCP_LISTEN)
		return false;	/* the first two are smaller structs */
	NETLAB_READ(protocol, sk->sk_protocol);
	if (!netlab_drop_has_ports(protocol) || !netlab_read_connected(&ends, sk))
		return false;
	event->key.protocol = protocol;
	event->key.family = ends.version == 4 ? NETLAB_AF_INET : NETLAB_AF_INET6;
	event->key.sport = ends.local_port;
	event->key.dport = ends.remote_port;
	__builtin_memcpy(event->key.src, ends.local_address, 16);
	__builtin_memcpy(event->key.dst, ends.remote_address, 16);
	return true;
}

/* TCP hands a packet down before it has an IP header; without a route it gets none. */
static __always_inline bool netlab_drop_read_headless(struct netlab_drop_event *event, struct sk_buff *skb, struct sock *sk)
{
	u16 kind = 0, transport = 0;
	u32 end = 0, len = 0;
	u8 *head = NULL;

	NETLAB_READ(kind, skb->protocol);
	if (kind || !sk || !netlab_drop_read_sock(event, sk))
		return false;
	NETLAB_READ(head, skb->head);
	NETLAB_READ(end, skb->tail);
	NETLAB_READ(transport, skb->transport_header);
	if (event->key.protocol == IPPROTO_TCP && transport != NETLAB_HEADER_UNSET && transport + 14 <= end)
		netlab_probe_read(&event->count.tcp_flags, 1, head + transport + 13);
	NETLAB_READ(len, skb->len);
	event->count.bytes = len;
	return true;
}

/*
 * TCP gives no reason to what it has done with: ACKs outside of TCP_ESTABLISHED, the FIN that a closed socket leaves unread.
 * Nothing is lost by it (unread data is a reset sent, TCP_ABORT_ON_CLOSE), and each connection would take a place in the map.
 */
static __always_inline bool netlab_drop_is_done_with(u32 reason, struct sock *sk)
{
	u16 family = 0, protocol = 0;
	u8 state = 0;

	if (!sk || !NETLAB_DROP_SAYS_NOTHING(reason))
		return false;
	NETLAB_READ(family, sk->__sk_common.skc_family);
	NETLAB_READ(state, sk->__sk_common.skc_state);
	if (family != NETLAB_AF_INET && family != NETLAB_AF_INET6)
		return false;
	if (state == TCP_TIME_WAIT || state == TCP_NEW_SYN_RECV)
		return true;	/* TCP only, and smaller structs */
	NETLAB_READ(protocol, sk->sk_protocol);
	return protocol == IPPROTO_TCP;
}

static __always_inline bool netlab_drop_is_within(u64 location, u32 parting)
{
	struct netlab_span *span = netlab_partings.lookup(&parting);

	return span && location - span->start < span->bytes;
}

static __always_inline bool netlab_drop_is_part(u64 location, u32 reason)
{
	return netlab_drop_is_within(location, NETLAB_PARTING) ||
	       (NETLAB_DROP_SAYS_NOTHING(reason) && netlab_drop_is_within(location, NETLAB_PARTING_UNEXPLAINED));
}

/* Raw tracepoint kfree_skb(skb, location[, reason[, rx_sk]]), include/trace/events/skb.h. */
int netlab_drop_packet(struct bpf_raw_tracepoint_args *ctx)
{
	struct sk_buff *skb = (struct sk_buff *)ctx->args[0];
	struct sock *sender = NULL, *receiver = NULL, *sk;
	struct netlab_drop_event event = {};
	enum netlab_drop_parse parsed;

	if (NETLAB_DROP_HAS_REASON)
		event.key.reason = ctx->args[NETLAB_DROP_HAS_REASON ? 2 : 0];
	if (NETLAB_DROP_HAS_RECEIVER)
		receiver = (struct sock *)ctx->args[NETLAB_DROP_HAS_RECEIVER ? 3 : 0];
	NETLAB_READ(sender, skb->sk);
	sk = receiver ? receiver : sender;
	event.key.location = ctx->args[1];
	if (netlab_drop_is_done_with(event.key.reason, sk) || netlab_drop_is_part(event.key.location, event.key.reason))
		return 0;
	parsed = netlab_drop_read_packet(&event, skb);
	if (parsed == NETLAB_DROP_UNREADABLE)
		netlab_count(NETLAB_DROPS_UNREAD);
	if (parsed == NETLAB_DROP_UNREADABLE ||
	    (parsed == NETLAB_DROP_OTHER && !netlab_drop_read_headless(&event, skb, sender)))
		return 0;
	/* Without the receiver it cannot be told which ones TCP has done with. */
	if (NETLAB_DROP_HAS_REASON && !NETLAB_DROP_HAS_RECEIVER && event.key.protocol == IPPROTO_TCP &&
	    NETLAB_DROP_SAYS_NOTHING(event.key.reason))
		return 0;
	event.key.kind = NETLAB_DROPPED;
	if (receiver)
		event.key.netns = netlab_drop_sock_netns(receiver);
	netlab_drop_read_place(&event, skb, sk);
	if (sk)
		NETLAB_READ(event.count.cookie, sk->__sk_common.skc_cookie);
	netlab_drop_add(&event);
	return 0;
}

/*
 * Raw tracepoint tcp_send_reset(sk, skb[, reason]), include/trace/events/tcp.h. skb is what the reset answers and sk may
 * be NULL; a process that closes by reset has no skb (since 6.10), or hands over the reset itself, without an IP header.
 */
int netlab_drop_reset_sent(struct bpf_raw_tracepoint_args *ctx)
{
	struct sock *sk = (struct sock *)ctx->args[0];
	struct sk_buff *skb = (struct sk_buff *)ctx->args[1];
	struct netlab_drop_event event = {};
	enum netlab_drop_parse parsed = NETLAB_DROP_OTHER;

	if (skb)
		parsed = netlab_drop_read_packet(&event, skb);
	if (parsed == NETLAB_DROP_READ)
		netlab_drop_turn(&event.key);
	else if (!sk || !netlab_drop_read_sock(&event, sk)) {
		netlab_count(NETLAB_DROPS_UNREAD);
		return 0;
	}
	event.key.kind = NETLAB_RESET_SENT;
	if (NETLAB_RESET_HAS_REASON)
		event.key.reason = ctx->args[NETLAB_RESET_HAS_REASON ? 2 : 0];
	if (sk) {
		event.key.netns = netlab_drop_sock_netns(sk);
		NETLAB_READ(event.count.cookie, sk->__sk_common.skc_cookie);
	}
	if (skb)
		netlab_drop_read_place(&event, skb, sk);
	event.count.bytes = 0;	/* those of the packet it answers */
	event.count.tcp_flags = 0;
	netlab_drop_add(&event);
	return 0;
}

/* Raw tracepoint tcp_receive_reset(sk), include/trace/events/tcp.h. */
int netlab_drop_reset_received(struct bpf_raw_tracepoint_args *ctx)
{
	struct sock *sk = (struct sock *)ctx->args[0];
	struct netlab_drop_event event = {};

	if (!netlab_drop_read_sock(&event, sk)) {
		netlab_count(NETLAB_DROPS_UNREAD);
		return 0;
	}
	netlab_drop_turn(&event.key);
	event.key.kind = NETLAB_RESET_RECEIVED;
	event.key.netns = netlab_drop_sock_netns(sk);
	NETLAB_READ(event.count.cookie, sk->__sk_common.skc_cookie);
	netlab_drop_add(&event);
	return 0;
}
