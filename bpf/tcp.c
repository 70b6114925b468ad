/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * TCP connection attempts, from the first SYN to the last state, on hooks that every kernel since 4.16 keeps stable.
 *
 * Nothing runs per packet: byte and packet counts, round-trip times and retransmissions are the kernel's own,
 * read from struct tcp_sock when the state changes. An attempt lives in netlab_open, keyed by its socket's
 * kernel address, and leaves through netlab_reports when the socket reaches TCP_CLOSE.
 *
 * Compile-time settings, put in front of this file by netlab/tracer/filters.py:
 *   NETLAB_WANTED_PORT(p)  true for ports to follow (either end)
 *   NETLAB_WANTED_PROCESS(pid, name)  true for processes to follow; name is two u64
 *   NETLAB_WANTED_PEERS(attempt)  true for addresses, excludes and protocols to follow
 *   NETLAB_WANTED_NETNS(inode), NETLAB_WANTED_DIRECTION(direction)  likewise
 *   NETLAB_OPEN_MAX, NETLAB_RING_PAGES  sizes
 */
#include "netlab.h"

enum netlab_direction { NETLAB_UNKNOWN, NETLAB_OUTGOING, NETLAB_INCOMING };
enum netlab_pid_source { NETLAB_NO_PID, NETLAB_PID_CONNECT, NETLAB_PID_CLOSE, NETLAB_PID_SOCKET, NETLAB_PID_RECEIVE };

struct netlab_attempt {
	u8 local_address[16];	/* IPv4 uses the first four bytes */
	u8 remote_address[16];
	char process[NETLAB_COMM];
	u64 socket;		/* kernel address of struct sock */
	u64 cookie;		/* 0 until something asked the kernel for it */
	u64 opened_ns;		/* CLOCK_MONOTONIC; 0 when the start was not seen */
	u64 established_ns;
	u64 closed_ns;		/* 0 while it is open */
	u64 bytes_sent;
	u64 bytes_received;
	u64 cgroup;
	u32 pid;
	u32 uid;
	u32 netns;
	u32 packets_sent;
	u32 packets_received;
	u32 retransmits;
	u32 syn_retransmits;
	u32 srtt_us;
	u32 rtt_var_us;
	u32 min_rtt_us;
	u32 cwnd;
	s32 error;		/* sk_err when it closed */
	u16 local_port;
	u16 remote_port;
	u16 family;
	u8 last_state;		/* the state before TCP_CLOSE */
	u8 direction;
	u8 pid_source;
	u8 protocol;		/* IPPROTO_* */
	u8 padding[6];
};

BPF_HASH(netlab_open, u64, struct netlab_attempt, NETLAB_OPEN_MAX);
/* Attempts that ended; and, when netlab_open is full, attempts that began: those have no closed_ns. */
BPF_RINGBUF_OUTPUT(netlab_reports, NETLAB_RING_PAGES);
BPF_ARRAY(netlab_paused, u32, 1);
/* A whole attempt does not fit on the 512-byte stack beside the rest: each CPU has one to fill. */
BPF_PERCPU_ARRAY(netlab_scratch, struct netlab_attempt, 1);

static __always_inline bool netlab_is_paused(void)
{
	u32 zero = 0;
	u32 *paused = netlab_paused.lookup(&zero);

	return paused && *paused;
}

/*
 * The tuple is complete only from some states on: connect() picks the local port after TCP_SYN_SENT, and
 * inet_put_port() clears the port in the last ones. What is already known is therefore never overwritten by zero.
 */
