/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * UDP flows: every datagram that a socket of this host sends or gets, added up by socket and addresses.
 *
 * cgroup_skb programs on the root cgroup see whole datagrams: before fragmentation on the way out, after reassembly on
 * the way in, once for each socket that gets a copy. A flow lives in netlab_flows until its socket is closed or user
 * space finds it idle. What a process peeks at without taking it, or never takes, makes no difference here.
 *
 * Compile-time settings beside those of netlab.h:
 *   NETLAB_CONN_STATUS, NETLAB_CONN_TUPLES  offsets in struct nf_conn, where conntrack was there at the start
 *   NETLAB_VERDICT  offset in struct bpf_cg_run_ctx, on kernels that keep it there (since 5.18)
 */
#include "netlab.h"

/* What the settings above take offsets in, where these types are known. */
struct nf_conn;
struct bpf_cg_run_ctx;

#define NETLAB_UDP_HEADER 8
#define NETLAB_PLAIN_IP 0x45	/* the first byte of an IPv4 header: its version, and its length without options */
/* include/uapi/linux/netfilter/nf_conntrack_common.h: IPS_SRC_NAT, IPS_DST_NAT; ctinfo of the reply direction. */
#define NETLAB_TRANSLATED (1 << 4 | 1 << 5)
#define NETLAB_IS_REPLY 3
#define NETLAB_CTINFO 7UL	/* the bits of skb->_nfct that are ctinfo: include/linux/skbuff.h */
#define NETLAB_EEXIST 17

/* struct nf_conntrack_tuple_hash, include/net/netfilter/nf_conntrack_tuple.h: the type is in a module on some kernels. */
struct netlab_tracked {
	u64 list[2];
	u8 from[16];
	u16 from_port;
	u16 family;
	u8 to[16];
	u16 to_port;
	u8 protocol;
	u8 direction;
};

struct netlab_flow_key {
	struct netlab_ends ends;
	u64 cookie;
};

BPF_HASH(netlab_flows, struct netlab_flow_key, struct netlab_attempt, NETLAB_OPEN_MAX);
/*
 * Flows that ended; sockets that were closed (those have no packets: which flows ended by that, user space knows); and,
 * when netlab_flows is full, single packets (those have no closed_ns).
 */
BPF_RINGBUF_OUTPUT(netlab_flow_reports, NETLAB_RING_PAGES);

/* Who made a socket: of one that only receives nothing else tells, short of who holds its descriptor. */
struct netlab_udp_socket {
	struct netlab_owner owner;
	u64 flows;		/* how many have begun, and packets that did not fit into the map */
};

BPF_TABLE("lru_hash", u64, struct netlab_udp_socket, netlab_udp_sockets, NETLAB_OPEN_MAX);

struct netlab_packet {
	struct netlab_flow_key key;
	u32 bytes;		/* payload */
	u32 packets;		/* more than one where the stack carries several as one: UDP_SEGMENT, UDP_GRO */
};

/* The packet that this CPU has just handed to its socket: the receive queue may yet refuse it. */
BPF_PERCPU_ARRAY(netlab_arrived, struct netlab_packet, 1);

/* The kernel has the header in one piece by now: ip_rcv() and ip6_rcv() see to it. */
static __always_inline bool netlab_read_addresses(struct netlab_packet *packet, struct __sk_buff *skb, bool outgoing)
{
	u8 *from = outgoing ? packet->key.ends.local_address : packet->key.ends.remote_address;
	u8 *to = outgoing ? packet->key.ends.remote_address : packet->key.ends.local_address;
	void *data = (void *)(u64)skb->data, *end = (void *)(u64)skb->data_end;
	struct ipv6hdr *six = data;
	struct iphdr *four = data;

	if (packet->key.ends.version == 4) {
		if (data + sizeof(*four) > end)
			return false;
		*(u32 *)from = four->saddr;
		*(u32 *)to = four->daddr;
	} else {
		if (data + sizeof(*six) > end)
			return false;
		*(struct in6_addr *)from = six->saddr;
		*(struct in6_addr *)to = six->daddr;
	}
	return true;
}

/*
 * Packets leave here after the last netfilter hook. A socket whose packets are translated on this host is shown the
 * addresses it uses itself, as it is for packets that arrive: conntrack has both, in the direction's own tuple.
 */
