/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What connections say: the payload of TCP segments and of datagrams on wanted ports, as long as somebody reads it.
 *
 * cgroup_skb programs on the root cgroup see each TCP segment that a socket sends or gets, retransmitted ones too, before
 * it is cut (GSO) and after it was put together (GRO). A connection's first bytes are handed up whoever speaks: user space
 * tells what they are, and writes back whether it goes on. What is not handed up is a gap in the stream: user space knows
 * by the sequence numbers.
 *
 * Compile-time settings beside those of netlab.h:
 *   NETLAB_PAYLOAD_TCP, NETLAB_PAYLOAD_UDP  which of tcp.c and udp.c are compiled with this
 *   NETLAB_WANTED_DATAGRAM(p)  true for ports whose datagrams are handed up (either end)
 *   NETLAB_WANTED_SEGMENT(p)  true for ports whose segments are (either end): all, unless DNS alone is read
 *   NETLAB_CONVERSATIONS_MAX, NETLAB_JUDGED, NETLAB_PIECE_PAGES  sizes
 *   NETLAB_PIECES_MAX  of one packet: what is behind them is not handed up
 *   NETLAB_UNJUDGED_BYTES  how much of a connection is handed up before user space has said that it goes on; behind
 *                          that only the lengths are
 */
#include "netlab.h"

#define NETLAB_PIECE 512	/* a power of two */
#define NETLAB_GO_ON 0xffffffff	/* budget of a connection that is understood */
#define NETLAB_TCP_FIN 0x01
#define NETLAB_TCP_SYN 0x02
#define NETLAB_TCP_RST 0x04

/* One socket's connection as it sees it itself; of a datagram, its ends. */
struct netlab_conversation {
	u8 local_address[16];
	u8 remote_address[16];
	u32 netns;
	u32 budget;	/* bytes that may still be handed up, and 1; user space sets it to NETLAB_GO_ON, or 0 */
	u16 local_port;
	u16 remote_port;
	u16 family;
	u8 direction;
	u8 protocol;
};

/* The longest silent ones make room: they begin anew when they speak again. */
BPF_TABLE("lru_hash", u64, struct netlab_conversation, netlab_conversations, NETLAB_CONVERSATIONS_MAX);

/*
 * What user space has said of connections, at the place of their cookies: twice the cookie, and 1 if it goes on. Most
 * packets need nothing else, and a look-up in the map above takes longer than all the rest but the ring. Two connections
 * that share a place take turns. User space puts 0 there when it says something else.
 */
BPF_ARRAY(netlab_judged, u64, NETLAB_JUDGED);

/* A stretch of one packet's payload. */
struct netlab_piece {
	struct netlab_conversation conversation;	/* blank where user space has said that it goes on */
	u64 at_ns;		/* CLOCK_MONOTONIC */
	u64 cookie;
	u32 sequence;		/* TCP: of the first byte here */
	u32 settled;		/* TCP: everything before this has passed here, earlier */
	u32 other_settled;	/* the same of the other way */
	u32 packet_bytes;	/* payload of the whole packet */
	u32 handed_bytes;	/* how much of it is handed up, in this piece and others */
	u32 offset;		/* of the first byte here, in the packet */
	u16 bytes;
	u8 tcp_flags;
	u8 outgoing;
	u8 fresh;		/* TCP: nothing was said before this packet */
	u8 other_fresh;
	u8 padding[2];
	u8 data[NETLAB_PIECE];
};

/* All pieces are of one size: user space takes them over as one block. */
BPF_RINGBUF_OUTPUT(netlab_pieces, NETLAB_PIECE_PAGES);

/* What is the same in all pieces of a packet. */
struct netlab_said {
	struct netlab_conversation *conversation;
	u64 at_ns;
	u64 cookie;
	u32 handed_bytes;
	u32 sequence;
	u32 settled;
	u32 other_settled;
	u32 bytes;
	u32 place;	/* of the payload in the packet */
	u8 tcp_flags;
	u8 outgoing;
	u8 fresh;
	u8 other_fresh;
};

