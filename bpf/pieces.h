/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Payload on its way up: packets in pieces of one size, in one ring. Included behind netlab.h.
 *
 * Compile-time settings:
 *   NETLAB_PIECES_FEW  of one packet: what is behind them is handed up of segments and clear text, as long as there is room
 *   NETLAB_PIECES_MAX  of one segment, and of what a TLS library is given or returns at once
 *   NETLAB_LARGE_BYTES, NETLAB_LARGE_CLEAR_BYTES  how much of what is not small is handed up whole by the ring of segments
 *                          and that of clear text, until user space has read; then the few pieces, then one
 *   NETLAB_UNJUDGED_BYTES  how much of a connection is handed up before user space has said that it goes on; behind
 *                          that only the lengths are
 */
#ifndef NETLAB_PIECES_H
#define NETLAB_PIECES_H

#include "heads.h"

#define NETLAB_PIECE 512	/* a power of two */
#define NETLAB_SMALL (4 * NETLAB_PIECE)
/* With less than this left of its budget user space is to look at a connection at once: the rest may go as fast. */
#define NETLAB_LEISURE (NETLAB_UNJUDGED_BYTES / 8 * 7)
/* Budgets of connections that are understood. */
#define NETLAB_GO_ON 0xffffffff
#define NETLAB_HEADS 0xfffffffe	/* and speak HTTP/1, whose bodies are only counted */

/* One socket's connection as it sees it itself; of a datagram, its ends. */
struct netlab_conversation {
	u8 local_address[16];
	u8 remote_address[16];
	u32 netns;
	u32 budget;	/* bytes that may still be handed up, and 1; user space sets it to one of the above, or 0 */
	u16 local_port;
	u16 remote_port;
	u16 family;
	u8 direction;
	u8 protocol;
};

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
BPF_RINGBUF_OUTPUT(netlab_pieces, NETLAB_SIZED);

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
	u8 urgent;	/* user space is to read at once */
};

/* Fill in all but the payload. */
static __always_inline void netlab_describe(struct netlab_piece *piece, struct netlab_said *said, u32 offset, u32 bytes)
{
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
}

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
	netlab_describe(piece, said, offset, bytes);
	if (bytes && bpf_skb_load_bytes(skb, said->place + offset, piece->data, size)) {
		netlab_pieces.ringbuf_discard(piece, BPF_RB_NO_WAKEUP);
		netlab_count(NETLAB_PAYLOAD_LOST);
		return false;
	}
	netlab_pieces.ringbuf_submit(piece, said->urgent ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP);
	return true;
}

_Static_assert(NETLAB_HEAD_TEXT <= NETLAB_PIECE, "a head is looked for in one piece");

/* Hand up the head of a message alone, if all behind it is its body; else nothing. */
static __always_inline bool netlab_put_head(struct __sk_buff *skb, struct netlab_said *said)
{
	struct netlab_piece *piece;
	u8 first[16];
	u32 bytes = 0;

	if (bpf_skb_load_bytes(skb, said->place, first, sizeof(first)) || !netlab_begins_message(first))
		return false;
	piece = netlab_pieces.ringbuf_reserve(sizeof(*piece));
	if (!piece)
		return false;	/* which is counted when the next one is not there */
	if (!bpf_skb_load_bytes(skb, said->place, piece->data, NETLAB_HEAD_TEXT))
		bytes = netlab_head_bytes(piece->data, said->bytes, (struct netlab_found *)&piece->cookie);
	if (!bytes) {
		netlab_pieces.ringbuf_discard(piece, BPF_RB_NO_WAKEUP);
		return false;
	}
	said->at_ns = bpf_ktime_get_ns();
	said->handed_bytes = bytes;
	netlab_describe(piece, said, 0, bytes);
	netlab_pieces.ringbuf_submit(piece, BPF_RB_NO_WAKEUP);
	return true;
}

/* What large segments have taken of their ring, and large clear text of its, since user space has read: it puts 0 there. */
enum netlab_large_ring { NETLAB_LARGE_SEGMENTS, NETLAB_LARGE_CLEAR, NETLAB_LARGE_RINGS };

BPF_ARRAY(netlab_large, u64, NETLAB_LARGE_RINGS);

/* How much there is room for of what is not small; in the end its first piece alone, so that small messages have some left. */
static __always_inline u32 netlab_room(u32 ring, u32 bytes)
{
	u64 most = ring == NETLAB_LARGE_CLEAR ? NETLAB_LARGE_CLEAR_BYTES : NETLAB_LARGE_BYTES;
	u64 *large = netlab_large.lookup(&ring);

	if (!large || *large > most + most / 4)
		return NETLAB_PIECE;
	if (*large > most && bytes > NETLAB_PIECES_FEW * NETLAB_PIECE)
		bytes = NETLAB_PIECES_FEW * NETLAB_PIECE;
	__sync_fetch_and_add(large, bytes);
	return bytes;
}

/*
 * The full pieces, *most* of them, then the rest: in one loop for both the verifier would follow each size through each turn.
 * Messages end anywhere in a packet, so that one which is cut hides where the next one begins. A stream that is faster than
 * user space would lose whole packets instead.
 */
static __always_inline void netlab_hand_up(struct __sk_buff *skb, struct netlab_said *said, const u32 most)
{
	struct netlab_conversation *conversation = said->conversation;
	u32 handed = said->bytes, budget = conversation->budget, room;
	u64 full, i;

	if (handed > most * NETLAB_PIECE)
		handed = most * NETLAB_PIECE;
	if (most > NETLAB_PIECES_FEW && handed > NETLAB_SMALL) {
		room = netlab_room(NETLAB_LARGE_SEGMENTS, handed);
		said->urgent |= room < handed;
		handed = room;
	}
	if (handed > budget - 1)
		handed = budget - 1;
	if (budget < NETLAB_HEADS) {	/* user space may write meanwhile; it sees here that it was in vain */
		conversation->budget = budget - handed;
		said->urgent |= budget > NETLAB_LEISURE && budget - handed <= NETLAB_LEISURE;
	}
	said->at_ns = bpf_ktime_get_ns();
	said->handed_bytes = handed;
	full = handed / NETLAB_PIECE;
#pragma clang loop unroll(disable)
	for (i = 0; i < most; i++) {
		asm volatile("" : "+r"(i), "+r"(full));	/* clang knows the bound of full, and would test nothing else */
		if (i >= full)
			break;
		if (!netlab_put(skb, said, i * NETLAB_PIECE, NETLAB_PIECE))
			return;
		said->urgent = 0;	/* to wake it once will do */
	}
	if (!handed || handed % NETLAB_PIECE)
		netlab_put(skb, said, full * NETLAB_PIECE, handed % NETLAB_PIECE);
}

#endif