static __always_inline void netlab_undo_translation(struct netlab_packet *packet, struct sk_buff *skb)
{
	unsigned long tracked = 0, status = 0;
	struct netlab_tracked tuple;
	u8 *entry;

	NETLAB_READ(tracked, skb->_nfct);
	entry = (u8 *)(tracked & ~NETLAB_CTINFO);
	if (!entry)
		return;
#ifdef NETLAB_CONN_STATUS
	netlab_probe_read(&status, sizeof(status), entry + NETLAB_CONN_STATUS);
	if (!(status & NETLAB_TRANSLATED))
		return;
	netlab_probe_read(&tuple, sizeof(tuple), entry + NETLAB_CONN_TUPLES +
			      ((tracked & NETLAB_CTINFO) >= NETLAB_IS_REPLY) * sizeof(tuple));
	__builtin_memcpy(packet->key.ends.local_address, tuple.from, 16);
	__builtin_memcpy(packet->key.ends.remote_address, tuple.to, 16);
	packet->key.ends.local_port = netlab_ntohs(tuple.from_port);
	packet->key.ends.remote_port = netlab_ntohs(tuple.to_port);
#else
	netlab_count(NETLAB_TRANSLATION_UNKNOWN);
#endif
}

_Static_assert(__builtin_offsetof(struct sk_buff, network_header) ==
	       __builtin_offsetof(struct sk_buff, transport_header) + 2, "the two are read at once");

/* Read the ports behind an IP header of so many bytes, if the stack has them in one piece. */
static __always_inline bool netlab_ports_behind(u16 *ports, struct __sk_buff *skb, u32 header_bytes)
{
	u8 *at = (u8 *)(u64)skb->data + header_bytes, *end = (u8 *)(u64)skb->data_end;

	if (at + 2 * sizeof(*ports) > end)
		return false;
	ports[0] = ((u16 *)at)[0];
	ports[1] = ((u16 *)at)[1];
	return true;
}

/* Return how long the IP header is, and read the ports behind it: without a helper where it has no options. */
static __always_inline u32 netlab_read_ports(u16 *ports, struct __sk_buff *skb, u8 protocol)
{
	u8 *data = (u8 *)(u64)skb->data, *end = (u8 *)(u64)skb->data_end, first = data + 1 > end ? 0 : data[0];
	struct sk_buff *whole = (struct sk_buff *)(u64)skb;
	u16 headers[2] = {};
	u32 header_bytes;

	if (first == NETLAB_PLAIN_IP && netlab_ports_behind(ports, skb, sizeof(struct iphdr)))
		return sizeof(struct iphdr);
	if (first >> 4 == 6 && protocol == IPPROTO_UDP && netlab_ports_behind(ports, skb, sizeof(struct ipv6hdr)))
		return sizeof(struct ipv6hdr);
	netlab_probe_read(headers, sizeof(headers), &whole->transport_header);
	header_bytes = (u16)(headers[0] - headers[1]);
	bpf_skb_load_bytes(skb, header_bytes, ports, 2 * sizeof(*ports));
	return header_bytes;
}

/* IPsec works on packets before they get here; what it makes of them has its own header where UDP's was. */
static __always_inline bool netlab_is_sealed(u8 protocol)
{
	return protocol == IPPROTO_ESP || protocol == IPPROTO_AH || protocol == IPPROTO_COMP;
}

/* Tell whether the packet is a UDP socket's, and read what there is to count; *protocol* is what follows its IP header. */
static __always_inline bool netlab_read_packet(struct netlab_packet *packet, struct __sk_buff *skb, u8 protocol,
					       bool outgoing)
{
	struct bpf_sock *socket = skb->sk;
	u32 header_bytes;
	u16 ports[2] = {};

	if (!socket)
		return false;
	socket = bpf_sk_fullsock(socket);
	if (!socket || socket->type != SOCK_DGRAM)
		return false;	/* raw sockets, too, may say that they are for UDP */
	if (socket->protocol == IPPROTO_UDPLITE || (socket->protocol == IPPROTO_UDP && netlab_is_sealed(protocol)))
		netlab_count(NETLAB_NOT_PLAIN_UDP);
	if (socket->protocol != IPPROTO_UDP || netlab_is_sealed(protocol))
		return false;
	header_bytes = netlab_read_ports(ports, skb, protocol);
	packet->key.ends.version = skb->protocol == netlab_ntohs(NETLAB_ETH_IP) ? 4 : 6;
	packet->key.cookie = bpf_get_socket_cookie(skb);
	packet->bytes = skb->len - header_bytes - NETLAB_UDP_HEADER;
	packet->packets = 1;	/* gso_segs would not do: it is 0 where a virtual machine has sent */
	if (skb->gso_size && packet->bytes)
		packet->packets = (packet->bytes + skb->gso_size - 1) / skb->gso_size;
	if (!netlab_read_addresses(packet, skb, outgoing))
		return false;
	packet->key.ends.local_port = netlab_ntohs(outgoing ? ports[0] : ports[1]);
	packet->key.ends.remote_port = netlab_ntohs(outgoing ? ports[1] : ports[0]);
	if (outgoing)
		netlab_undo_translation(packet, (struct sk_buff *)(u64)skb);
	return true;
}