static __always_inline void netlab_read_tuple(struct netlab_attempt *attempt, struct sock *sk)
{
	u16 local = 0, remote = 0;

	NETLAB_READ(local, ((struct inet_sock *)sk)->inet_sport);
	NETLAB_READ(remote, sk->__sk_common.skc_dport);
	if (local)
		attempt->local_port = netlab_ntohs(local);
	if (!remote)
		return;
	attempt->remote_port = netlab_ntohs(remote);
	if (attempt->family == NETLAB_AF_INET) {
		bpf_probe_read_kernel(attempt->local_address, 4, &((struct inet_sock *)sk)->inet_saddr);
		bpf_probe_read_kernel(attempt->remote_address, 4, &sk->__sk_common.skc_daddr);
	} else {
		struct ipv6_pinfo *pinet6 = NULL;

		NETLAB_READ(pinet6, ((struct inet_sock *)sk)->pinet6);
		bpf_probe_read_kernel(attempt->local_address, 16, &pinet6->saddr);
		bpf_probe_read_kernel(attempt->remote_address, 16, &sk->__sk_common.skc_v6_daddr);
	}
}

static __always_inline void netlab_read_identity(struct netlab_attempt *attempt, struct sock *sk)
{
	struct net *net = NULL;

	attempt->socket = (u64)sk;
	attempt->protocol = IPPROTO_TCP;
	NETLAB_READ(attempt->cookie, sk->__sk_common.skc_cookie);
	NETLAB_READ(attempt->family, sk->__sk_common.skc_family);
	NETLAB_READ(net, sk->__sk_common.skc_net.net);
	NETLAB_READ(attempt->netns, net->ns.inum);
	netlab_read_tuple(attempt, sk);
}

static __always_inline void netlab_read_owner(struct netlab_attempt *attempt, u8 source)
{
	attempt->pid = bpf_get_current_pid_tgid() >> 32;
	attempt->uid = bpf_get_current_uid_gid();
	attempt->cgroup = bpf_get_current_cgroup_id();
	attempt->pid_source = source;
	netlab_process_name(attempt->process);
}

static __always_inline void netlab_read_counters(struct netlab_attempt *attempt, struct sock *sk)
{
	struct tcp_sock *tp = (struct tcp_sock *)sk;
	u64 sent = 0, again = 0, flags = 0;
	u32 srtt = 0, mdev = 0;

	NETLAB_READ(sent, tp->bytes_sent);
	NETLAB_READ(again, tp->bytes_retrans);
	attempt->bytes_sent = sent - again;	/* bytes_sent counts each retransmission too */
	NETLAB_READ(attempt->bytes_received, tp->bytes_received);
	NETLAB_READ(flags, sk->__sk_common.skc_flags);
	if ((flags >> SOCK_DONE) & 1 && attempt->bytes_received)
		attempt->bytes_received--;	/* tcp_rcv_nxt_update() counts the FIN as a byte */
	NETLAB_READ(attempt->packets_sent, tp->segs_out);
	NETLAB_READ(attempt->packets_received, tp->segs_in);
	NETLAB_READ(attempt->retransmits, tp->total_retrans);
	NETLAB_READ(srtt, tp->srtt_us);
	NETLAB_READ(mdev, tp->mdev_us);
	NETLAB_READ(attempt->min_rtt_us, tp->rtt_min.s[0].v);
	NETLAB_READ(attempt->cwnd, tp->snd_cwnd);
	attempt->srtt_us = srtt >> 3;		/* kept in eighths, its deviation in quarters */
	attempt->rtt_var_us = mdev >> 2;
}

static __always_inline bool netlab_has_wanted_port(struct netlab_attempt *attempt)
{
	return NETLAB_WANTED_PORT(attempt->local_port) || NETLAB_WANTED_PORT(attempt->remote_port);
}

/* An address that is not chosen yet passes, as does an unknown direction: the next state change asks again. */
static __always_inline bool netlab_may_be_wanted(struct netlab_attempt *attempt)
{
	return NETLAB_WANTED_NETNS(attempt->netns) && NETLAB_WANTED_DIRECTION(attempt->direction) &&
	       NETLAB_WANTED_PEERS(attempt);
}

static __always_inline bool netlab_is_wanted(struct netlab_attempt *attempt)
{
	return netlab_has_wanted_port(attempt) && netlab_may_be_wanted(attempt);
}

