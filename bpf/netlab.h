/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What netlab's programs share: reading kernel memory, counters of what was lost, who is current. */
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
#else
#define netlab_ntohs(x) (x)
#endif

#define NETLAB_READ(into, from) bpf_probe_read_kernel(&(into), sizeof(into), &(from))

#define NETLAB_AF_INET 2
#define NETLAB_AF_INET6 10
#define NETLAB_COMM 16

/* Nothing is lost silently: each way to lose something has a slot here. Keep in step with tracer/layout.py. */
enum netlab_counter {
	NETLAB_ATTEMPT_LOST,	/* an attempt did not fit into the ring buffer */
	NETLAB_END_LOST,	/* nor did the end of one that was not followed */
	NETLAB_MAP_FULL,	/* an attempt's start went into the ring buffer, because the map was full */
	NETLAB_WHILE_PAUSED,	/* an attempt began while the capture was paused */
	NETLAB_COUNTERS,
};

BPF_ARRAY(netlab_counters, u64, NETLAB_COUNTERS);

static __always_inline void netlab_count(u32 counter)
{
	u64 *slot = netlab_counters.lookup(&counter);

	if (slot)
		__sync_fetch_and_add(slot, 1);
}

/* The thread group's name, which is what ps shows; a thread may call itself something else. */
static __always_inline void netlab_process_name(char *name)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct task_struct *leader = NULL;

	NETLAB_READ(leader, task->group_leader);
	bpf_probe_read_kernel_str(name, NETLAB_COMM, &leader->comm);
}

#endif
