/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * TCP connection attempts, from connect() or the end of the handshake to the last state, on hooks that kernels keep stable.
 *
 * Nothing runs per packet, and one small program per read(2): counts, round-trip times and retransmissions are the kernel's,
 * read from struct tcp_sock when the state changes. An attempt lives in netlab_open, keyed by its socket's
 * kernel address, and leaves through netlab_reports when the socket reaches TCP_CLOSE.
 *
 * Compile-time settings beside those of netlab.h:
 *   NETLAB_CHANGE_PAGES  size
 *   NETLAB_CHANGES  whether each state change is reported
 *   NETLAB_US_PER_JIFFY
 *   NETLAB_PARENT(node)  the parent of a struct kernfs_node
 *   NETLAB_TOTAL_RTO(tp)  how many retransmission timeouts there were, where the kernel counts them
 */
#include "netlab.h"

BPF_HASH(netlab_open, u64, struct netlab_attempt, NETLAB_OPEN_MAX);
/* Attempts that ended; and, when netlab_open is full, attempts that began: those have no closed_ns. */
BPF_RINGBUF_OUTPUT(netlab_reports, NETLAB_RING_PAGES);
/*
 * Which socket a thread is in connect() with: until the SYN, the kernel's route look-ups do not tell. What a failed
 * connect() leaves goes with the socket, or with the thread's next one. An array is looked up without a call, which counts
 * where packets are routed: of two threads in one place the first only loses the reason.
 */
#define NETLAB_ASKING 32768	/* a power of two */

struct netlab_asking {
	u64 thread;
	u64 key;
};

BPF_ARRAY(netlab_asking, struct netlab_asking, NETLAB_ASKING);
/*
 * What does not fit on the 512-byte stack beside the rest. Softirq can come in the middle of a state change and bring
 * another one on the same CPU: there is a place for each depth.
 */
enum netlab_depth { NETLAB_OUTER, NETLAB_NESTED, NETLAB_DEPTHS };

BPF_PERCPU_ARRAY(netlab_scratch, struct netlab_attempt, NETLAB_DEPTHS);

/*
 * Which state change this CPU has taken last. It is good for one change: a socket's memory is soon another socket. No time
 * limit tells the two apart: a slow machine needs longer than any.
 */
struct netlab_turn {
	u64 socket;
	u64 after;
};

BPF_PERCPU_ARRAY(netlab_turns, struct netlab_turn, 1);

struct netlab_change {
	u64 at_ns;	/* CLOCK_MONOTONIC */
	u64 socket;
	u64 cookie;
	u32 netns;
	s32 error;
	u8 before;
	u8 after;
	u8 padding[6];
};

BPF_RINGBUF_OUTPUT(netlab_changes, NETLAB_CHANGE_PAGES);

/*
 * The tuple is complete only from some states on: connect() picks the local port after TCP_SYN_SENT, and
 * inet_put_port() clears the port in the last ones. What is already known is therefore never overwritten by zero.
 */
static __always_inline void netlab_read_tuple(struct netlab_attempt *attempt, const struct sock_common *sk)
{
	if (sk->skc_num)
		attempt->local_port = sk->skc_num;
	if (!sk->skc_dport)
		return;
	attempt->remote_port = netlab_ntohs(sk->skc_dport);
	if (attempt->family == NETLAB_AF_INET) {
		__builtin_memcpy(attempt->local_address, &sk->skc_rcv_saddr, 4);
		__builtin_memcpy(attempt->remote_address, &sk->skc_daddr, 4);
	} else {
		__builtin_memcpy(attempt->local_address, &sk->skc_v6_rcv_saddr, 16);
		__builtin_memcpy(attempt->remote_address, &sk->skc_v6_daddr, 16);
	}
}

/* Local address, local port and cookie: whatever there is of them by now. */
static __always_inline void netlab_complete(struct netlab_attempt *attempt, const struct sock_common *sk)
{
	netlab_read_tuple(attempt, sk);
	attempt->cookie = sk->skc_cookie.counter;
}