/*
 * A process's socket sends in no other context than its own. Sockets without a file are the kernel's, and those with an
 * encapsulation carry what others send: both send in softirq too.
 */
static __always_inline bool netlab_sent_by_process(struct sock *sk)
{
	struct socket *socket = NULL;
	struct file *file = NULL;
	u8 encapsulation = 0;

	NETLAB_READ(socket, sk->sk_socket);
	if (!socket)
		return false;
	NETLAB_READ(file, socket->file);
	netlab_probe_read(&encapsulation, 1, &((struct udp_sock *)sk)->encap_type);
	return file && !encapsulation;
}

/* All but who sends. */
static __always_inline void netlab_read_flow(struct netlab_attempt *flow, struct netlab_packet *packet, struct sock *sk)
{
	struct netlab_udp_socket *socket = netlab_udp_sockets.lookup(&packet->key.cookie);
	struct net *net = NULL;
	bool mapped;

	flow->socket = packet->key.cookie << 16 | bpf_get_smp_processor_id();
	flow->cookie = packet->key.cookie;
	flow->protocol = IPPROTO_UDP;
	flow->local_port = packet->key.ends.local_port;
	flow->remote_port = packet->key.ends.remote_port;
	flow->opened_ns = bpf_ktime_get_ns();
	NETLAB_READ(flow->family, sk->__sk_common.skc_family);
	NETLAB_READ(flow->mark, sk->sk_mark);
	netlab_probe_read(&flow->last_state, 1, (void *)&sk->__sk_common.skc_state);
	NETLAB_READ(net, sk->__sk_common.skc_net.net);
	NETLAB_READ(flow->netns, net->ns.inum);
	mapped = flow->family == NETLAB_AF_INET6 && packet->key.ends.version == 4;
	netlab_as_the_socket_sees(flow->local_address, packet->key.ends.local_address, mapped);
	netlab_as_the_socket_sees(flow->remote_address, packet->key.ends.remote_address, mapped);
	if (socket)
		netlab_set_owner(flow, &socket->owner, NETLAB_PID_CREATE);
}

/*
 * Who made the socket may have handed it on: whether the owner is wanted is known when somebody sends. Nor is the
 * direction known here: of a socket older than the capture this need not be the first packet.
 */
static __always_inline bool netlab_is_wanted_flow(struct netlab_attempt *flow)
{
	if (flow->pid_source == NETLAB_PID_SEND &&
	    !NETLAB_WANTED_PROCESS(flow->pid, ((u64 *)flow->process)))
		return false;
	return netlab_has_wanted_ends(flow);
}

static __always_inline void netlab_add(struct netlab_attempt *flow, struct netlab_packet *packet, bool outgoing)
{
	flow->last_ns = bpf_ktime_get_coarse_ns();
	if (outgoing) {
		__sync_fetch_and_add(&flow->packets_sent, packet->packets);
		__sync_fetch_and_add(&flow->bytes_sent, packet->bytes);
	} else {
		__sync_fetch_and_add(&flow->packets_received, packet->packets);
		__sync_fetch_and_add(&flow->bytes_received, packet->bytes);
	}
	if (!flow->established_ns && (flow->direction == NETLAB_OUTGOING) != outgoing)
		flow->established_ns = bpf_ktime_get_ns();
}

