/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What connections say: the payload of TCP segments and of datagrams on wanted ports, as long as somebody reads it.
 *
 * cgroup_skb programs on the root cgroup see each TCP segment that a socket sends or gets, retransmitted ones too, before
 * it is cut (GSO) and after it was put together (GRO). A connection's first bytes are handed up whoever speaks: user space
 * tells what they are, and writes back whether it goes on. What is not handed up is a gap in the stream: user space knows
 * by the sequence numbers.
 *
 * Compile-time settings beside those of netlab.h and pieces.h:
 *   NETLAB_PAYLOAD_TCP, NETLAB_PAYLOAD_UDP  which of tcp.c and udp.c are compiled with this
 *   NETLAB_WANTED_DATAGRAM(p)  true for ports whose datagrams are handed up (either end)
 *   NETLAB_WANTED_SEGMENT(p)  true for ports whose segments are (either end): all, unless DNS alone is read
 *   NETLAB_JUDGED  size
 */
#include "netlab.h"
#include "pieces.h"

#define NETLAB_TCP_HEADER 20	/* without options */
#define NETLAB_PLAIN_HEADERS (sizeof(struct iphdr) + NETLAB_TCP_HEADER)
#define NETLAB_TCP_FIN 0x01
#define NETLAB_TCP_SYN 0x02
#define NETLAB_TCP_RST 0x04
#define NETLAB_TCP_ACK 0x10

/* The longest silent ones make room: they begin anew when they speak again. */
BPF_TABLE("lru_hash", u64, struct netlab_conversation, netlab_conversations, NETLAB_SIZED);

/*
 * What user space has said of connections, at the place of their cookies: four times the cookie, and how it goes on. Most
 * packets need nothing else, and a look-up in the map above takes longer than all the rest but the ring. Two connections
 * that share a place take turns. User space puts 0 there when it says something else.
 */
enum netlab_verdict { NETLAB_NOT, NETLAB_ALL, NETLAB_HEADS_ALONE, NETLAB_PASSES };

BPF_ARRAY(netlab_judged, u64, NETLAB_JUDGED);

/* The body that is on its way where the verdict is NETLAB_PASSES, as far as user space only counts it. */
#define NETLAB_PASSAGE_STEP (1 << 26)	/* bytes */

struct netlab_passage {
	u32 sequence;
	u32 bytes;
	u32 outgoing;
};

BPF_TABLE("lru_hash", u64, struct netlab_passage, netlab_passages, NETLAB_SIZED);	/* by cookie */

/* How long the IP header is that the packet begins with. */
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

	if (judged && (!budget || budget >= NETLAB_HEADS))
		*judged = cookie << 2 | (budget ? NETLAB_GO_ON - budget + NETLAB_ALL : NETLAB_NOT);
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
	netlab_hand_up(skb, said, NETLAB_PIECES_FEW);
}

/*
 * Read TCP's header and return where it is; 0 where the packet says that it is of something else. No helper is asked where the
 * stack has the headers in one piece and without options, as it does of nearly all packets.
 */
static __always_inline u32 netlab_read_header(u8 *header, struct __sk_buff *skb)
{
	u8 *data = (u8 *)(u64)skb->data, *end = (u8 *)(u64)skb->data_end;
	u32 place;

	if (data + NETLAB_PLAIN_HEADERS <= end && data[0] == NETLAB_PLAIN_IP) {
		__builtin_memcpy(header, data + sizeof(struct iphdr), NETLAB_TCP_HEADER);
		return data[__builtin_offsetof(struct iphdr, protocol)] == IPPROTO_TCP ? sizeof(struct iphdr) : 0;
	}
	if (data + sizeof(struct ipv6hdr) <= end && data[0] >> 4 == 6) {
		u8 next = data[__builtin_offsetof(struct ipv6hdr, nexthdr)];

		if (next == IPPROTO_UDP)
			return 0;
		if (next == IPPROTO_TCP && data + sizeof(struct ipv6hdr) + NETLAB_TCP_HEADER <= end) {
			__builtin_memcpy(header, data + sizeof(struct ipv6hdr), NETLAB_TCP_HEADER);
			return sizeof(struct ipv6hdr);
		}
	}
	place = netlab_ip_bytes(skb);
	return bpf_skb_load_bytes(skb, place, header, NETLAB_TCP_HEADER) ? 0 : place;
}

