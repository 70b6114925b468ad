/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What netlab's programs share: the record, reading kernel memory, counters of what was lost.
 *
 * Compile-time settings, put in front by netlab/tracer/:
 *   NETLAB_WANTED_PORT(p)  true for ports to follow (either end)
 *   NETLAB_WANTED_PROCESS(pid, name)  true for processes to follow; name is two u64
 *   NETLAB_WANTED_PEERS(attempt)  true for addresses, excludes and protocols to follow
 *   NETLAB_WANTED_NETNS(inode), NETLAB_WANTED_DIRECTION(direction)  likewise
 *   NETLAB_VERDICT  set on kernels that keep it in struct bpf_cg_run_ctx (since 5.18)
 *   NETLAB_CAST, NETLAB_NUMBER_type  bpf_rdonly_cast() and the numbers in BTF of the types it is asked for, where it is there
 */
#ifndef NETLAB_H
#define NETLAB_H

/* The header tree is the kernel's types without its macros. */
#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif
#ifndef NULL
#define NULL ((void *)0)
#endif

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define netlab_ntohs(x) __builtin_bswap16(x)
#define netlab_ntohl(x) __builtin_bswap32(x)
#else
#define netlab_ntohs(x) (x)
#define netlab_ntohl(x) (x)
#endif

/* The third word of ::ffff:0:0/96, in network order. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define NETLAB_MAPPED 0xffff0000
#else
#define NETLAB_MAPPED 0x0000ffff
#endif

#define NETLAB_READ(into, from) netlab_probe_read(&(into), sizeof(into), &(from))

/*
 * Under their own names BCC looks for them among the kernel's 100,000 symbols, which takes longer than parsing all this,
 * and without CAP_SYSLOG finds none: it then calls another helper, which not all of these programs may.
 */
static long (*netlab_probe_read_user)(void *into, u32 bytes, const void *from) = (void *)BPF_FUNC_probe_read_user;
static long (*netlab_probe_read)(void *into, u32 bytes, const void *from) = (void *)BPF_FUNC_probe_read_kernel;
static long (*netlab_probe_read_text)(void *into, u32 bytes, const void *from) = (void *)BPF_FUNC_probe_read_kernel_str;
/*
 * What these return has a type that the verifier knows, so its members are read without a call, which is most of what a
 * read costs. An address that cannot be read is 0.
 */
static struct task_struct *(*netlab_current)(void) = (void *)BPF_FUNC_get_current_task_btf;
static struct tcp_sock *(*netlab_tcp_sock)(void *sk) = (void *)BPF_FUNC_skc_to_tcp_sock;	/* NULL of others */

/*
 * What is behind an address whose type only we know. Since Linux 6.2 the verifier takes our word for it, which is no call, and
 * then the member is read without one.
 */
#ifdef NETLAB_CAST
static void *(*netlab_cast)(const void *from, u32 type) = (void *)NETLAB_CAST;