static __always_inline void netlab_read_identity(struct netlab_attempt *attempt, u64 key, const struct sock *sk)
{
	const struct net *net = sk->__sk_common.skc_net.net;

	attempt->socket = key;
	attempt->protocol = IPPROTO_TCP;
	attempt->family = sk->__sk_common.skc_family;
	attempt->mark = sk->sk_mark;
	attempt->netns = net->ns.inum;
	netlab_complete(attempt, &sk->__sk_common);
}

/*
 * While connect() has the socket locked, an ICMP error is only noted, as the reason if the SYNs run out; asking for
 * SO_ERROR takes the note away. Since 6.2, and before with IP_RECVERR, it also waits in the error queue, where what is
 * about another SYN is of an earlier connect().
 */
static __always_inline s32 netlab_noted_error(const struct tcp_sock *tp)
{
	const struct sock *sk = (const struct sock *)tp;
	struct sock_extended_err icmp = {};
	struct tcphdr *quoted = NULL;
	const struct sk_buff *last;
	u32 about = 0;

	if (sk->sk_err_soft || !sk->sk_error_queue.qlen)
		return sk->sk_err_soft;
	last = sk->sk_error_queue.prev;
	NETLAB_READ(icmp, ((struct sock_exterr_skb *)&last->cb)->ee);
	NETLAB_READ(quoted, last->data);
	NETLAB_READ(about, quoted->seq);
	if (icmp.ee_origin != NETLAB_ORIGIN_ICMP && icmp.ee_origin != NETLAB_ORIGIN_ICMP6)
		return 0;
	return netlab_ntohl(about) == tp->snd_una ? icmp.ee_errno : 0;
}

/* Why the socket goes from *before* to *after*, as far as it is a failure. */
static __always_inline s32 netlab_error(const struct tcp_sock *tp, int before, int after)
{
	const struct sock *sk = (const struct sock *)tp;

	if (sk->sk_err || before != TCP_SYN_SENT || after != TCP_CLOSE)
		return sk->sk_err;
	return netlab_noted_error(tp);
}

static __always_inline void netlab_read_counters(struct netlab_attempt *attempt, const struct tcp_sock *seen)
{
	u32 limited;

	attempt->bytes_sent = seen->bytes_sent - seen->bytes_retrans;	/* bytes_sent counts each retransmission too */
	attempt->bytes_received = seen->bytes_received;
	if ((((const struct sock *)seen)->__sk_common.skc_flags >> SOCK_DONE) & 1 && attempt->bytes_received)
		attempt->bytes_received--;	/* tcp_rcv_nxt_update() counts the FIN as a byte */
	attempt->packets_sent = seen->segs_out;
	attempt->packets_received = seen->segs_in;
	attempt->retransmits = seen->total_retrans;
	attempt->min_rtt_us = seen->rtt_min.s[0].v;
	attempt->cwnd = seen->snd_cwnd;
	attempt->srtt_us = seen->srtt_us >> 3;		/* kept in eighths, its deviation in quarters */
	attempt->rtt_var_us = seen->mdev_us >> 2;
	attempt->out_of_order = seen->rcv_ooopack;
	attempt->rtos = NETLAB_TOTAL_RTO(seen);
	limited = seen->chrono_stat[TCP_CHRONO_RWND_LIMITED - 1];
	if (seen->chrono_type == TCP_CHRONO_RWND_LIMITED)
		limited += (u32)bpf_jiffies64() - seen->chrono_start;
	attempt->rwnd_limited_us = limited * NETLAB_US_PER_JIFFY;
}

/* The reader looks at the clock, not at wake-ups: a wake-up per connection is what costs. */
static __always_inline void netlab_report(struct netlab_attempt *attempt, u32 if_lost)
{
	if (netlab_reports.ringbuf_output(attempt, sizeof(*attempt), BPF_RB_NO_WAKEUP))
		netlab_count(if_lost);
}

/* An attempt that only its local port could make wanted is not counted before connect() has chosen that. */
static __always_inline void netlab_count_wanted(struct netlab_attempt *attempt, u32 counter)
{
	if (netlab_has_wanted_port(attempt))
		netlab_count(counter);
}