/* Read what TCP's header tells. False where nobody says anything, as in packets that only acknowledge. */
static __always_inline bool netlab_read_segment(struct netlab_said *said, struct __sk_buff *skb)
{
	u8 header[NETLAB_TCP_HEADER];
	u32 place = netlab_read_header(header, skb);

	if (!place)
		return false;
	said->place = place + (header[12] >> 4) * 4;
	said->tcp_flags = header[13];
	if (skb->len < said->place)
		return false;
	said->bytes = skb->len - said->place;
	said->sequence = header[4] << 24 | header[5] << 16 | header[6] << 8 | header[7];
	said->sequence += !!(said->tcp_flags & NETLAB_TCP_SYN);	/* Fast Open (RFC 7413): the SYN has a number, too */
	return said->bytes || (said->tcp_flags & (NETLAB_TCP_FIN | NETLAB_TCP_RST));
}

/* connect() once more on one socket: what is known is of the connection before. */
static __always_inline void netlab_forget_conversation(u64 cookie)
{
	volatile u64 *judged = netlab_judgement(cookie);

	netlab_conversations.delete(&cookie);
	if (judged && *judged >> 2 == cookie)
		*judged = 0;
}

/*
 * Whether a segment is inside of a body that user space only counts. Its end is handed up, which tells when that was, and one
 * segment now and then, so that user space goes on behind what sequence numbers tell apart.
 */
static __always_inline bool netlab_passes(struct netlab_said *said)
{
	struct netlab_passage *body = netlab_passages.lookup(&said->cookie);
	u32 place;

	if (!body || body->outgoing != said->outgoing || said->tcp_flags & (NETLAB_TCP_FIN | NETLAB_TCP_RST))
		return false;
	place = said->sequence - body->sequence;
	return place < body->bytes && said->bytes < body->bytes - place &&
	       !((place ^ (place + said->bytes)) & NETLAB_PASSAGE_STEP);
}

