/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * In front of the C of an ad-hoc probe (netlab/probes/): what the header tree, which has the kernel's types and none of
 * its macros, does not know, and the count of what did not fit into a ring buffer.
 */
#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif
#ifndef NULL
#define NULL ((void *)0)
#endif
#define AF_UNIX 1	/* include/linux/socket.h */
#define AF_INET 2
#define AF_INET6 10
#define ETH_P_IP 0x0800	/* include/uapi/linux/if_ether.h */
#define ETH_P_ARP 0x0806
#define ETH_P_IPV6 0x86dd
#define ETH_HLEN 14

/* A slot per ring buffer, in the order of the source. */
BPF_ARRAY(netlab_lost, u64, NETLAB_RINGS);

static __always_inline void netlab_count_lost(u32 ring)
{
	u64 *count = netlab_lost.lookup(&ring);

	if (count)
		__sync_fetch_and_add(count, 1);
}

static __always_inline int netlab_sent(u32 ring, int error)
{
	if (error)
		netlab_count_lost(ring);
	return error;
}

static __always_inline void *netlab_reserved(u32 ring, void *place)
{
	if (!place)
		netlab_count_lost(ring);
	return place;
}