static __always_inline void netlab_follow(u64 key, struct netlab_attempt *attempt)
{
	if (!netlab_open.update(&key, attempt))
		return;
	netlab_count_wanted(attempt, NETLAB_MAP_FULL);
	netlab_report(attempt, NETLAB_ATTEMPT_LOST);
}

/* All but the owner. */
static __always_inline void netlab_begin(struct netlab_attempt *attempt, u64 key, const struct sock *sk, u64 now)
{
	netlab_read_identity(attempt, key, sk);
	attempt->direction = NETLAB_OUTGOING;
	attempt->opened_ns = now;
}

/* Of an attempt that begins now: a port that is not chosen yet may become a wanted one. */
static __always_inline bool netlab_may_be_wanted(struct netlab_attempt *attempt)
{
	if (!NETLAB_WANTED_PROCESS(attempt->pid, ((u64 *)attempt->process)))
		return false;
	if (attempt->local_port && !netlab_has_wanted_port(attempt))
		return false;
	return netlab_has_wanted_ends(attempt);
}

static __always_inline void netlab_follow_unless_paused(u64 key, struct netlab_attempt *attempt)
{
	if (netlab_is_paused())
		netlab_count_wanted(attempt, NETLAB_WHILE_PAUSED);
	else
		netlab_follow(key, attempt);
}

/*
 * No state change has told of the end, or will. The attempt failed before its first packet; or else its socket's memory
 * is another socket's by now, and last_state stays 0.
 */
static __always_inline void netlab_end_untold(u64 key, struct netlab_attempt *known, u64 now)
{
	known->closed_ns = now;
	netlab_report(known, NETLAB_ATTEMPT_LOST);
	netlab_open.delete(&key);
}

static __always_inline struct netlab_asking *netlab_asking_place(u64 thread)
{
	u32 place = thread & (NETLAB_ASKING - 1);

	return netlab_asking.lookup(&place);
}

/* From now on the current thread is in connect() with this socket, or with none. */
static __always_inline void netlab_ask(u64 key)
{
	u64 thread = bpf_get_current_pid_tgid();
	struct netlab_asking *asking = netlab_asking_place(thread);

	if (!asking)
		return;
	asking->thread = thread;
	asking->key = key;
}

/* Tell whether the current thread was in connect() with this socket; now it is so no more. */
static __always_inline bool netlab_has_asked(u64 key)
{
	u64 thread = bpf_get_current_pid_tgid();
	struct netlab_asking *asking = netlab_asking_place(thread);

	if (!asking || asking->thread != thread || asking->key != key)
		return false;
	asking->key = 0;
	return true;
}

static __always_inline struct netlab_attempt *netlab_asking_now(void)
{
	u64 thread = bpf_get_current_pid_tgid(), key;
	struct netlab_asking *asking = netlab_asking_place(thread);
	struct netlab_attempt *known;

	if (!asking || asking->thread != thread || !asking->key)
		return NULL;
	key = asking->key;
	known = netlab_open.lookup(&key);
	return known && known->unsent ? known : NULL;
}

/*
 * connect() before anything is decided: cgroup hooks connect4 and connect6, in the connecting process. Without them an
 * attempt begins at TCP_SYN_SENT, and one that finds no route is not seen.
 */
