/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * UDP flows: every datagram that a socket of this host sends or gets, added up by socket and addresses.
 *
 * cgroup_skb programs on the root cgroup see whole datagrams: before fragmentation on the way out, after reassembly on
 * the way in, once for each socket that gets a copy. A flow lives in netlab_flows until its socket is closed or user
 * space finds it idle. What a process peeks at without taking it, or never takes, makes no difference here.
 */
#include "datagram.h"
#include "owner.h"

#define NETLAB_EEXIST 17

BPF_HASH(netlab_flows, struct netlab_flow_key, struct netlab_attempt, NETLAB_SIZED);
/*
 * Flows that ended; sockets that were closed (those have no packets: which flows ended by that, user space knows); and,
 * when netlab_flows is full, single packets (those have no closed_ns).
 */
BPF_RINGBUF_OUTPUT(netlab_flow_reports, NETLAB_SIZED);

/* Who made a socket: of one that only receives nothing else tells, short of who holds its descriptor. */
struct netlab_udp_socket {
	struct netlab_owner owner;
	u64 flows;		/* how many have begun, and packets that did not fit into the map */
	u64 unfollowed;		/* whether packets of its flows were left out: the next one seen need not be a first one */
};

BPF_TABLE("lru_hash", u64, struct netlab_udp_socket, netlab_udp_sockets, NETLAB_SIZED);

/* The packet that this CPU has just handed to its socket: the receive queue may yet refuse it. */
BPF_PERCPU_ARRAY(netlab_arrived, struct netlab_packet, 1);

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
	NETLAB_READ(flow->interface, sk->__sk_common.skc_bound_dev_if);
	netlab_probe_read(&flow->last_state, 1, (void *)&sk->__sk_common.skc_state);
	NETLAB_READ(net, sk->__sk_common.skc_net.net);
	NETLAB_READ(flow->netns, net->ns.inum);
	mapped = flow->family == NETLAB_AF_INET6 && packet->key.ends.version == 4;
	netlab_as_the_socket_sees(flow->local_address, packet->key.ends.local_address, mapped);
	netlab_as_the_socket_sees(flow->remote_address, packet->key.ends.remote_address, mapped);
	if (!socket)
		return;
	netlab_set_owner(flow, &socket->owner, NETLAB_PID_CREATE);
	flow->complete = !socket->unfollowed;
}

/* From now on the first packet that is seen of a flow of this socket need not be the flow's first. */
static __always_inline void netlab_leave_out(struct netlab_packet *packet)
{
	struct netlab_udp_socket *socket = netlab_udp_sockets.lookup(&packet->key.cookie);

	if (socket && !socket->unfollowed)
		socket->unfollowed = 1;
}

/*
 * Who made the socket may have handed it on: whether the owner is wanted is known when somebody sends. A process that is
 * wanted may send on the same socket later.
 */
static __always_inline bool netlab_is_anothers(struct netlab_attempt *flow)
{
	return flow->pid_source == NETLAB_PID_SEND &&
	       !NETLAB_WANTED_PROCESS(flow->pid, ((u64 *)flow->process));
}

/*
 * What this CPU has last asked the coarse clock, which goes on with the tick: to ask takes longer than to count a packet, and
 * to read the number of the tick is no call.
 */
struct netlab_tick {
	u64 number;
	u64 at_ns;
};

BPF_PERCPU_ARRAY(netlab_ticks, struct netlab_tick, 1);

static __always_inline u64 netlab_coarse_ns(void)
{
	u64 number = bpf_jiffies64();
	struct netlab_tick *tick;
	u32 zero = 0;

	tick = netlab_ticks.lookup(&zero);
	if (!tick)
		return bpf_ktime_get_coarse_ns();
	if (tick->number != number) {
		tick->at_ns = bpf_ktime_get_coarse_ns();
		tick->number = number;
	}
	return tick->at_ns;
}