/* Put *bytes* of the payload, which begin at *offset*, into a piece of their own. */
static __always_inline bool netlab_put(struct __sk_buff *skb, struct netlab_said *said, u32 offset, u32 bytes)
{
	struct netlab_piece *piece = netlab_pieces.ringbuf_reserve(sizeof(*piece));
	u64 size = bytes - 1;

	asm volatile("%0 &= %1" : "+r"(size) : "i"(NETLAB_PIECE - 1));	/* a bound that every verifier sees, and no 0 */
	size++;

	if (!piece) {
		netlab_count(NETLAB_PAYLOAD_LOST);
		return false;
	}
	__builtin_memcpy(&piece->conversation, said->conversation, sizeof(piece->conversation));
	piece->at_ns = said->at_ns;
	piece->cookie = said->cookie;
	piece->sequence = said->sequence + offset;
	piece->settled = said->settled;
	piece->other_settled = said->other_settled;
	piece->packet_bytes = said->bytes;
	piece->handed_bytes = said->handed_bytes;
	piece->offset = offset;
	piece->bytes = bytes;
	piece->tcp_flags = said->tcp_flags;
	piece->outgoing = said->outgoing;
	piece->fresh = said->fresh;
	piece->other_fresh = said->other_fresh;
	if (bytes && bpf_skb_load_bytes(skb, said->place + offset, piece->data, size)) {
		netlab_pieces.ringbuf_discard(piece, BPF_RB_NO_WAKEUP);
		netlab_count(NETLAB_PAYLOAD_LOST);
		return false;
	}
	netlab_pieces.ringbuf_submit(piece, BPF_RB_NO_WAKEUP);
	return true;
}

/* The full pieces, then the rest: in one loop for both the verifier would follow each size through each turn. */
static __always_inline void netlab_hand_up(struct __sk_buff *skb, struct netlab_said *said)
{
	struct netlab_conversation *conversation = said->conversation;
	u32 handed = said->bytes, budget = conversation->budget;
	u64 full, i;

	if (handed > NETLAB_PIECES_MAX * NETLAB_PIECE)
		handed = NETLAB_PIECES_MAX * NETLAB_PIECE;
	if (handed > budget - 1)
		handed = budget - 1;
	if (budget != NETLAB_GO_ON)	/* user space may write meanwhile; it sees here that it was in vain */
		conversation->budget = budget - handed;
	said->at_ns = bpf_ktime_get_ns();
	said->handed_bytes = handed;
	full = handed / NETLAB_PIECE;
#pragma clang loop unroll(disable)
	for (i = 0; i < NETLAB_PIECES_MAX; i++) {
		asm volatile("" : "+r"(i), "+r"(full));	/* clang knows the bound of full, and would test nothing else */
		if (i >= full)
			break;
		if (!netlab_put(skb, said, i * NETLAB_PIECE, NETLAB_PIECE))
			return;
	}
	if (!handed || handed % NETLAB_PIECE)
		netlab_put(skb, said, full * NETLAB_PIECE, handed % NETLAB_PIECE);
}

/* Where the transport header is, behind the IP header that the packet begins with. */
static __always_inline u32 netlab_ip_bytes(struct __sk_buff *skb)
{
	u8 *data = (u8 *)(u64)skb->data, *end = (u8 *)(u64)skb->data_end;
	struct sk_buff *whole = (struct sk_buff *)(u64)skb;
	u16 transport = 0, network = 0;

	if (data + sizeof(struct iphdr) <= end && data[0] >> 4 == 4)
		return (data[0] & 15) * 4;	/* of IPv6 the kernel knows what is in between */
	NETLAB_READ(transport, whole->transport_header);
	NETLAB_READ(network, whole->network_header);
	return (u16)(transport - network);
}

#if NETLAB_PAYLOAD_TCP