static __always_inline void netlab_begin_flow(struct netlab_attempt *flow, struct netlab_packet *packet, bool outgoing)
{
	struct netlab_udp_socket *socket;
	struct netlab_attempt *known;
	int failed;

	if (!netlab_is_wanted_flow(flow))
		return;
	if (netlab_is_paused()) {
		netlab_count(NETLAB_PACKETS_WHILE_PAUSED);
		return;
	}
	flow->direction = outgoing ? NETLAB_OUTGOING : NETLAB_INCOMING;
	netlab_add(flow, packet, outgoing);
	failed = netlab_flows.insert(&packet->key, flow);
	known = failed == -NETLAB_EEXIST ? netlab_flows.lookup(&packet->key) : NULL;
	if (known) {
		netlab_add(known, packet, outgoing);	/* another CPU was faster */
		return;
	}
	socket = netlab_udp_sockets.lookup(&packet->key.cookie);
	if (socket)
		__sync_fetch_and_add(&socket->flows, 1);
	if (!failed)
		return;
	netlab_count(NETLAB_FLOWS_FULL);
	if (netlab_flow_reports.ringbuf_output(flow, sizeof(*flow), BPF_RB_NO_WAKEUP))
		netlab_count(NETLAB_PACKET_LOST);
}

/* A control group below the root may have a program of its own; it has run by now, and ours runs whatever it says. */
static __always_inline bool netlab_is_denied(void)
{
	s32 verdict = 0;
#ifdef NETLAB_VERDICT
	u64 run = (u64)netlab_current()->bpf_ctx;

	netlab_probe_read(&verdict, sizeof(verdict), (void *)(run + NETLAB_VERDICT));
#endif
	return verdict != 0;
}

/* Return what follows the IP header, 0 if that cannot be told: of TCP, which most packets are, no helper needs to be asked. */
static __always_inline u8 netlab_ip_protocol(struct __sk_buff *skb)
{
	u8 *data = (u8 *)(u64)skb->data, *end = (u8 *)(u64)skb->data_end;

	if (data + sizeof(struct iphdr) > end)
		return 0;
	return data[0] >> 4 == 4 ? data[__builtin_offsetof(struct iphdr, protocol)] :
				   data[__builtin_offsetof(struct ipv6hdr, nexthdr)];
}

/*
 * The first packet of a flow, or the first that a process sends. The owner is read while there is little else that the
 * verifier could tell apart: it walks through that once for each difference.
 */
static __always_inline void netlab_first_datagram(struct netlab_packet *packet, struct sock *sk, bool outgoing)
{
	bool by_process = outgoing && netlab_sent_by_process(sk);
	struct netlab_attempt *known, fresh;
	struct netlab_owner owner = {};

	if (by_process)
		netlab_current_owner(&owner);
	known = netlab_flows.lookup(&packet->key);
	if (known) {
		if (by_process)
			netlab_set_owner(known, &owner, NETLAB_PID_SEND);
		netlab_add(known, packet, outgoing);
		return;
	}
	__builtin_memset(&fresh, 0, sizeof(fresh));
	netlab_read_flow(&fresh, packet, sk);
	if (by_process)
		netlab_set_owner(&fresh, &owner, NETLAB_PID_SEND);
	netlab_begin_flow(&fresh, packet, outgoing);
}

static __always_inline int netlab_datagram(struct __sk_buff *skb, bool outgoing)
{
	struct netlab_packet *arrived, packet = {};
	u64 socket = (u64)skb->sk, number = 0;
	u8 protocol = netlab_ip_protocol(skb);
	struct netlab_attempt *known;
	u32 zero = 0;

	if (protocol == IPPROTO_TCP || !netlab_read_packet(&packet, skb, protocol, outgoing) || netlab_is_denied())
		return 1;
	arrived = outgoing ? NULL : netlab_arrived.lookup(&zero);
	if (arrived)	/* also one that nobody wants: it is not the one before it that is refused */
		__builtin_memcpy(arrived, &packet, sizeof(packet));
	if (!NETLAB_WANTED_PORT(packet.key.ends.local_port) && !NETLAB_WANTED_PORT(packet.key.ends.remote_port))
		return 1;
	known = netlab_flows.lookup(&packet.key);
	if (known && (!outgoing || known->pid_source == NETLAB_PID_SEND)) {
		netlab_add(known, &packet, outgoing);
		return 1;
	}
	netlab_probe_read(&number, sizeof(number), &socket);	/* the verifier guards skb->sk, not a number */
	netlab_first_datagram(&packet, (struct sock *)number, outgoing);
	return 1;
}