static __always_inline void netlab_add(struct netlab_attempt *flow, struct netlab_packet *packet, bool outgoing)
{
	flow->last_ns = netlab_coarse_ns();
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

	if (netlab_is_anothers(flow)) {
		netlab_leave_out(packet);
		return;
	}
	/* Nor is the direction known yet: of a socket older than the capture this need not be the first packet. */
	if (!netlab_has_wanted_ends(flow))
		return;
	if (netlab_is_paused()) {
		netlab_count(NETLAB_PACKETS_WHILE_PAUSED);
		netlab_leave_out(packet);
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

	if (protocol == IPPROTO_TCP || !netlab_read_packet(&packet, skb, protocol, outgoing) || netlab_denial())
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

struct netlab_refusal {
	u64 code;
	struct sock *sk;
};

/* Typed raw tracepoint udp_fail_queue_rcv_skb(rc, sk, ...): right after netlab_datagram_received(), for the same packet. */
int netlab_datagram_refused(struct netlab_refusal *ctx)
{
	u64 cookie = ctx->sk->__sk_common.skc_cookie.counter;
	struct netlab_packet *arrived;
	struct netlab_attempt *flow;
	u32 zero = 0;

	arrived = netlab_arrived.lookup(&zero);
	if (!arrived || !cookie || arrived->key.cookie != cookie)
		return 0;
	flow = netlab_flows.lookup(&arrived->key);
	if (!flow)
		return 0;
	__sync_fetch_and_add(&flow->packets_received, -(u64)arrived->packets);
	__sync_fetch_and_add(&flow->bytes_received, -(u64)arrived->bytes);
	__sync_fetch_and_add(&flow->receive_drops, arrived->packets);
	return 0;
}

/*
 * Whose error the last message in the error queue is (IP_RECVERR, IPV6_RECVERR): it points to the destination of the packet
 * that it quotes, and the source is in front of that. An unconnected socket is told of no others. Returns the errno, or 0.
 */
static __always_inline s32 netlab_read_quoted(struct netlab_ends *ends, const struct sock *sk)
{
	const struct sk_buff *last = sk->sk_error_queue.prev;
	struct sock_exterr_skb message = {};
	u16 local = 0, headers = 0;
	u8 *destination = NULL;
	u32 bytes;

	if (!sk->sk_error_queue.qlen)
		return 0;
	netlab_probe_read(&message, sizeof(message), &last->cb);
	if (message.ee.ee_origin != NETLAB_ORIGIN_ICMP && message.ee.ee_origin != NETLAB_ORIGIN_ICMP6)
		return 0;
	ends->version = message.ee.ee_origin == NETLAB_ORIGIN_ICMP ? 4 : 6;
	bytes = ends->version == 4 ? 4 : 16;
	NETLAB_READ(destination, last->head);
	NETLAB_READ(headers, last->network_header);
	destination += headers + message.addr_offset;
	netlab_probe_read(ends->local_address, bytes, destination - bytes);
	netlab_probe_read(ends->remote_address, bytes, destination);
	NETLAB_READ(local, ((struct inet_sock *)sk)->inet_sport);
	ends->local_port = netlab_ntohs(local);
	ends->remote_port = netlab_ntohs(message.port);
	return message.ee.ee_errno;
}

/* What ICMP has just told a socket about one peer: the errno, or 0. A packet's timestamp is reported as an error, too, with none. */
static __always_inline s32 netlab_read_refusal(struct netlab_ends *ends, const struct sock *sk)
{
	return netlab_read_connected(ends, sk) ? sk->sk_err : netlab_read_quoted(ends, sk);
}

struct netlab_error_report {
	struct sock *sk;
};

/* Typed raw tracepoint inet_sk_error_report(sk): an ICMP error has come back, and the next call on the socket returns it. */
int netlab_socket_error(struct netlab_error_report *ctx)
{
	struct netlab_flow_key key = {};
	struct netlab_attempt *flow;
	struct sock *sk = ctx->sk;
	s32 error;

	if (sk->sk_protocol != IPPROTO_UDP)
		return 0;
	error = netlab_read_refusal(&key.ends, sk);
	if (!error)
		return 0;
	key.cookie = sk->__sk_common.skc_cookie.counter;
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