/* The reader looks at the clock, not at wake-ups: a wake-up per connection is what costs. */
static __always_inline void netlab_report(struct netlab_attempt *attempt, u32 if_lost)
{
	if (netlab_reports.ringbuf_output(attempt, sizeof(*attempt), BPF_RB_NO_WAKEUP))
		netlab_count(if_lost);
}

static __always_inline void netlab_follow(u64 key, struct netlab_attempt *attempt)
{
	if (!netlab_open.update(&key, attempt))
		return;
	netlab_count(NETLAB_MAP_FULL);
	netlab_report(attempt, NETLAB_ATTEMPT_LOST);
}

/* connect(): runs in the connecting process. */
static __always_inline void netlab_connecting(struct sock *sk)
{
	struct netlab_attempt attempt = {};

	netlab_read_identity(&attempt, sk);
	/* inet_sport is stale in a socket that was connected before; bind() sets both. */
	NETLAB_READ(attempt.local_port, sk->__sk_common.skc_num);
	attempt.direction = NETLAB_OUTGOING;
	/* A port that is not chosen yet may become a wanted one. */
	if ((attempt.local_port && !netlab_has_wanted_port(&attempt)) || !netlab_may_be_wanted(&attempt))
		return;
	netlab_read_owner(&attempt, NETLAB_PID_CONNECT);
	if (!NETLAB_WANTED_PROCESS(attempt.pid, ((u64 *)attempt.process)))
		return;
	if (netlab_is_paused()) {
		netlab_count(NETLAB_WHILE_PAUSED);
		return;
	}
	attempt.opened_ns = bpf_ktime_get_ns();
	netlab_follow((u64)sk, &attempt);
}

/* The handshake ended. An accepted socket appears here for the first time with its tuple, mostly in softirq. */
static __always_inline void netlab_established(struct sock *sk, int before)
{
	struct netlab_attempt *known, attempt = {};
	u64 key = (u64)sk;
	u64 now = bpf_ktime_get_ns();

	known = netlab_open.lookup(&key);
	if (known) {
		netlab_read_tuple(known, sk);
		if (!netlab_is_wanted(known)) {
			netlab_open.delete(&key);
			return;
		}
		known->established_ns = now;
		NETLAB_READ(known->syn_retransmits, ((struct tcp_sock *)sk)->total_retrans);
		NETLAB_READ(known->cookie, sk->__sk_common.skc_cookie);
		return;
	}
	if (before != TCP_SYN_RECV)
		return;
	netlab_read_identity(&attempt, sk);
	attempt.direction = NETLAB_INCOMING;
	if (!netlab_is_wanted(&attempt))
		return;
	if (netlab_is_paused()) {
		netlab_count(NETLAB_WHILE_PAUSED);
		return;
	}
	attempt.opened_ns = now;
	attempt.established_ns = now;
	netlab_follow(key, &attempt);
}

/*
 * Whoever has locked the socket is a process that uses it: softirq works only on sockets that nobody has locked.
 * With an error the lock may be that of a tool that aborts other processes' connections.
 */
static __always_inline void netlab_find_owner(struct netlab_attempt *attempt, struct sock *sk, u8 source)
{
	int locked = 0, error = 0;

	if (attempt->pid_source != NETLAB_NO_PID)
		return;
	NETLAB_READ(locked, sk->sk_lock.owned);
	NETLAB_READ(error, sk->sk_err);
	if (locked && !error)
		netlab_read_owner(attempt, source);
}

static __always_inline void netlab_closing(struct sock *sk)
{
	u64 key = (u64)sk;
	struct netlab_attempt *known = netlab_open.lookup(&key);

	if (known)
		netlab_find_owner(known, sk, NETLAB_PID_CLOSE);
}