int netlab_datagram_sent(struct __sk_buff *skb)
{
	return netlab_datagram(skb, true);
}

int netlab_datagram_received(struct __sk_buff *skb)
{
	return netlab_datagram(skb, false);
}

/* Raw tracepoint udp_fail_queue_rcv_skb(rc, sk, ...): right after netlab_datagram_received(), for the same packet. */
int netlab_datagram_refused(struct bpf_raw_tracepoint_args *ctx)
{
	struct sock *sk = (struct sock *)ctx->args[1];
	struct netlab_packet *arrived;
	struct netlab_attempt *flow;
	u64 cookie = 0;
	u32 zero = 0;

	arrived = netlab_arrived.lookup(&zero);
	NETLAB_READ(cookie, sk->__sk_common.skc_cookie);
	if (!arrived || !cookie || arrived->key.cookie != cookie)
		return 0;
	flow = netlab_flows.lookup(&arrived->key);
	if (!flow)
		return 0;
	__sync_fetch_and_add(&flow->packets_received, -arrived->packets);
	__sync_fetch_and_add(&flow->bytes_received, -(u64)arrived->bytes);
	__sync_fetch_and_add(&flow->receive_drops, arrived->packets);
	return 0;
}

/* Raw tracepoint inet_sk_error_report(sk): an ICMP error has come back, and the next call on the socket returns it. */
int netlab_socket_error(struct bpf_raw_tracepoint_args *ctx)
{
	struct sock *sk = (struct sock *)ctx->args[0];
	struct netlab_flow_key key = {};
	struct netlab_attempt *flow;
	u16 protocol = 0;
	s32 error = 0;

	NETLAB_READ(protocol, sk->sk_protocol);
	NETLAB_READ(error, sk->sk_err);
	if (protocol != IPPROTO_UDP || !error || !netlab_read_connected(&key.ends, sk))
		return 0;	/* a packet's timestamp is reported as an error, too, with none */
	NETLAB_READ(key.cookie, sk->__sk_common.skc_cookie);
	flow = netlab_flows.lookup(&key);
	if (flow)
		flow->error = error;
	return 0;
}

/* A socket is made, in the process that makes it. */
int netlab_udp_created(struct bpf_sock *ctx)
{
	struct netlab_udp_socket made = {};
	u64 cookie;

	if (ctx->protocol != IPPROTO_UDP || ctx->type != SOCK_DGRAM)
		return 1;
	cookie = bpf_get_socket_cookie(ctx);
	netlab_current_owner(&made.owner);
	netlab_udp_sockets.update(&cookie, &made);
	return 1;	/* allow */
}

/*
 * The last descriptor of a socket is closed. The one flow of a connected socket, which most clients have, ends here; the
 * flows of others user space finds by their socket. So it does where more than answers comes in: until the socket
 * is gone another CPU may count a packet in the middle of this.
 */
int netlab_udp_released(struct bpf_sock *ctx)
{
	u64 guarded = (u64)ctx, number = 0, cookie;
	struct netlab_flow_key key = {};
	struct netlab_attempt *flow = NULL, report = {};
	struct netlab_udp_socket *socket;

	if (ctx->protocol != IPPROTO_UDP || ctx->type != SOCK_DGRAM)
		return 1;
	cookie = bpf_get_socket_cookie(ctx);
	netlab_probe_read(&number, sizeof(number), &guarded);
	socket = netlab_udp_sockets.lookup(&cookie);
	if (socket && !socket->flows)
		goto gone;
	report.cookie = key.cookie = cookie;
	if (socket && socket->flows == 1 && netlab_read_connected(&key.ends, (struct sock *)number)) {
		flow = netlab_flows.lookup(&key);
		if (flow && flow->packets_received > flow->packets_sent)
			flow = NULL;
		if (flow)
			__builtin_memcpy(&report, flow, sizeof(report));
	}
	report.closed_ns = bpf_ktime_get_ns();
	/* If the report does not fit, the flow stays until it is found idle. */
	if (!netlab_flow_reports.ringbuf_output(&report, sizeof(report), BPF_RB_NO_WAKEUP) && flow)
		netlab_flows.delete(&key);
gone:
	netlab_udp_sockets.delete(&cookie);
	return 1;
}
