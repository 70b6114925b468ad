/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * One UDP packet as a cgroup_skb program sees it: whose it is, from where to where, how much.
 *
 * Compile-time settings beside those of netlab.h:
 *   NETLAB_CONN_STATUS, NETLAB_CONN_TUPLES  offsets in struct nf_conn, where conntrack was there at the start
 */
#ifndef NETLAB_DATAGRAM_H
#define NETLAB_DATAGRAM_H

#include "netlab.h"

/* What the settings above take offsets in, where this type is known. */
struct nf_conn;

#define NETLAB_UDP_HEADER 8
/* include/uapi/linux/netfilter/nf_conntrack_common.h: IPS_SRC_NAT, IPS_DST_NAT; ctinfo of the reply direction. */
#define NETLAB_TRANSLATED (1 << 4 | 1 << 5)
#define NETLAB_IS_REPLY 3
#define NETLAB_CTINFO 7UL	/* the bits of skb->_nfct that are ctinfo: include/linux/skbuff.h */

/* struct nf_conntrack_tuple_hash, include/net/netfilter/nf_conntrack_tuple.h: the type is in a module on some kernels. */
struct netlab_tracked {
	u64 list[2];
	u8 from[16];
	u16 from_port;
	u16 family;
	u8 to[16];
	u16 to_port;
	u8 protocol;
	u8 direction;
};

struct netlab_flow_key {
	struct netlab_ends ends;
	u64 cookie;
};

struct netlab_packet {
	struct netlab_flow_key key;
	u32 bytes;		/* payload */
	u32 packets;		/* more than one where the stack carries several as one: UDP_SEGMENT, UDP_GRO */
};

/* The kernel has the header in one piece by now: ip_rcv() and ip6_rcv() see to it. */
static __always_inline bool netlab_read_addresses(struct netlab_packet *packet, struct __sk_buff *skb, bool outgoing)
{
	u8 *from = outgoing ? packet->key.ends.local_address : packet->key.ends.remote_address;
	u8 *to = outgoing ? packet->key.ends.remote_address : packet->key.ends.local_address;
	void *data = (void *)(u64)skb->data, *end = (void *)(u64)skb->data_end;
	struct ipv6hdr *six = data;
	struct iphdr *four = data;

	if (packet->key.ends.version == 4) {
		if (data + sizeof(*four) > end)
			return false;
		*(u32 *)from = four->saddr;
		*(u32 *)to = four->daddr;
	} else {
		if (data + sizeof(*six) > end)
			return false;
		*(struct in6_addr *)from = six->saddr;
		*(struct in6_addr *)to = six->daddr;
	}
	return true;
}

/*
 * Packets leave here after the last netfilter hook. A socket whose packets are translated on this host is shown the
 * addresses it uses itself, as it is for packets that arrive: conntrack has both, in the direction's own tuple.
 */
static __always_inline void netlab_undo_translation(struct netlab_packet *packet, struct __sk_buff *skb)
{
#ifdef NETLAB_TRACKED	/* a kernel may be built without conntrack */
	unsigned long tracked = 0, status = 0;
	struct netlab_tracked tuple;
	u8 *entry;

	NETLAB_READ_AS(sk_buff, tracked, skb, _nfct);
	entry = (u8 *)(tracked & ~NETLAB_CTINFO);
	if (!entry)
		return;
#ifdef NETLAB_CONN_STATUS
	netlab_probe_read(&status, sizeof(status), entry + NETLAB_CONN_STATUS);
	if (!(status & NETLAB_TRANSLATED))
		return;
	netlab_probe_read(&tuple, sizeof(tuple), entry + NETLAB_CONN_TUPLES +
			      ((tracked & NETLAB_CTINFO) >= NETLAB_IS_REPLY) * sizeof(tuple));
	__builtin_memcpy(packet->key.ends.local_address, tuple.from, 16);
	__builtin_memcpy(packet->key.ends.remote_address, tuple.to, 16);
	packet->key.ends.local_port = netlab_ntohs(tuple.from_port);
	packet->key.ends.remote_port = netlab_ntohs(tuple.to_port);
#else
	netlab_count(NETLAB_TRANSLATION_UNKNOWN);
#endif
#endif
}

_Static_assert(__builtin_offsetof(struct sk_buff, network_header) ==
	       __builtin_offsetof(struct sk_buff, transport_header) + 2, "the two are read at once");