static __always_inline void netlab_closed_now(struct sock *sk, int before)
{
	struct netlab_attempt *attempt, *known;
	u32 zero = 0;
	u64 key = (u64)sk;

	known = netlab_open.lookup(&key);
	attempt = netlab_scratch.lookup(&zero);
	if (!attempt)
		return;
	if (known) {
		__builtin_memcpy(attempt, known, sizeof(*attempt));
		netlab_open.delete(&key);
		netlab_read_tuple(attempt, sk);
	} else {
		/* Open before the capture, or not followed: user space tells which, by cookie and by start. */
		__builtin_memset(attempt, 0, sizeof(*attempt));
		netlab_read_identity(attempt, sk);
	}
	if (!netlab_is_wanted(attempt))
		return;
	netlab_read_counters(attempt, sk);
	if (!attempt->established_ns)
		attempt->syn_retransmits = attempt->retransmits;
	netlab_find_owner(attempt, sk, NETLAB_PID_CLOSE);
	NETLAB_READ(attempt->cookie, sk->__sk_common.skc_cookie);
	NETLAB_READ(attempt->error, sk->sk_err);
	attempt->closed_ns = bpf_ktime_get_ns();
	attempt->last_state = before;
	netlab_report(attempt, known ? NETLAB_ATTEMPT_LOST : NETLAB_END_LOST);
}

/* Raw tracepoint inet_sock_set_state(sk, oldstate, newstate), include/trace/events/sock.h. */
int netlab_state_changed(struct bpf_raw_tracepoint_args *ctx)
{
	struct sock *sk = (struct sock *)ctx->args[0];
	int before = ctx->args[1];
	int after = ctx->args[2];
	u16 protocol = 0;

	NETLAB_READ(protocol, sk->sk_protocol);
	if (protocol != IPPROTO_TCP)
		return 0;
	if (after == TCP_SYN_SENT)
		netlab_connecting(sk);
	else if (after == TCP_ESTABLISHED)
		netlab_established(sk, before);
	else if (after == TCP_FIN_WAIT1 || after == TCP_LAST_ACK)
		netlab_closing(sk);
	else if (after == TCP_CLOSE && before != TCP_LISTEN && before != TCP_CLOSE)
		netlab_closed_now(sk, before);
	return 0;
}

/* Raw tracepoint tcp_rcv_space_adjust(sk): a process takes received data, so it has the socket. */
int netlab_received(struct bpf_raw_tracepoint_args *ctx)
{
	struct sock *sk = (struct sock *)ctx->args[0];
	u64 key = (u64)sk;
	struct netlab_attempt *known = netlab_open.lookup(&key);

	if (known)
		netlab_find_owner(known, sk, NETLAB_PID_RECEIVE);
	return 0;
}

/*
 * A raw tracepoint may read a socket's cookie but not make one. These two make it early, so that every record carries
 * the number that sock_diag and SO_COOKIE report.
 */
int netlab_socket_created(struct bpf_sock *ctx)
{
	bpf_get_socket_cookie(ctx);
	return 1;	/* allow */
}

/* At TCP_CONNECT_CB the SYN is about to leave: what TCP_SYN_SENT did not have yet, the local end, is chosen now. */
int netlab_socket_used(struct bpf_sock_ops *ctx)
{
	struct netlab_attempt *known;
	u64 key = (u64)ctx->sk;

	if (ctx->op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB && ctx->op != BPF_SOCK_OPS_TCP_CONNECT_CB)
		return 1;
	u64 cookie = bpf_get_socket_cookie(ctx);
	if (ctx->op != BPF_SOCK_OPS_TCP_CONNECT_CB || !key)
		return 1;
	known = netlab_open.lookup(&key);
	if (!known)
		return 1;
	known->cookie = cookie;
	netlab_read_tuple(known, (struct sock *)known->socket);	/* the same, as a number: the verifier guards ctx->sk */
	if (!netlab_is_wanted(known))
		netlab_open.delete(&key);
	return 1;
}
