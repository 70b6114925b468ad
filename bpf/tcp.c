/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * TCP connection attempts, from the SYN or the end of the handshake to the last state, on hooks that kernels keep stable.
 *
 * Nothing runs per packet, and one small program per read(2): counts, round-trip times and retransmissions are the kernel's,
 * read from struct tcp_sock when the state changes. An attempt lives in netlab_open, keyed by its socket's
 * kernel address, and leaves through netlab_reports when the socket reaches TCP_CLOSE.
 *
 * Compile-time settings beside those of attempts.h:
 *   NETLAB_CHANGES  whether each state change is reported
 */
#include "connect.c"

/*
 * What does not fit on the 512-byte stack beside the rest. Softirq can come in the middle of a state change and bring
 * another one on the same CPU: there is a place for each depth.
 */
enum netlab_depth { NETLAB_OUTER, NETLAB_NESTED, NETLAB_DEPTHS };

BPF_PERCPU_ARRAY(netlab_scratch, struct netlab_attempt, NETLAB_DEPTHS);

/*
 * Which state change this CPU has taken last. It is good for one change: a socket's memory is soon another socket. No time
 * limit tells the two apart: a slow machine needs longer than any. A softirq that comes between the two programs of a change
 * has changes of its own, and leaves the outer one where it is.
 */
