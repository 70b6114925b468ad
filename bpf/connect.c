/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * connect() up to the SYN: who calls it, where to, and why there is no way. What happens from the SYN on is in tcp.c.
 */
#include "attempts.h"

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
	bpf_get_socket_cookie(ctx);
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
	attempt.error = netlab_denial();
	if (netlab_may_be_wanted(&attempt)) {
		netlab_follow_unless_paused(key, &attempt);
		netlab_ask(attempt.error ? 0 : key);
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

/* Whoever closes a connection's descriptor had it, if nothing told before: a kernel thread closes for others. */
static __always_inline void netlab_own_late(u64 cookie)
{
	struct netlab_owner *late = netlab_late_owners.lookup(&cookie), owner = {};

	if (!late || late->pid || netlab_current()->flags & NETLAB_PF_KTHREAD)
		return;
	netlab_current_owner(&owner);
	netlab_late_owners.update(&cookie, &owner);	/* as a whole, for whoever reads meanwhile */
}

/* The last descriptor of a socket is closed, in the closing process. What is still followed then has had an end unseen. */
int netlab_socket_released(struct bpf_sock *ctx)
{
	struct netlab_attempt *known;
	u64 key = (u64)ctx;

	if (ctx->protocol != IPPROTO_TCP || ctx->state != TCP_CLOSE)
		return 1;	/* before the SYN the state is still that */
	known = netlab_open.lookup(&key);
	if (known) {
		netlab_end_untold(key, known, bpf_ktime_get_ns());
		netlab_has_asked(key);
	}
	netlab_own_late(bpf_get_socket_cookie(ctx));
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
