/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * TCP attempts in the kernel: where they are kept and reported, and what is read of their sockets.
 *
 * Compile-time settings beside those of netlab.h:
 *   NETLAB_US_PER_JIFFY
 *   NETLAB_TOTAL_RTO(tp)  how many retransmission timeouts there were, where the kernel counts them
 *   NETLAB_IS_MPTCP(tp)  whether it is one path of an MPTCP connection (RFC 8684)
 */
#ifndef NETLAB_ATTEMPTS_H
#define NETLAB_ATTEMPTS_H

#include "owner.h"

BPF_HASH(netlab_open, u64, struct netlab_attempt, NETLAB_SIZED);
/* Attempts that ended; and, when netlab_open is full, attempts that began: those have no closed_ns. */
BPF_RINGBUF_OUTPUT(netlab_reports, NETLAB_SIZED);

/*
 * Whose connections were that ended before anything told: the peer has reset one that was accepted and not read from, say. By
 * cookie, and blank until the descriptor is closed. The oldest make room, and their owner stays unknown.
 */
#define NETLAB_LATE 16384

BPF_TABLE("lru_hash", u64, struct netlab_owner, netlab_late_owners, NETLAB_LATE);

static __always_inline void netlab_await_owner(u64 cookie)
{
	struct netlab_owner blank = {};

	netlab_late_owners.update(&cookie, &blank);
}

/*
 * The tuple is complete only from some states on: connect() picks the local port after TCP_SYN_SENT, and
 * inet_put_port() clears the port in the last ones. What is already known is therefore never overwritten by zero.
 */
static __always_inline void netlab_read_tuple(struct netlab_attempt *attempt, const struct sock_common *sk)
{
	if (sk->skc_num)
		attempt->local_port = sk->skc_num;
	if (!sk->skc_dport && sk->skc_state != TCP_SYN_SENT)
		return;		/* and not port 0 */
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
	attempt->interface = sk->__sk_common.skc_bound_dev_if;
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

/* Whether the socket in the state *before* has sent its FIN: it is the last that is written. */
static __always_inline bool netlab_sent_fin(const struct tcp_sock *tp, int before)
{
	if (before == TCP_FIN_WAIT1 || before == TCP_CLOSING || before == TCP_LAST_ACK)
		return tp->snd_nxt == tp->write_seq;
	return before == TCP_FIN_WAIT2;
}

/*
 * The payload that has left the host, each byte once. bytes_sent counts what is sent again, and what a firewall here drops as
 * often as TCP tries. Sequence numbers go on only with what has left: they are the SYN's, the payload's and the FIN's.
 */
static __always_inline u64 netlab_bytes_sent(const struct tcp_sock *tp, u8 direction, int before)
{
	s64 tried = tp->bytes_sent - tp->bytes_retrans;
	s64 left = tp->bytes_acked + (u32)(tp->snd_nxt - tp->snd_una);

	left -= (direction == NETLAB_OUTGOING) + netlab_sent_fin(tp, before);
	if (tried <= left)
		return tried;
	return left > 0 ? left : 0;
}

static __always_inline void netlab_read_counters(struct netlab_attempt *attempt, const struct tcp_sock *seen, int before)
{
	u32 limited;

	attempt->bytes_sent = netlab_bytes_sent(seen, attempt->direction, before);
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
	attempt->rwnd_limited_ms = (u64)limited * NETLAB_US_PER_JIFFY / 1000;
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

/* All but the owner. A connection that is restored from a checkpoint (TCP_REPAIR) may have been accepted before. */
static __always_inline void netlab_begin(struct netlab_attempt *attempt, u64 key, const struct sock *sk, u64 now)
{
	netlab_read_identity(attempt, key, sk);
	attempt->direction = ((const struct tcp_sock *)sk)->repair ? NETLAB_UNKNOWN : NETLAB_OUTGOING;
	attempt->opened_ns = now;
}

/* Of an attempt that begins now: a port that is not chosen yet may become a wanted one. */
static __always_inline bool netlab_may_be_wanted(struct netlab_attempt *attempt)
{
	if (attempt->pid_source != NETLAB_NO_PID &&
	    !NETLAB_WANTED_PROCESS(attempt->pid, ((u64 *)attempt->process)))
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
 * No state change has told of the end, or will. The attempt failed before its first packet; or else the kernel left the
 * program out, and last_state stays 0.
 */
static __always_inline void netlab_end_untold(u64 key, struct netlab_attempt *known, u64 now)
{
	known->closed_ns = now;
	netlab_report(known, NETLAB_ATTEMPT_LOST);
	netlab_open.delete(&key);
}

/*
 * What is known of a socket that has its cookie. An attempt at its address may be another socket's, whose memory it has
 * and whose end nothing told of.
 */
static __always_inline struct netlab_attempt *netlab_known(u64 key, const struct sock_common *sk, u64 now)
{
	struct netlab_attempt *known = netlab_open.lookup(&key);

	if (!known || known->cookie == sk->skc_cookie.counter)
		return known;
	netlab_end_untold(key, known, now);
	return NULL;
}

#endif