struct netlab_turn {
	u64 socket;
	u64 after;
	u64 outer_socket;
	u64 outer_after;
	u64 running;
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

BPF_RINGBUF_OUTPUT(netlab_changes, NETLAB_SIZED);

/*
 * Every record carries the number that sock_diag and SO_COOKIE report. A listener's child has its own only when it has
 * its tuple: inet_csk_clone_lock() gives it that of the SYN, mostly none, after the first state change.
 */
static __always_inline void netlab_give_cookie(struct sock *sk)
{
	if (!sk->__sk_common.skc_cookie.counter)
		bpf_get_socket_cookie(sk);
}

/* The SYN is about to be made, in the connecting process. Returns the attempt if it begins here, but for its owner. */
static __always_inline struct netlab_attempt *netlab_connecting(
	u64 key, const struct sock *sk, u64 now, u32 depth)
{
	bool asked = netlab_has_asked(key);
	struct netlab_attempt *attempt = netlab_known(key, &sk->__sk_common, now);

	if (attempt && attempt->unsent) {
		attempt->unsent = 0;
		attempt->error = 0;
		attempt->opened_ns = now;
		attempt->local_port = 0;
		netlab_read_tuple(attempt, &sk->__sk_common);	/* a program after ours may have changed where to */
		if (!netlab_has_wanted_ends(attempt))
			netlab_open.delete(&key);
		return NULL;
	}
	if (asked)
		return NULL;	/* there was no room for it, or the capture is paused */
	if (attempt)
		netlab_end_untold(key, attempt, now);
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
	attempt.complete = 1;
	attempt.direction = NETLAB_INCOMING;
	if (!netlab_is_wanted(&attempt))
		return;
	attempt.opened_ns = now;
	attempt.established_ns = established_ns;
	attempt.syn_retransmits = tp->total_retrans;
	netlab_follow_unless_paused(key, &attempt);
}

/*
 * Fast Open (RFC 7413): a server may read and answer what the SYN brought before the handshake ends, if it ever does. Its
 * socket is told from that of a handshake's last packet only later: where Fast Open is allowed, every one begins here.
 */
#define NETLAB_FAST_OPEN_SERVER 2	/* TFO_SERVER_ENABLE, include/net/tcp.h */

static __always_inline bool netlab_serves_fast_open(const struct tcp_sock *tp)
{
	const struct net *net = ((const struct sock_common *)tp)->skc_net.net;

	return net->ipv4.sysctl_tcp_fastopen & NETLAB_FAST_OPEN_SERVER;
}

/*
 * Who connects to itself, or to somebody who connects back at once, is in TCP_SYN_RECV, too. What a listener has made has no
 * struct socket before accept(), which only Fast Open lets come before the end of the handshake; a path that is added to an
 * MPTCP connection has that of the connection.
 */
static __always_inline bool netlab_has_connected(const struct tcp_sock *tp)
{
	return ((const struct sock *)tp)->sk_socket && !NETLAB_IS_MPTCP(tp) && !netlab_serves_fast_open(tp);
}

/*
 * With TCP_FASTOPEN_CONNECT and a cookie from before, connect() leaves the SYN to the first write, which nothing tells of. What
 * does is the round trip that has just been measured, unless the SYN was sent again.
 */
#define NETLAB_NOT_KNOWN 0xffffffff

static __always_inline u32 netlab_deferred_us(const struct netlab_attempt *attempt, const struct tcp_sock *tp)
{
	u64 took_us = (attempt->established_ns - attempt->opened_ns) / 1000, round_trip_us = tp->srtt_us >> 3;

	if (!tp->fastopen_connect)
		return 0;
	if (tp->total_retrans || !round_trip_us || took_us >= NETLAB_NOT_KNOWN)
		return NETLAB_NOT_KNOWN;
	return took_us > round_trip_us ? took_us - round_trip_us : 0;
}

/* The handshake ended. An accepted socket appears here for the first time with its tuple. */
static __always_inline void netlab_established(u64 key, const struct tcp_sock *tp, int before, u64 now)
{
	const struct sock_common *sk = (const struct sock_common *)tp;
	struct netlab_attempt *known = netlab_known(key, sk, now);

	if (known && known->established_ns)
		return;		/* taken twice */
	if (known) {
		known->established_ns = now;
		known->syn_retransmits = tp->total_retrans;
		known->deferred_us = netlab_deferred_us(known, tp);
		if (known->complete)
			return;
		netlab_complete(known, sk);
		known->complete = 1;
		if (!netlab_is_wanted(known))
			netlab_open.delete(&key);
		return;
	}
	if (before == TCP_SYN_RECV && !netlab_has_connected(tp))
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
 * A kernel thread closes what processes have left: a socket that was on its way through another one (unix(7), SCM_RIGHTS),
 * say. MPTCP's worker connects sockets, too, for the process that has the connection; sock_diag tells who that is.
 */
static __always_inline bool netlab_is_for_another(const struct tcp_sock *tp, int after)
{
	return (after != TCP_SYN_SENT || NETLAB_IS_MPTCP(tp)) && netlab_current()->flags & NETLAB_PF_KTHREAD;
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

/* A listener's child that is no connection: another one was faster, and Fast Open has not shown it to a process. */
static __always_inline bool netlab_was_never_open(struct netlab_attempt *known, const struct tcp_sock *tp, int before)
{
	return before == TCP_SYN_RECV && known->direction == NETLAB_INCOMING && !tp->fastopen_rsk;
}

/* Returns the attempt that has ended, but for its owner. */
static __always_inline struct netlab_attempt *netlab_closed_now(
	u64 key, const struct tcp_sock *tp, int before, u64 now, u32 depth)
{
	const struct sock *sk = (const struct sock *)tp;
	struct netlab_attempt *attempt, *known;

	known = netlab_known(key, (const struct sock_common *)tp, now);
	attempt = netlab_scratch.lookup(&depth);
	if (!attempt)
		return NULL;
	if (known && netlab_was_never_open(known, tp, before)) {
		netlab_open.delete(&key);
		return NULL;
	}
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
	netlab_read_counters(attempt, tp, before);
	attempt->mark = sk->sk_mark;	/* may have been set since the start */
	attempt->interface = sk->__sk_common.skc_bound_dev_if;
	attempt->error = netlab_error(tp, before, TCP_CLOSE);
	if (!attempt->established_ns)
		attempt->syn_retransmits = attempt->retransmits;
	if (before == TCP_SYN_SENT && !attempt->packets_sent)
		netlab_without_syn(attempt, sk);
	attempt->closed_ns = now;
	attempt->last_state = before;
	return attempt;
}

/* Tell whether a change may be of an attempt that is wanted: of many it is known that they are not. */
static __always_inline bool netlab_may_want_change(const struct tcp_sock *tp, int after)
{
	u16 local = netlab_ntohs(tp->inet_conn.icsk_inet.inet_sport);
	const struct sock_common *sk = (const struct sock_common *)tp;
	u16 remote = netlab_ntohs(sk->skc_dport);
	const struct net *net = sk->skc_net.net;

	if (!NETLAB_WANTED_NETNS(net->ns.inum))
		return false;
	if (after == TCP_SYN_SENT || !local || !remote)
		return true;	/* a port is not known yet */
	return NETLAB_WANTED_PORT(local) || NETLAB_WANTED_PORT(remote);
}

/* Each moment is read once, so that a change and the attempt it belongs to carry the same. */
static __always_inline void netlab_changed(u64 key, const struct tcp_sock *tp, int before, int after, u64 now)
{
	struct netlab_change change = { .before = before, .after = after, .socket = key };
	const struct sock_common *sk = (const struct sock_common *)tp;
	const struct net *net = sk->skc_net.net;

	if (!netlab_may_want_change(tp, after))
		return;		/* it takes no room from others, and is not lost */
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

/* Those that only say who has the socket, which in softirq nobody has. */
#define NETLAB_ONLY_OWNER (1 << TCP_FIN_WAIT1 | 1 << TCP_LAST_ACK)

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

	if ((NETLAB_ONLY_OWNER >> after) & 1) {
		attempt = netlab_open.lookup(&key);
		if (attempt && attempt->cookie != changed->__sk_common.skc_cookie.counter)
			attempt = NULL;
		if (!NETLAB_CHANGES && (!attempt || attempt->pid_source != NETLAB_NO_PID))
			return;
	}
	tp = netlab_tcp_sock(changed);
	if (!tp)
		return;
	sk = (const struct sock *)tp;
	now = bpf_ktime_get_ns();
	if (after != TCP_SYN_RECV)
		netlab_give_cookie(changed);
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
	    (after == TCP_SYN_SENT || netlab_is_used_here(sk)) && !netlab_is_for_another(tp, after))
		netlab_read_owner(attempt, after == TCP_SYN_SENT ? NETLAB_PID_CONNECT : NETLAB_PID_CLOSE);
	if (after == TCP_CLOSE && attempt->pid_source == NETLAB_NO_PID)
		netlab_await_owner(attempt->cookie);
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
	struct netlab_turn *turn;
	u32 zero = 0;

	turn = netlab_turns.lookup(&zero);
	if (!turn)
		return 0;
	if (*(volatile u64 *)&turn->running)
		return 0;	/* before Linux 6.1 a program may run in the middle of itself: the second one takes this change */
	*(volatile u64 *)&turn->running = 1;
	if (turn->socket) {	/* its second program has not asked yet */
		turn->outer_socket = turn->socket;
		turn->outer_after = turn->after;
	}
	turn->socket = (u64)sk;
	turn->after = after;
	if (NETLAB_CHANGES || !((NETLAB_NOTHING_NEW >> after) & 1))
		netlab_change_of(sk, (u64)sk, ctx->before, after, NETLAB_OUTER);
	*(volatile u64 *)&turn->running = 0;
	return 0;
}

int netlab_state_nested(struct netlab_state_change *ctx)
{
	struct sock *sk = ctx->sk;
	int after = ctx->after;
	struct netlab_turn *turn;
	u32 zero = 0;

	turn = netlab_turns.lookup(&zero);
	if (!turn)
		return 0;
	if (turn->socket == (u64)sk && turn->after == after) {
		turn->socket = 0;
		return 0;
	}
	if (turn->outer_socket == (u64)sk && turn->outer_after == after) {
		turn->outer_socket = 0;
		return 0;
	}
	netlab_count(NETLAB_NESTED_CHANGE);	/* whatever it is: the kernel has counted that the first one was left out */
	if (!NETLAB_CHANGES && ((NETLAB_NOTHING_NEW | NETLAB_ONLY_OWNER) >> after) & 1)
		return 0;
	if (after != TCP_SYN_SENT)	/* nothing connects in softirq */
		netlab_change_of(sk, (u64)sk, ctx->before, after, NETLAB_NESTED);
	return 0;
}

struct netlab_space_adjust {
	struct sock *sk;
};

/*
 * Cookies of sockets whose owner is known, or never will be, each at its place: what is read after the first time needs
 * nothing else. A look-up in netlab_open takes ten times as long where its entries have left the cache, which they do
 * between two requests of one connection; neighbours here were made one after the other.
 */
#define NETLAB_OWNED 65536

BPF_ARRAY(netlab_owned, u64, NETLAB_OWNED);

/* Typed raw tracepoint tcp_rcv_space_adjust(sk): a process takes received data, so it has the socket. */
int netlab_received(struct netlab_space_adjust *ctx)
{
	struct sock *sk = ctx->sk;
	u64 key = (u64)sk, cookie = sk->__sk_common.skc_cookie.counter, *owned;
	struct netlab_attempt *known;
	u32 place = cookie % NETLAB_OWNED;

	owned = netlab_owned.lookup(&place);
	if (owned && cookie && *owned == cookie)
		return 0;
	known = netlab_open.lookup(&key);
	if (known && known->cookie == cookie && known->pid_source == NETLAB_NO_PID && netlab_is_used_here(sk))
		netlab_read_owner(known, NETLAB_PID_RECEIVE);
	if (owned && (!known || known->pid_source != NETLAB_NO_PID))
		*owned = cookie;
	return 0;
}

struct netlab_congestion_state {
	struct sock *sk;
	u64 state;
};

/*
 * Typed raw tracepoint tcp_cong_state_set(sk, ca_state): the first thing that is told of a socket that a listener has made
 * and that has its tuple (tcp_ca_openreq_child() in net/ipv4/tcp_minisocks.c).
 */
int netlab_accepted_early(struct netlab_congestion_state *ctx)
{
	struct sock *sk = ctx->sk;
	struct netlab_attempt *known;
	const struct tcp_sock *tp;
	u64 key = (u64)sk, now;

	if (sk->__sk_common.skc_state != TCP_SYN_RECV)
		return 0;
	tp = netlab_tcp_sock(sk);
	if (!tp || !netlab_serves_fast_open(tp))
		return 0;
	netlab_give_cookie(sk);
	now = bpf_ktime_get_ns();
	if (!netlab_known(key, &sk->__sk_common, now))
		netlab_accept(key, tp, now, 0);
	return 0;
}
