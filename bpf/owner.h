/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Who a socket belongs to: the process that uses it at the moment, and what tells that process from others.
 *
 * Compile-time settings beside those of netlab.h:
 *   NETLAB_PARENT(node)  the parent of a struct kernfs_node
 */
#ifndef NETLAB_OWNER_H
#define NETLAB_OWNER_H

#include "netlab.h"

#define NETLAB_CMDLINE 256	/* a power of two */
#define NETLAB_CGROUPS 512	/* a power of two: names begin within */
#define NETLAB_CGROUP_LEVELS 16
#define NETLAB_NAME 256		/* NAME_MAX and its NUL */
#define NETLAB_HIERARCHIES 32

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

BPF_TABLE("lru_hash", struct netlab_process_key, struct netlab_process, netlab_processes, NETLAB_SIZED);
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

/*
 * A number below the tick that /proc counts starts in (10 ms), of the control groups that a process is in: somebody who moves
 * to others is met anew.
 */
static __always_inline u64 netlab_of_cgroups(struct task_struct *leader)
{
	u64 sets = 0;

	NETLAB_READ(sets, leader->cgroups);
	return sets * 0x9e3779b97f4a7c15ULL >> 42;	/* 22 bits, Fibonacci hashing */
}

/*
 * Return what tells the current process from others with its pid: when it was started, and another number after exec() and in
 * other control groups.
 */
static __always_inline u64 netlab_meet_process(u32 pid, struct task_struct *task, struct task_struct *leader)
{
	struct netlab_process_key key = { .pid = pid };
	struct netlab_process *process, *blank;
	u32 zero = 0;

	key.started_ns = leader->start_boottime + leader->self_exec_id + netlab_of_cgroups(leader);
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