/* Forget nothing that is known: who opened a connection is told after its first packets, sometimes. */
static __always_inline void netlab_read_direction(struct netlab_conversation *conversation, u64 socket)
{
	struct netlab_attempt *known = netlab_open.lookup(&socket);

	if (known)
		conversation->direction = known->direction;
}

/* The filters ask of a connection what they ask of an attempt, by the same names. */
static __always_inline bool netlab_is_wanted_conversation(struct netlab_conversation *conversation)
{
	return (NETLAB_WANTED_PORT(conversation->local_port) || NETLAB_WANTED_PORT(conversation->remote_port)) &&
	       (NETLAB_WANTED_SEGMENT(conversation->local_port) || NETLAB_WANTED_SEGMENT(conversation->remote_port)) &&
	       NETLAB_WANTED_NETNS(conversation->netns) && NETLAB_WANTED_DIRECTION(conversation->direction) &&
	       NETLAB_WANTED_PEERS(conversation);
}

/* A listener has no remote end. */
static __always_inline void netlab_read_speaker(struct netlab_conversation *conversation, u64 socket)
{
	struct sock_common seen = {};
	struct net *net;

	netlab_probe_read(&seen, sizeof(seen), (void *)socket);
	net = seen.skc_net.net;
	NETLAB_READ(conversation->netns, net->ns.inum);
	conversation->protocol = IPPROTO_TCP;
	conversation->family = seen.skc_family;
	conversation->local_port = seen.skc_num;
	conversation->remote_port = netlab_ntohs(seen.skc_dport);
	if (seen.skc_family == NETLAB_AF_INET) {
		__builtin_memcpy(conversation->local_address, &seen.skc_rcv_saddr, 4);
		__builtin_memcpy(conversation->remote_address, &seen.skc_daddr, 4);
	} else {
		__builtin_memcpy(conversation->local_address, &seen.skc_v6_rcv_saddr, 16);
		__builtin_memcpy(conversation->remote_address, &seen.skc_v6_daddr, 16);
	}
}

/* Return the connection, if it is wanted, from its first packet that is seen on. */
static __always_inline struct netlab_conversation *netlab_begin_conversation(u64 cookie, u64 socket)
{
	struct netlab_conversation begun = {};

	netlab_read_speaker(&begun, socket);
	netlab_read_direction(&begun, socket);
	if (netlab_is_wanted_conversation(&begun))
		begun.budget = NETLAB_UNJUDGED_BYTES + 1;
	if (begun.budget && !begun.direction && netlab_is_paused()) {
		begun.budget = 0;
		netlab_count(NETLAB_PAYLOAD_WHILE_PAUSED);
	}
	if (netlab_conversations.update(&cookie, &begun)) {
		netlab_count(NETLAB_CONVERSATION_LOST);
		return NULL;
	}
	return netlab_conversations.lookup(&cookie);
}

/* The verifier guards skb->sk, not a number. */
static __always_inline u64 netlab_number(struct __sk_buff *skb)
{
	u64 guarded = (u64)skb->sk, number = 0;

	netlab_probe_read(&number, sizeof(number), &guarded);
	return number;
}

static __always_inline volatile u64 *netlab_judgement(u64 cookie)
{
	u32 place = cookie % NETLAB_JUDGED;

	return netlab_judged.lookup(&place);
}

static __always_inline void netlab_note_judgement(u64 cookie, struct netlab_conversation *conversation)
{
	volatile u64 *judged = netlab_judgement(cookie);
	u32 budget = conversation->budget;

	if (judged && (!budget || budget == NETLAB_GO_ON))
		*judged = cookie << 1 | !!budget;
}

static __always_inline struct netlab_conversation *netlab_known_conversation(u64 cookie, struct __sk_buff *skb)
{
	struct netlab_conversation *known = netlab_conversations.lookup(&cookie);

	if (!known)
		known = netlab_begin_conversation(cookie, netlab_number(skb));
	else if (known->budget && !known->direction)
		netlab_read_direction(known, netlab_number(skb));
	if (known)
		netlab_note_judgement(cookie, known);
	return known;
}