static __always_inline int netlab_asked(struct bpf_sock_addr *ctx, bool six)
{
	struct netlab_attempt *known, attempt = {};
	u64 key, now = bpf_ktime_get_ns();
	struct tcp_sock *tp;

	if (ctx->protocol != IPPROTO_TCP || !ctx->sk)
		return 1;
	tp = netlab_tcp_sock(ctx->sk);
	if (!tp)
		return 1;
	key = (u64)tp;
	known = netlab_open.lookup(&key);
	if (known)
		netlab_end_untold(key, known, now);
	netlab_begin(&attempt, key, (struct sock *)tp, now);
	netlab_read_owner(&attempt, NETLAB_PID_CONNECT);
	attempt.remote_port = netlab_ntohs((u16)ctx->user_port);
	if (six) {
		((u32 *)attempt.remote_address)[0] = ctx->user_ip6[0];
		((u32 *)attempt.remote_address)[1] = ctx->user_ip6[1];
		((u32 *)attempt.remote_address)[2] = ctx->user_ip6[2];
		((u32 *)attempt.remote_address)[3] = ctx->user_ip6[3];
	} else {
		((u32 *)attempt.remote_address)[0] = ctx->user_ip4;
	}
	attempt.unsent = 1;
	if (netlab_may_be_wanted(&attempt)) {
		netlab_follow_unless_paused(key, &attempt);
		netlab_ask(key);
	} else {	/* until TCP_SYN_SENT: another program on this hook may still change where it goes */
		netlab_ask(0);
	}
	return 1;
}

int netlab_asked4(struct bpf_sock_addr *ctx)
{
	return netlab_asked(ctx, false);
}

int netlab_asked6(struct bpf_sock_addr *ctx)
{
	return netlab_asked(ctx, true);
}

/* The last descriptor of a socket is closed, in the closing process. */
int netlab_socket_released(struct bpf_sock *ctx)
{
	struct netlab_attempt *known;
	u64 key = (u64)ctx;

	if (ctx->protocol != IPPROTO_TCP || ctx->state != TCP_CLOSE)
		return 1;	/* before the SYN the state is still that */
	known = netlab_open.lookup(&key);
	if (known && known->unsent) {
		netlab_end_untold(key, known, bpf_ktime_get_ns());
		netlab_has_asked(key);
	}
	return 1;
}

/*
 * Raw tracepoint fib_table_lookup(table, flow, hop, error): a table without a match is no error yet, -EAGAIN. A later one
 * that has the route takes it back: what fails then has another reason.
 */
int netlab_route4(struct bpf_raw_tracepoint_args *ctx)
{
	struct flowi4 *flow = (struct flowi4 *)ctx->args[1];
	struct netlab_attempt *known;
	int error = ctx->args[3];
	u32 to = 0, v4;

	known = netlab_asking_now();
	if (!known)
		return 0;
	NETLAB_READ(to, flow->daddr);
	v4 = known->family == NETLAB_AF_INET ? ((u32 *)known->remote_address)[0] : ((u32 *)known->remote_address)[3];
	if (to == v4)
		known->error = error == -NETLAB_EAGAIN ? NETLAB_ENETUNREACH : -error;
	return 0;
}

/* Raw tracepoint fib6_table_lookup(net, result, table, flow): what ip6_rt_type_to_error() makes of a reject route. */
int netlab_route6(struct bpf_raw_tracepoint_args *ctx)
{
	struct fib6_result *result = (struct fib6_result *)ctx->args[1];
	struct flowi6 *flow = (struct flowi6 *)ctx->args[3];
	struct netlab_attempt *known = netlab_asking_now();
	struct fib6_info *route = NULL;
	u32 flags = 0, metric = 0;
	u64 to[2] = {};
	u8 type = 0;

	if (!known)
		return 0;
	NETLAB_READ(to, flow->daddr);
	if (to[0] != ((u64 *)known->remote_address)[0] || to[1] != ((u64 *)known->remote_address)[1])
		return 0;
	NETLAB_READ(flags, result->fib6_flags);
	NETLAB_READ(route, result->f6i);
	NETLAB_READ(metric, route->fib6_metric);
	NETLAB_READ(type, result->fib6_type);
	if (metric == ~0U)	/* fib6_null_entry_template: no route matched */
		known->error = NETLAB_ENETUNREACH;
	else if (!(flags & NETLAB_RTF_REJECT))
		known->error = 0;
	else if (type == RTN_PROHIBIT)
		known->error = NETLAB_EACCES;
	else if (type == RTN_BLACKHOLE)
		known->error = NETLAB_EINVAL;
	else
		known->error = NETLAB_EHOSTUNREACH;
	return 0;
}