#define NETLAB_READ_AS(type, into, from, member) \
	((into) = ((struct type *)netlab_cast(from, NETLAB_NUMBER_##type))->member)
#else
#define NETLAB_READ_AS(type, into, from, member) NETLAB_READ(into, ((struct type *)(u64)(from))->member)
#endif

/*
 * The errno with which another program on this hook has denied it, or 0: that of a control group below the root has run by
 * now, and ours runs whatever it says.
 */
struct bpf_cg_run_ctx;

static __always_inline s32 netlab_denial(void)
{
	s32 verdict = 0;
#ifdef NETLAB_VERDICT
	NETLAB_READ_AS(bpf_cg_run_ctx, verdict, netlab_current()->bpf_ctx, retval);
#endif
	return -verdict;
}

#define NETLAB_AF_INET 2
#define NETLAB_AF_INET6 10
#define NETLAB_COMM 16
#define NETLAB_ETH_IP 0x0800	/* include/uapi/linux/if_ether.h */
#define NETLAB_ETH_IPV6 0x86dd
#define NETLAB_PLAIN_IP 0x45	/* the first byte of an IPv4 header: its version, and its length without options */
#define NETLAB_PF_KTHREAD 0x00200000	/* include/linux/sched.h */
#define NETLAB_RTF_REJECT 0x0200	/* include/uapi/linux/ipv6_route.h */
#define NETLAB_ORIGIN_ICMP 2	/* include/uapi/linux/errqueue.h */
#define NETLAB_ORIGIN_ICMP6 3

#define NETLAB_EAGAIN 11
#define NETLAB_EACCES 13
#define NETLAB_EINVAL 22
#define NETLAB_EMSGSIZE 90
#define NETLAB_EADDRNOTAVAIL 99
#define NETLAB_ENETUNREACH 101
#define NETLAB_ECONNRESET 104
#define NETLAB_EHOSTUNREACH 113
#define NETLAB_ECANCELED 125

enum netlab_direction { NETLAB_UNKNOWN, NETLAB_OUTGOING, NETLAB_INCOMING };
enum netlab_pid_source {
	NETLAB_NO_PID,
	NETLAB_PID_CONNECT,
	NETLAB_PID_CLOSE,
	NETLAB_PID_SOCKET,
	NETLAB_PID_RECEIVE,
	NETLAB_PID_SEND,
	NETLAB_PID_CREATE,
};

/* One attempt, or one flow: the record that user space reads, see tracer/layout.py. */
struct netlab_attempt {
	u8 local_address[16];	/* IPv4 uses the first four bytes */
	u8 remote_address[16];
	char process[NETLAB_COMM];
	u64 socket;		/* kernel address of struct sock; UDP: with opened_ns it names the flow */
	u64 cookie;		/* 0 until something asked the kernel for it */
	u64 opened_ns;		/* CLOCK_MONOTONIC; 0 when the start was not seen */
	u64 established_ns;	/* UDP: the first packet the other way */
	u64 closed_ns;		/* 0 while it is open */
	u64 last_ns;		/* UDP: the last packet, give or take a jiffy */
	u64 bytes_sent;
	u64 bytes_received;
	u64 process_started_ns;	/* tells the owner from others with its pid: see netlab_meet_process() */
	u64 packets_sent;	/* TCP's own counts have 32 bits */
	u64 packets_received;
	u32 pid;
	u32 uid;
	u32 netns;
	u32 retransmits;
	u32 syn_retransmits;
	u32 srtt_us;
	u32 rtt_var_us;
	u32 min_rtt_us;
	u32 cwnd;
	u32 out_of_order;
	u32 rtos;		/* all ones: this kernel does not count them */
	u32 rwnd_limited_ms;	/* how long the peer's window was too small; microseconds would wrap after 71 minutes */
	u32 receive_drops;	/* UDP: arrived and found the receive buffer full */
	s32 error;		/* sk_err when it closed, or why no SYN was sent */
	u16 local_port;
	u16 remote_port;
	u16 family;
	u8 last_state;		/* the state before TCP_CLOSE; UDP: whether it was connected at the start */
	u8 direction;
	u8 pid_source;
	u8 protocol;
	u8 unsent;		/* connect() was called and no SYN has been sent */
	u8 complete;		/* the tuple and the cookie are final; UDP: the first packet that was seen is the flow's first */
	u32 mark;		/* SO_MARK */
	u32 interface;		/* index of what the socket is bound to: SO_BINDTODEVICE, a scope id */
	u32 deferred_us;	/* how long connect() left the SYN to a first write; all ones: not known */
};

/* Nothing is lost silently: each way to lose something has a slot here. See tracer/layout.py. */
enum netlab_counter {
	NETLAB_ATTEMPT_LOST,	/* an attempt did not fit into the ring buffer */
	NETLAB_END_LOST,	/* nor did the end of one that was not followed */
	NETLAB_MAP_FULL,	/* an attempt's start went into the ring buffer, because the map was full */
	NETLAB_WHILE_PAUSED,	/* an attempt began while the capture was paused */
	NETLAB_CHANGE_LOST,	/* a state change did not fit into its ring buffer */
	NETLAB_NESTED_CHANGE,	/* a state change in the middle of another, taken care of */
	NETLAB_FLOWS_FULL,	/* a UDP packet went into the ring buffer, because the map was full */
	NETLAB_PACKET_LOST,	/* nor did it fit there */
	NETLAB_TRANSLATION_UNKNOWN,	/* a UDP packet was tracked by a conntrack that came after the start */
	NETLAB_PACKETS_WHILE_PAUSED,	/* a UDP packet of no flow that is followed, while the capture was paused */
	NETLAB_DROPS_FULL,	/* a dropped packet's kind of drop did not fit into the map */
	NETLAB_DROPS_UNREAD,	/* a dropped IP packet of which something that is asked for could not be read */
	NETLAB_DROPS_WHILE_PAUSED,	/* a packet was dropped while the capture was paused */
	NETLAB_NOT_PLAIN_UDP,	/* a packet of a UDP socket that IPsec has sealed, or UDP-Lite's: it is in no flow */
	NETLAB_PAYLOAD_LOST,	/* a packet's payload did not fit into its ring buffer, or not all of it */
	NETLAB_PAYLOAD_WHILE_PAUSED,	/* a packet of a connection that is not followed, or a datagram, in a pause */
	NETLAB_CONVERSATION_LOST,	/* a connection that began to speak did not fit into the map */
	NETLAB_COUNTERS,
};

/*
 * How large a map is, where the programs do not mind: netlab/tracer/limits.py says it when the map is made, so that the
 * compiler's work is the same for all sizes.
 */
#define NETLAB_SIZED 1

BPF_ARRAY(netlab_counters, u64, NETLAB_COUNTERS);

BPF_ARRAY(netlab_paused, u32, 1);

static __always_inline bool netlab_is_paused(void)
{
	u32 zero = 0;
	u32 *paused = netlab_paused.lookup(&zero);

	return paused && *paused;
}

static __always_inline void netlab_count(u32 counter)
{
	u64 *slot = netlab_counters.lookup(&counter);

	if (slot)
		__sync_fetch_and_add(slot, 1);
}

static __always_inline bool netlab_has_wanted_port(struct netlab_attempt *attempt)
{
	return NETLAB_WANTED_PORT(attempt->local_port) || NETLAB_WANTED_PORT(attempt->remote_port);
}

/* An address that is not chosen yet passes, as does an unknown direction: the next state change asks again. */
static __always_inline bool netlab_has_wanted_ends(struct netlab_attempt *attempt)
{
	return NETLAB_WANTED_NETNS(attempt->netns) && NETLAB_WANTED_DIRECTION(attempt->direction) &&
	       NETLAB_WANTED_PEERS(attempt);
}

/* Of an attempt whose ports are chosen. */
static __always_inline bool netlab_is_wanted(struct netlab_attempt *attempt)
{
	return netlab_has_wanted_port(attempt) && netlab_has_wanted_ends(attempt);
}

/* The two ends of a connection. */
struct netlab_ends {
	u8 local_address[16];	/* as in a packet: IPv4 uses the first four bytes */
	u8 remote_address[16];
	u16 local_port;
	u16 remote_port;
	u32 version;		/* of IP, 4 or 6 */
};

/*
 * The ends of a connected socket, as its packets carry them: a socket of IPv6 may talk IPv4 (::ffff:0:0/96, RFC 4291
 * section 2.5.5.2). False when it is not connected.
 */
static __always_inline bool netlab_read_connected(struct netlab_ends *ends, const struct sock *sk)
{
	struct ipv6_pinfo *pinet6 = NULL;
	u16 local = 0, remote = 0, family = 0;
	u32 to[4] = {};

	NETLAB_READ(remote, sk->__sk_common.skc_dport);
	if (!remote)
		return false;
	NETLAB_READ(local, ((struct inet_sock *)sk)->inet_sport);
	NETLAB_READ(family, sk->__sk_common.skc_family);
	ends->local_port = netlab_ntohs(local);
	ends->remote_port = netlab_ntohs(remote);
	if (family == NETLAB_AF_INET6)
		NETLAB_READ(to, sk->__sk_common.skc_v6_daddr);
	if (family == NETLAB_AF_INET || (!to[0] && !to[1] && to[2] == NETLAB_MAPPED)) {
		ends->version = 4;
		netlab_probe_read(ends->local_address, 4, &((struct inet_sock *)sk)->inet_saddr);
		netlab_probe_read(ends->remote_address, 4, &sk->__sk_common.skc_daddr);
		return true;
	}
	ends->version = 6;
	NETLAB_READ(pinet6, ((struct inet_sock *)sk)->pinet6);
	netlab_probe_read(ends->local_address, 16, &pinet6->saddr);
	__builtin_memcpy(ends->remote_address, to, 16);
	return true;
}

/* A socket of IPv6 that talks IPv4 sees mapped addresses (RFC 4291 section 2.5.5.2). */
static __always_inline void netlab_as_the_socket_sees(u8 *into, u8 *address, bool mapped)
{
	if (!mapped) {
		__builtin_memcpy(into, address, 16);
		return;
	}
	into[10] = 0xff;
	into[11] = 0xff;
	__builtin_memcpy(into + 12, address, 4);
}

#endif