/*
 * What has passed here before this packet, and so come before it in the ring: all that was sent, up to snd_nxt, and all that
 * was received in order, up to rcv_nxt.
 */
static __always_inline void netlab_read_progress(struct netlab_said *said, struct bpf_tcp_sock *tcp)
{
	/* Both are read, whatever is needed: clang would add the offset of one to the address, which verifiers forbid. */
	u32 received = *(volatile u32 *)&tcp->rcv_nxt, sent = *(volatile u32 *)&tcp->snd_nxt;

	said->settled = said->outgoing ? said->sequence : received;	/* a segment sent again tells less than snd_nxt */
	said->other_settled = said->outgoing ? received : sent;
}

/* A packet's own bytes are in bytes_sent by now, and not yet in bytes_received. */
static __always_inline void netlab_read_beginning(struct netlab_said *said, struct tcp_sock *tp)
{
	u64 sent = 0, received = 0;

	NETLAB_READ(sent, tp->bytes_sent);
	NETLAB_READ(received, tp->bytes_received);
	said->fresh = said->outgoing ? sent == said->bytes : !received;
	said->other_fresh = said->outgoing ? !received : !sent;
}

/*
 * The packet that ends a handshake may have payload, and where the listener waits for that (TCP_DEFER_ACCEPT) it has. It is
 * the listener's yet: user space finds out whose it became, by the ends.
 */
static __always_inline void netlab_first_words(struct __sk_buff *skb, struct netlab_said *said, u64 listener)
{
	struct netlab_conversation begun = {};
	bool four = skb->protocol == netlab_ntohs(NETLAB_ETH_IP), mapped;
	u8 from[16] = {}, to[16] = {};
	u16 port = 0;

	netlab_read_speaker(&begun, listener);
	begun.budget = NETLAB_GO_ON;
	begun.direction = NETLAB_INCOMING;
	mapped = four && begun.family == NETLAB_AF_INET6;
	if (four) {
		bpf_skb_load_bytes(skb, __builtin_offsetof(struct iphdr, saddr), from, 4);
		bpf_skb_load_bytes(skb, __builtin_offsetof(struct iphdr, daddr), to, 4);
	} else {
		bpf_skb_load_bytes(skb, __builtin_offsetof(struct ipv6hdr, saddr), from, 16);
		bpf_skb_load_bytes(skb, __builtin_offsetof(struct ipv6hdr, daddr), to, 16);
	}
	__builtin_memset(begun.local_address, 0, 16);
	netlab_as_the_socket_sees(begun.remote_address, from, mapped);
	netlab_as_the_socket_sees(begun.local_address, to, mapped);
	bpf_skb_load_bytes(skb, netlab_ip_bytes(skb), &port, sizeof(port));
	begun.remote_port = netlab_ntohs(port);
	if (!netlab_is_wanted_conversation(&begun) || netlab_is_paused())
		return;
	said->conversation = &begun;
	said->cookie = 0;
	said->settled = said->sequence;
	said->fresh = 1;
	netlab_hand_up(skb, said);
}