/* The SYN is about to be made, in the connecting process. Returns the attempt if it begins here, but for its owner. */
static __always_inline struct netlab_attempt *netlab_connecting(
	u64 key, const struct sock *sk, u64 now, u32 depth)
{
	bool asked = netlab_has_asked(key);
	struct netlab_attempt *attempt = netlab_open.lookup(&key);

	if (attempt && attempt->unsent) {
		attempt->unsent = 0;
		attempt->error = 0;
		attempt->opened_ns = now;
		attempt->local_port = sk->__sk_common.skc_num;
		if (!netlab_has_wanted_ends(attempt))
			netlab_open.delete(&key);
		return NULL;
	}
	if (asked)
		return NULL;	/* there was no room for it, or the capture is paused */
	attempt = netlab_scratch.lookup(&depth);
	if (attempt) {
		__builtin_memset(attempt, 0, sizeof(*attempt));
		netlab_begin(attempt, key, sk, now);
	}
	return attempt;
}

/* A socket that a listener has made, mostly in softirq; *established_ns* is 0 while the handshake goes on. */
static __always_inline void netlab_accept(u64 key, const struct tcp_sock *tp, u64 now, u64 established_ns)
{
	struct netlab_attempt attempt = {};

	netlab_read_identity(&attempt, key, (const struct sock *)tp);
	attempt.complete = attempt.cookie != 0;
	attempt.direction = NETLAB_INCOMING;
	if (!netlab_is_wanted(&attempt))
		return;
	attempt.opened_ns = now;
	attempt.established_ns = established_ns;
	attempt.syn_retransmits = tp->total_retrans;
	netlab_follow_unless_paused(key, &attempt);
}

/* The handshake ended. An accepted socket appears here for the first time with its tuple. */
static __always_inline void netlab_established(u64 key, const struct tcp_sock *tp, int before, u64 now)
{
	struct netlab_attempt *known = netlab_open.lookup(&key);
	const struct sock_common *sk = (const struct sock_common *)tp;

	if (known && known->established_ns) {
		if (sk->skc_cookie.counter == known->cookie)
			return;		/* taken twice */
		netlab_end_untold(key, known, now);
	} else if (known) {
		known->established_ns = now;
		known->syn_retransmits = tp->total_retrans;
		if (known->complete)
			return;
		netlab_complete(known, sk);
		if (!netlab_is_wanted(known))
			netlab_open.delete(&key);
		return;
	}
	if (before == TCP_SYN_RECV)
		netlab_accept(key, tp, now, now);
}

/*
 * Whoever has locked the socket is a process that uses it: softirq works only on sockets that nobody has locked.
 * With an error the lock may be that of a tool that aborts other processes' connections.
 */
static __always_inline bool netlab_is_used_here(const struct sock *sk)
{
	return sk->sk_lock.owned && !sk->sk_err;
}

/*
 * connect() had no local port and failed, or left the SYN to a write that never came (TCP_FASTOPEN_CONNECT): a closing
 * process has shut the socket down first. ECONNRESET is of the socket's connection before: nobody can answer yet.
 */
static __always_inline void netlab_without_syn(struct netlab_attempt *attempt, const struct sock *sk)
{
	if (!attempt->error || attempt->error == NETLAB_ECONNRESET)
		attempt->error = sk->sk_shutdown ? NETLAB_ECANCELED : NETLAB_EADDRNOTAVAIL;
	if (attempt->error == NETLAB_EADDRNOTAVAIL)
		attempt->local_port = sk->__sk_common.skc_num;	/* inet_sport is that of an earlier connect() */
}