static __always_inline int netlab_segment(struct __sk_buff *skb, bool outgoing)
{
	struct netlab_said said = { .outgoing = outgoing };
	/* Whose ends user space knows, if it says that they go on. */
	struct netlab_conversation judged_before = { .budget = NETLAB_GO_ON, .protocol = IPPROTO_TCP };
	volatile u64 *place_of_judgement;
	struct bpf_sock *socket;
	struct bpf_tcp_sock *tcp;
	u64 judged = 0;
	bool says = netlab_read_segment(&said, skb);

	if (outgoing && (said.tcp_flags & (NETLAB_TCP_SYN | NETLAB_TCP_ACK)) == NETLAB_TCP_SYN)
		netlab_forget_conversation(bpf_get_socket_cookie(skb));
	if (!says)
		return 1;
	said.cookie = bpf_get_socket_cookie(skb);
	place_of_judgement = netlab_judgement(said.cookie);
	if (place_of_judgement)
		judged = *place_of_judgement;
	if (judged >> 2 != said.cookie)
		judged = 0;
	else if (!(judged & 3))
		return 1;
	if ((judged & 3) == NETLAB_PASSES && netlab_passes(&said))
		return 1;
	socket = skb->sk;
	if (!socket)
		return 1;
	socket = bpf_sk_fullsock(socket);
	if (!socket || socket->protocol != IPPROTO_TCP)
		return 1;
	if (socket->state == TCP_LISTEN) {
		if (said.bytes && !outgoing)
			netlab_first_words(skb, &said, netlab_number(skb));
		return 1;
	}
	tcp = bpf_tcp_sock(socket);
	if (!tcp)
		return 1;
	netlab_read_progress(&said, tcp);
	said.conversation = &judged_before;
	if ((judged & 3) >= NETLAB_HEADS_ALONE) {
		judged_before.budget = NETLAB_HEADS;
		if (said.bytes > NETLAB_PIECE && netlab_put_head(skb, &said))
			return 1;
	}
	if (!judged) {
		said.conversation = netlab_known_conversation(said.cookie, skb);
		if (!said.conversation || !said.conversation->budget)
			return 1;
		if (said.conversation->budget < NETLAB_HEADS)	/* what goes on has begun */
			netlab_read_beginning(&said, (struct tcp_sock *)netlab_number(skb));
	}
	netlab_hand_up(skb, &said, NETLAB_PIECES_MAX);
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

/* Fill in whose a datagram on a wanted port is. False where nobody wants it, or not now. */
static __always_inline bool netlab_wants_datagram(
	struct netlab_conversation *ends, struct netlab_packet *packet, struct sock *sk)
{
	struct netlab_attempt attempt = {};

	netlab_read_flow(&attempt, packet, sk);
	if (!netlab_is_wanted(&attempt))
		return false;
	if (netlab_is_paused()) {
		netlab_count(NETLAB_PAYLOAD_WHILE_PAUSED);
		return false;
	}
	__builtin_memcpy(ends->local_address, attempt.local_address, 16);
	__builtin_memcpy(ends->remote_address, attempt.remote_address, 16);
	ends->netns = attempt.netns;
	ends->local_port = attempt.local_port;
	ends->remote_port = attempt.remote_port;
	ends->family = attempt.family;
	return true;
}

static __always_inline bool netlab_has_wanted_datagrams(struct netlab_ends *ends)
{
	return NETLAB_WANTED_DATAGRAM(ends->local_port) || NETLAB_WANTED_DATAGRAM(ends->remote_port);
}

static __always_inline int netlab_message(struct __sk_buff *skb, bool outgoing)
{
	struct netlab_said said = { .outgoing = outgoing, .fresh = 1 };
	struct netlab_conversation ends = { .protocol = IPPROTO_UDP, .budget = NETLAB_GO_ON };
	u64 guarded = (u64)skb->sk, number = 0;
	u8 protocol = netlab_ip_protocol(skb);
	struct netlab_packet packet = {};

	if (protocol == IPPROTO_TCP || !netlab_read_packet(&packet, skb, protocol, outgoing))
		return 1;
	if (!netlab_has_wanted_datagrams(&packet.key.ends))
		return 1;
	netlab_probe_read(&number, sizeof(number), &guarded);
	if (!netlab_wants_datagram(&ends, &packet, (struct sock *)number))
		return 1;
	said.conversation = &ends;
	said.cookie = packet.key.cookie;
	said.bytes = packet.bytes;
	said.place = netlab_ip_bytes(skb) + NETLAB_UDP_HEADER;
	netlab_hand_up(skb, &said, NETLAB_PIECES_FEW);
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

/*
 * Typed raw tracepoint inet_sk_error_report(sk): nobody takes what was asked, as ICMP says. To the reader this is a reset,
 * which UDP does not have: a piece of a datagram without a byte. A packet that is too large is sent again in smaller ones.
 */
int netlab_message_refused(struct netlab_error_report *ctx)
{
	struct netlab_conversation ends = { .protocol = IPPROTO_UDP, .budget = NETLAB_GO_ON };
	struct netlab_said said = { .tcp_flags = NETLAB_TCP_RST, .fresh = 1 };
	struct netlab_packet packet = {};
	struct sock *sk = ctx->sk;
	s32 error;

	if (sk->sk_protocol != IPPROTO_UDP)
		return 0;
	error = netlab_read_refusal(&packet.key.ends, sk);
	if (!error || error == NETLAB_EMSGSIZE || !netlab_has_wanted_datagrams(&packet.key.ends))
		return 0;
	packet.key.cookie = sk->__sk_common.skc_cookie.counter;
	if (!netlab_wants_datagram(&ends, &packet, sk))
		return 0;
	said.conversation = &ends;
	said.cookie = packet.key.cookie;
	said.at_ns = bpf_ktime_get_ns();
	netlab_put(NULL, &said, 0, 0);
	return 0;
}

#endif