static __always_inline int netlab_segment(struct __sk_buff *skb, bool outgoing)
{
	struct bpf_sock *socket = skb->sk;
	struct netlab_said said = { .outgoing = outgoing };
	/* Whose ends user space knows, if it says that they go on. */
	struct netlab_conversation *known, judged_before = { .budget = NETLAB_GO_ON, .protocol = IPPROTO_TCP };
	volatile u64 *place_of_judgement;
	struct bpf_tcp_sock *tcp;
	u64 judged = 0;
	u8 header[20];
	u32 place;

	if (!socket)
		return 1;
	socket = bpf_sk_fullsock(socket);
	if (!socket || socket->protocol != IPPROTO_TCP)
		return 1;
	said.cookie = bpf_get_socket_cookie(skb);
	place_of_judgement = netlab_judgement(said.cookie);
	if (place_of_judgement)
		judged = *place_of_judgement;
	if (judged >> 1 != said.cookie)
		judged = 0;
	else if (!(judged & 1))
		return 1;
	place = netlab_ip_bytes(skb);
	if (bpf_skb_load_bytes(skb, place, header, sizeof(header)))
		return 1;
	said.place = place + (header[12] >> 4) * 4;
	said.tcp_flags = header[13];
	if (skb->len < said.place || (skb->len == said.place && !(said.tcp_flags & (NETLAB_TCP_FIN | NETLAB_TCP_RST))))
		return 1;
	said.bytes = skb->len - said.place;
	said.sequence = header[4] << 24 | header[5] << 16 | header[6] << 8 | header[7];
	said.sequence += !!(said.tcp_flags & NETLAB_TCP_SYN);	/* Fast Open (RFC 7413): the SYN has a number, too */
	if (socket->state == TCP_LISTEN) {
		if (said.bytes && !outgoing)
			netlab_first_words(skb, &said, netlab_number(skb));
		return 1;
	}
	known = judged ? &judged_before : netlab_known_conversation(said.cookie, skb);
	tcp = bpf_tcp_sock(socket);
	if (!known || !known->budget || !tcp)
		return 1;
	said.conversation = known;
	netlab_read_progress(&said, tcp);
	if (known->budget != NETLAB_GO_ON)	/* what goes on has begun */
		netlab_read_beginning(&said, (struct tcp_sock *)netlab_number(skb));
	netlab_hand_up(skb, &said);
	return 1;
}

int netlab_segment_sent(struct __sk_buff *skb)
{
	return netlab_segment(skb, true);
}

int netlab_segment_received(struct __sk_buff *skb)
{
	return netlab_segment(skb, false);
}

#endif

#if NETLAB_PAYLOAD_UDP

static __always_inline int netlab_message(struct __sk_buff *skb, bool outgoing)
{
	struct netlab_said said = { .outgoing = outgoing, .fresh = 1 };
	struct netlab_conversation ends = { .protocol = IPPROTO_UDP, .budget = NETLAB_GO_ON };
	u64 guarded = (u64)skb->sk, number = 0;
	u8 protocol = netlab_ip_protocol(skb);
	struct netlab_attempt attempt = {};
	struct netlab_packet packet = {};

	if (protocol == IPPROTO_TCP || !netlab_read_packet(&packet, skb, protocol, outgoing))
		return 1;
	if (!NETLAB_WANTED_DATAGRAM(packet.key.ends.local_port) && !NETLAB_WANTED_DATAGRAM(packet.key.ends.remote_port))
		return 1;
	netlab_probe_read(&number, sizeof(number), &guarded);
	netlab_read_flow(&attempt, &packet, (struct sock *)number);
	if (!netlab_is_wanted(&attempt))
		return 1;
	if (netlab_is_paused()) {
		netlab_count(NETLAB_PAYLOAD_WHILE_PAUSED);
		return 1;
	}
	__builtin_memcpy(ends.local_address, attempt.local_address, 16);
	__builtin_memcpy(ends.remote_address, attempt.remote_address, 16);
	ends.netns = attempt.netns;
	ends.local_port = attempt.local_port;
	ends.remote_port = attempt.remote_port;
	ends.family = attempt.family;
	said.conversation = &ends;
	said.cookie = packet.key.cookie;
	said.bytes = packet.bytes;
	said.place = netlab_ip_bytes(skb) + NETLAB_UDP_HEADER;
	netlab_hand_up(skb, &said);
	return 1;
}

int netlab_message_sent(struct __sk_buff *skb)
{
	return netlab_message(skb, true);
}

int netlab_message_received(struct __sk_buff *skb)
{
	return netlab_message(skb, false);
}

#endif