/* Returns the attempt that has ended, but for its owner. */
static __always_inline struct netlab_attempt *netlab_closed_now(
	u64 key, const struct tcp_sock *tp, int before, u64 now, u32 depth)
{
	const struct sock *sk = (const struct sock *)tp;
	struct netlab_attempt *attempt, *known;

	known = netlab_open.lookup(&key);
	attempt = netlab_scratch.lookup(&depth);
	if (!attempt)
		return NULL;
	if (known) {
		__builtin_memcpy(attempt, known, sizeof(*attempt));
		netlab_open.delete(&key);
		if (!attempt->complete)
			netlab_complete(attempt, &sk->__sk_common);
	} else {
		/* Open before the capture, or not followed: user space tells which, by cookie and by start. */
		__builtin_memset(attempt, 0, sizeof(*attempt));
		netlab_read_identity(attempt, key, sk);
	}
	if (!attempt->local_port)	/* the socket has given it back by now, and still says which it was */
		attempt->local_port = netlab_ntohs(tp->inet_conn.icsk_inet.inet_sport);
	if (!netlab_is_wanted(attempt))
		return NULL;
	netlab_read_counters(attempt, tp);
	attempt->mark = sk->sk_mark;	/* may have been set since the start */
	attempt->error = netlab_error(tp, before, TCP_CLOSE);
	if (!attempt->established_ns)
		attempt->syn_retransmits = attempt->retransmits;
	if (before == TCP_SYN_SENT && !attempt->packets_sent)
		netlab_without_syn(attempt, sk);
	attempt->closed_ns = now;
	attempt->last_state = before;
	return attempt;
}

/* Each moment is read once, so that a change and the attempt it belongs to carry the same. */
static __always_inline void netlab_changed(u64 key, const struct tcp_sock *tp, int before, int after, u64 now)
{
	struct netlab_change change = { .before = before, .after = after, .socket = key };
	const struct sock_common *sk = (const struct sock_common *)tp;
	const struct net *net = sk->skc_net.net;

	change.at_ns = now;
	change.cookie = sk->skc_cookie.counter;
	change.error = netlab_error(tp, before, after);
	change.netns = net->ns.inum;
	if (netlab_changes.ringbuf_output(&change, sizeof(change), BPF_RB_NO_WAKEUP))
		netlab_count(NETLAB_CHANGE_LOST);
}

/* States that say nothing about an attempt that the next one does not. */
#define NETLAB_NOTHING_NEW \
	(1 << TCP_SYN_RECV | 1 << TCP_FIN_WAIT2 | 1 << TCP_CLOSE_WAIT | 1 << TCP_LISTEN | 1 << TCP_CLOSING)

/*
 * The owner is read in one place: it is most of the code, for the compiler and for the verifier. In a nested change there
 * is none to be told: it is softirq's.
 */
static __always_inline void netlab_change_of(struct sock *changed, u64 key, int before, int after, u32 depth)
{
	struct netlab_attempt *attempt = NULL;
	const struct tcp_sock *tp;
	const struct sock *sk;
	u64 now;

	if (!NETLAB_CHANGES && (NETLAB_NOTHING_NEW >> after) & 1)
		return;
	if (after == TCP_FIN_WAIT1 || after == TCP_LAST_ACK) {
		attempt = netlab_open.lookup(&key);
		if (!NETLAB_CHANGES && (!attempt || attempt->pid_source != NETLAB_NO_PID))
			return;
	}
	tp = netlab_tcp_sock(changed);
	if (!tp)
		return;
	sk = (const struct sock *)tp;
	now = bpf_ktime_get_ns();
	if (NETLAB_CHANGES)
		netlab_changed(key, tp, before, after, now);
	if (after == TCP_SYN_SENT)
		attempt = netlab_connecting(key, sk, now, depth);
	else if (after == TCP_ESTABLISHED)
		netlab_established(key, tp, before, now);
	else if (after == TCP_CLOSE && before != TCP_LISTEN && before != TCP_CLOSE)
		attempt = netlab_closed_now(key, tp, before, now, depth);
	if (!attempt)
		return;
	if (depth == NETLAB_OUTER && attempt->pid_source == NETLAB_NO_PID &&
	    (after == TCP_SYN_SENT || netlab_is_used_here(sk)))
		netlab_read_owner(attempt, after == TCP_SYN_SENT ? NETLAB_PID_CONNECT : NETLAB_PID_CLOSE);
	if (after == TCP_CLOSE)
		netlab_report(attempt, attempt->opened_ns ? NETLAB_ATTEMPT_LOST : NETLAB_END_LOST);
	else if (after == TCP_SYN_SENT && netlab_may_be_wanted(attempt))
		netlab_follow_unless_paused(key, attempt);
}