/* Read the ports behind an IP header of so many bytes, if the stack has them in one piece. */
static __always_inline bool netlab_ports_behind(u16 *ports, struct __sk_buff *skb, u32 header_bytes)
{
	u8 *at = (u8 *)(u64)skb->data + header_bytes, *end = (u8 *)(u64)skb->data_end;

	if (at + 2 * sizeof(*ports) > end)
		return false;
	ports[0] = ((u16 *)at)[0];
	ports[1] = ((u16 *)at)[1];
	return true;
}

/* Return how long the IP header is, and read the ports behind it: without a helper where it has no options. */
static __always_inline u32 netlab_read_ports(u16 *ports, struct __sk_buff *skb, u8 protocol)
{
	u8 *data = (u8 *)(u64)skb->data, *end = (u8 *)(u64)skb->data_end, first = data + 1 > end ? 0 : data[0];
	struct sk_buff *whole = (struct sk_buff *)(u64)skb;
	u16 headers[2] = {};
	u32 header_bytes;

	if (first == NETLAB_PLAIN_IP && netlab_ports_behind(ports, skb, sizeof(struct iphdr)))
		return sizeof(struct iphdr);
	if (first >> 4 == 6 && protocol == IPPROTO_UDP && netlab_ports_behind(ports, skb, sizeof(struct ipv6hdr)))
		return sizeof(struct ipv6hdr);
	netlab_probe_read(headers, sizeof(headers), &whole->transport_header);
	header_bytes = (u16)(headers[0] - headers[1]);
	bpf_skb_load_bytes(skb, header_bytes, ports, 2 * sizeof(*ports));
	return header_bytes;
}

/* IPsec works on packets before they get here; what it makes of them has its own header where UDP's was. */
static __always_inline bool netlab_is_sealed(u8 protocol)
{
	return protocol == IPPROTO_ESP || protocol == IPPROTO_AH || protocol == IPPROTO_COMP;
}

/* Tell whether the packet is a UDP socket's, and read what there is to count; *protocol* is what follows its IP header. */
static __always_inline bool netlab_read_packet(struct netlab_packet *packet, struct __sk_buff *skb, u8 protocol,
					       bool outgoing)
{
	struct bpf_sock *socket = skb->sk;
	u32 header_bytes;
	u16 ports[2] = {};

	if (!socket)
		return false;
	socket = bpf_sk_fullsock(socket);
	if (!socket || socket->type != SOCK_DGRAM)
		return false;	/* raw sockets, too, may say that they are for UDP */
	if (socket->protocol == IPPROTO_UDPLITE || (socket->protocol == IPPROTO_UDP && netlab_is_sealed(protocol)))
		netlab_count(NETLAB_NOT_PLAIN_UDP);
	if (socket->protocol != IPPROTO_UDP || netlab_is_sealed(protocol))
		return false;
	header_bytes = netlab_read_ports(ports, skb, protocol);
	packet->key.ends.version = skb->protocol == netlab_ntohs(NETLAB_ETH_IP) ? 4 : 6;
	packet->key.cookie = bpf_get_socket_cookie(skb);
	packet->bytes = skb->len - header_bytes - NETLAB_UDP_HEADER;
	packet->packets = 1;	/* gso_segs would not do: it is 0 where a virtual machine has sent */
	if (skb->gso_size && packet->bytes)
		packet->packets = (packet->bytes + skb->gso_size - 1) / skb->gso_size;
	if (!netlab_read_addresses(packet, skb, outgoing))
		return false;
	packet->key.ends.local_port = netlab_ntohs(outgoing ? ports[0] : ports[1]);
	packet->key.ends.remote_port = netlab_ntohs(outgoing ? ports[1] : ports[0]);
	if (outgoing)
		netlab_undo_translation(packet, skb);
	return true;
}

/* Return what follows the IP header, 0 if that cannot be told: of TCP, which most packets are, no helper needs to be asked. */
static __always_inline u8 netlab_ip_protocol(struct __sk_buff *skb)
{
	u8 *data = (u8 *)(u64)skb->data, *end = (u8 *)(u64)skb->data_end;

	if (data + sizeof(struct iphdr) > end)
		return 0;
	return data[0] >> 4 == 4 ? data[__builtin_offsetof(struct iphdr, protocol)] :
				   data[__builtin_offsetof(struct ipv6hdr, nexthdr)];
}

#endif
