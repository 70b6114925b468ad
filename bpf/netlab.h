/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What netlab's programs share: the record, reading kernel memory, counters of what was lost, who is current.
 *
 * Compile-time settings, put in front by netlab/tracer/:
 *   NETLAB_WANTED_PORT(p)  true for ports to follow (either end)
 *   NETLAB_WANTED_PROCESS(pid, name)  true for processes to follow; name is two u64
 *   NETLAB_WANTED_PEERS(attempt)  true for addresses, excludes and protocols to follow
 *   NETLAB_WANTED_NETNS(inode), NETLAB_WANTED_DIRECTION(direction)  likewise
 *   NETLAB_OPEN_MAX, NETLAB_RING_PAGES, NETLAB_PROCESSES_MAX  sizes
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

#define NETLAB_AF_INET 2
#define NETLAB_AF_INET6 10
#define NETLAB_COMM 16
#define NETLAB_CMDLINE 256	/* a power of two */
#define NETLAB_CGROUPS 512	/* a power of two: names begin within */
#define NETLAB_CGROUP_LEVELS 16
#define NETLAB_NAME 256		/* NAME_MAX and its NUL */
#define NETLAB_HIERARCHIES 32
#define NETLAB_ETH_IP 0x0800	/* include/uapi/linux/if_ether.h */
#define NETLAB_ETH_IPV6 0x86dd
#define NETLAB_RTF_REJECT 0x0200	/* include/uapi/linux/ipv6_route.h */
#define NETLAB_ORIGIN_ICMP 2	/* include/uapi/linux/errqueue.h */
#define NETLAB_ORIGIN_ICMP6 3

#define NETLAB_EAGAIN 11
#define NETLAB_EACCES 13
#define NETLAB_EINVAL 22
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
	u32 out_of_order;
	u32 rtos;		/* all ones: this kernel does not count them */
	u32 rwnd_limited_us;	/* how long the peer's window was too small */
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
	u8 complete;		/* the tuple and the cookie are final */
	u32 mark;		/* SO_MARK */
};

/* Nothing is lost silently: each way to lose something has a slot here. Keep in step with tracer/layout.py. */
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

/*
 * Who the owners are: read when a process is met for the first time, because it may be gone before anybody looks into
 * /proc.
 */
struct netlab_process_key {
	u32 pid;
	u32 padding;
	u64 started_ns;
};

struct netlab_process {
	char cmdline[NETLAB_CMDLINE];
	/* Names from the innermost cgroup up, each with its NUL: in the default hierarchy, then in a version 1 one. */
	char cgroups[NETLAB_CGROUPS + NETLAB_NAME];
	u64 legacy;			/* while it is read: the deepest cgroup of version 1, and its level */
	u32 legacy_level;
	u32 cmdline_bytes;		/* 0: not known */
	u32 nspid;			/* the pid in its own pid namespace */
	u16 unified_bytes;		/* where the first path ends */
	u16 cgroup_bytes;		/* where the second one ends */
	u8 unified_cut;			/* there is more above it */
	u8 legacy_cut;
	u8 read;			/* all of this is */
	u8 padding[5];
};

BPF_TABLE("lru_hash", struct netlab_process_key, struct netlab_process, netlab_processes, NETLAB_PROCESSES_MAX);
BPF_ARRAY(netlab_blank_process, struct netlab_process, 1);	/* too large for the stack */

/* The threads share it; that of a main thread that has ended is gone. */
static __always_inline void netlab_read_cmdline(struct netlab_process *process, struct task_struct *task)
{
	struct mm_struct *mm = NULL;
	unsigned long start = 0, end = 0;
	u32 bytes;

	NETLAB_READ(mm, task->mm);
	if (!mm)
		return;		/* a kernel thread */
	NETLAB_READ(start, mm->arg_start);
	NETLAB_READ(end, mm->arg_end);
	bytes = end - start < NETLAB_CMDLINE ? end - start : NETLAB_CMDLINE - 1;
	bytes &= NETLAB_CMDLINE - 1;
	if (bytes && !netlab_probe_read_user(process->cmdline, bytes, (void *)start))
		process->cmdline_bytes = bytes;
}

/*
 * Read the names from *cgroup* up to the root behind what is there. Where they end is read back from the map each time:
 * what comes from there the verifier takes for any number, so that all ways through the loop look alike to it and are
 * verified once. Verifiers before Linux 6.6 or so lose a bound that is tested, and clang moves tests about: a mask on the
 * very register that is used is a bound for all of them.
 */
static __always_inline void netlab_read_path(struct netlab_process *process, struct cgroup *cgroup, u8 *cut)
{
	volatile u16 *end = &process->cgroup_bytes;
	struct kernfs_node *node = NULL, *parent;
	const char *name = NULL;
	int level;

	NETLAB_READ(node, cgroup->kn);
	*cut = 1;
#pragma clang loop unroll(disable)
	for (level = 0; level < NETLAB_CGROUP_LEVELS; level++) {
		u64 at = *end;
		s64 bytes;

		if (!node || at >= NETLAB_CGROUPS)
			return;
		parent = NULL;
		NETLAB_READ(parent, NETLAB_PARENT(node));
		if (!parent) {
			*cut = 0;	/* the root has no name */
			return;
		}
		NETLAB_READ(name, node->name);
		asm volatile("%0 &= %1" : "+r"(at) : "i"(NETLAB_CGROUPS - 1));
		bytes = netlab_probe_read_text(process->cgroups + at, NETLAB_NAME, name);
		if (bytes <= 0)
			return;
		*end = at + bytes;
		node = parent;
	}
}