/* What the kernel hands to inet_sock_set_state, include/trace/events/sock.h. */
struct netlab_state_change {
	struct sock *sk;
	u64 before;
	u64 after;
};

/*
 * Typed raw tracepoint inet_sock_set_state(sk, oldstate, newstate).
 *
 * The kernel does not run a program that is running already on this CPU: when softirq interrupts it, the state changes
 * of that softirq would be lost. A second program at the same tracepoint, which the kernel runs after the first, finds
 * in netlab_turns whether the first one has taken the change, and takes it if not.
 */
int netlab_state_changed(struct netlab_state_change *ctx)
{
	struct sock *sk = ctx->sk;
	int after = ctx->after;
	u32 zero = 0;
	struct netlab_turn *turn = netlab_turns.lookup(&zero);

	if (!turn)
		return 0;
	turn->socket = (u64)sk;
	turn->after = after;
	netlab_change_of(sk, (u64)sk, ctx->before, after, NETLAB_OUTER);
	return 0;
}

int netlab_state_nested(struct netlab_state_change *ctx)
{
	struct sock *sk = ctx->sk;
	int after = ctx->after;
	u32 zero = 0;
	struct netlab_turn *turn = netlab_turns.lookup(&zero);

	if (!turn)
		return 0;
	if (turn->socket == (u64)sk && turn->after == after) {
		turn->socket = 0;
		return 0;
	}
	netlab_count(NETLAB_NESTED_CHANGE);
	if (after != TCP_SYN_SENT)	/* nothing connects in softirq */
		netlab_change_of(sk, (u64)sk, ctx->before, after, NETLAB_NESTED);
	return 0;
}

struct netlab_space_adjust {
	struct sock *sk;
};

/* Typed raw tracepoint tcp_rcv_space_adjust(sk): a process takes received data, so it has the socket. */
int netlab_received(struct netlab_space_adjust *ctx)
{
	struct sock *sk = ctx->sk;
	u64 key = (u64)sk;
	struct netlab_attempt *known = netlab_open.lookup(&key);

	if (known && known->pid_source == NETLAB_NO_PID && netlab_is_used_here(sk))
		netlab_read_owner(known, NETLAB_PID_RECEIVE);
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

/* Fast Open (RFC 7413): a server may read and answer what the SYN brought before the handshake ends, if it ever does. */
static __always_inline void netlab_accepted_early(u64 key, const struct tcp_sock *tp)
{
	struct netlab_attempt *known;
	u64 now;

	if (!tp->fastopen_rsk)
		return;
	now = bpf_ktime_get_ns();
	known = netlab_open.lookup(&key);
	if (known)
		netlab_end_untold(key, known, now);
	netlab_accept(key, tp, now, 0);
}

/* The SYN is about to leave: what TCP_SYN_SENT did not have yet, the local end, is chosen now. */
static __always_inline void netlab_syn_leaves(u64 key, const struct tcp_sock *tp)
{
	struct netlab_attempt *known = netlab_open.lookup(&key);

	if (!known)
		return;
	netlab_complete(known, (const struct sock_common *)tp);
	known->complete = 1;
	if (!netlab_is_wanted(known))
		netlab_open.delete(&key);
}

int netlab_socket_used(struct bpf_sock_ops *ctx)
{
	struct tcp_sock *tp;

	if (ctx->op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB && ctx->op != BPF_SOCK_OPS_TCP_CONNECT_CB)
		return 1;
	bpf_get_socket_cookie(ctx);
	tp = ctx->sk ? netlab_tcp_sock(ctx->sk) : NULL;
	if (!tp)
		return 1;
	if (ctx->op == BPF_SOCK_OPS_TCP_CONNECT_CB)
		netlab_syn_leaves((u64)tp, tp);
	else
		netlab_accepted_early((u64)tp, tp);
	return 1;
}