/*
 * Where a controller of version 1 says that the process is: in the hierarchy where it is deepest, as few use all of
 * them. NULL on hosts with version 2 alone.
 */
static __always_inline struct cgroup *netlab_legacy_cgroup(
	struct netlab_process *process, struct css_set *sets, struct cgroup *unified)
{
	struct list_head *head = &sets->cgrp_links, *at = NULL;
	volatile u64 *deepest = &process->legacy;
	volatile u32 *most = &process->legacy_level;
	int i;

	NETLAB_READ(at, head->next);
#pragma clang loop unroll(disable)
	for (i = 0; i < NETLAB_HIERARCHIES && at && at != head; i++) {
		struct cgrp_cset_link *link =
			(void *)at - __builtin_offsetof(struct cgrp_cset_link, cgrp_link);
		struct cgroup *cgroup = NULL;
		u32 level = 0;

		NETLAB_READ(cgroup, link->cgrp);
		NETLAB_READ(level, cgroup->level);
		if (cgroup != unified && level > *most) {
			*most = level;
			*deepest = (u64)cgroup;
		}
		NETLAB_READ(at, link->cgrp_link.next);
	}
	return (struct cgroup *)*deepest;
}

static __always_inline void netlab_read_cgroups(struct netlab_process *process, struct task_struct *leader)
{
	struct cgroup *unified = NULL, *legacy;
	struct css_set *sets = NULL;

	NETLAB_READ(sets, leader->cgroups);
	NETLAB_READ(unified, sets->dfl_cgrp);
	netlab_read_path(process, unified, &process->unified_cut);
	process->unified_bytes = process->cgroup_bytes;
	legacy = netlab_legacy_cgroup(process, sets, unified);
	if (legacy)
		netlab_read_path(process, legacy, &process->legacy_cut);
}

static __always_inline void netlab_read_nspid(struct netlab_process *process, struct task_struct *leader)
{
	struct pid *pid = NULL;
	u32 level = 0;

	NETLAB_READ(pid, leader->thread_pid);
	NETLAB_READ(level, pid->level);
	netlab_probe_read(&process->nspid, sizeof(process->nspid), &pid->numbers[level].nr);
}

/* Return what tells the current process from others with its pid: when it was started, and another number after exec(). */
static __always_inline u64 netlab_meet_process(u32 pid, struct task_struct *task, struct task_struct *leader)
{
	struct netlab_process_key key = { .pid = pid };
	struct netlab_process *process, *blank;
	u32 zero = 0;

	key.started_ns = leader->start_boottime + leader->self_exec_id;
	if (netlab_processes.lookup(&key))
		return key.started_ns;
	blank = netlab_blank_process.lookup(&zero);
	if (!blank || netlab_processes.update(&key, blank))
		return key.started_ns;
	process = netlab_processes.lookup(&key);
	if (!process)
		return key.started_ns;
	netlab_read_cmdline(process, task);
	netlab_read_cgroups(process, leader);
	netlab_read_nspid(process, leader);
	process->read = 1;
	return key.started_ns;
}

/*
 * The effective one, which a new socket belongs to and ss(8) shows; the helper for it returns the real one. For each
 * pointer read from *task* itself the verifier searches all types for whether it trusts that, a millisecond each time: from
 * *leader*, which comes from there, it is trusted no more.
 */
static __always_inline u32 netlab_user(struct task_struct *task, struct task_struct *leader)
{
	const struct cred *cred = NULL;
	u32 uid = 0;

	if (task->pid == task->tgid) {
		cred = leader->cred;
		uid = cred->euid.val;
		asm volatile("" : "+r"(uid));	/* clang must not make one load of this and that of the stack below */
		return uid;
	}
	NETLAB_READ(cred, task->cred);
	NETLAB_READ(uid, cred->euid.val);
	return uid;
}

struct netlab_owner {
	char process[NETLAB_COMM];
	u64 process_started_ns;
	u32 pid;
	u32 uid;
};

static __always_inline void netlab_current_owner(struct netlab_owner *owner)
{
	struct task_struct *task = netlab_current(), *leader = task->group_leader;

	owner->pid = task->tgid;
	owner->uid = netlab_user(task, leader);
	owner->process_started_ns = netlab_meet_process(owner->pid, task, leader);
	/* The thread group's name, which is what ps shows; a thread may call itself something else. */
	netlab_probe_read_text(owner->process, NETLAB_COMM, &leader->comm);
}

static __always_inline void netlab_set_owner(struct netlab_attempt *attempt, struct netlab_owner *owner, u8 source)
{
	__builtin_memcpy(attempt->process, owner->process, NETLAB_COMM);
	attempt->process_started_ns = owner->process_started_ns;
	attempt->pid = owner->pid;
	attempt->uid = owner->uid;
	attempt->pid_source = source;
}

static __always_inline void netlab_read_owner(struct netlab_attempt *attempt, u8 source)
{
	struct netlab_owner owner = {};

	netlab_current_owner(&owner);
	netlab_set_owner(attempt, &owner, source);
}

#endif
