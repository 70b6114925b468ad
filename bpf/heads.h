/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Heads of HTTP/1 messages (RFC 9112) found in front of their bodies, which user space only counts. Included behind netlab.h.
 *
 * Text is looked through eight bytes at a time. Where two lines begin within eight bytes the second is overlooked, so a body may
 * be handed up that nobody needs; or, of a head that tells both a length and chunks, which none should, these are not.
 */
#ifndef NETLAB_HEADS_H
#define NETLAB_HEADS_H

#define NETLAB_HEAD_TEXT 512	/* how much is looked through; a power of two */
#define NETLAB_HEAD_WORDS (NETLAB_HEAD_TEXT / 8 - 3)	/* what is read behind a line feed in the last of them is within it */
#define NETLAB_LENGTH_DIGITS 10

#define NETLAB_EACH 0x0101010101010101UL
#define NETLAB_FIRST(bytes) (~0UL >> (64 - 8 * (bytes)))
/* Letters in the order of memory, from the lowest byte up. */
#define NETLAB_HTTP 0x2e312f50545448UL		/* HTTP/1. */
#define NETLAB_POST 0x2054534f50UL		/* POST and a blank */
#define NETLAB_PUT 0x20545550UL
#define NETLAB_CONTENT 0x2d746e65746e6f63UL	/* content- */
#define NETLAB_LENGTH 0x3a6874676e656cUL	/* length: */
#define NETLAB_TRANSFER 0x726566736e617274UL
#define NETLAB_LINE_END 0x0a0dUL

static __always_inline u64 netlab_letters(const u8 *text)
{
	u64 letters = *(const u64 *)text;

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	return letters;
#else
	return __builtin_bswap64(letters);
#endif
}

/* Digits and what else has this bit stay as they are. */
static __always_inline u64 netlab_lower(u64 letters)
{
	return letters | 0x20 * NETLAB_EACH;
}

/* The highest bit of the first byte that is a line feed, and maybe of bytes behind it; 0: none is. */
static __always_inline u64 netlab_line_feeds(u64 letters)
{
	u64 others = letters ^ '\n' * NETLAB_EACH;

	return (others - NETLAB_EACH) & ~others & 0x80 * NETLAB_EACH;
}

/* Which byte the lowest bit of *marks* is in. */
static __always_inline u64 netlab_first_byte(u64 marks)
{
	return ((marks & -marks) >> 7) * 0x0001020304050607UL >> 56 & 7;
}

/* A message that may have a body, by its first bytes. An answer of 1xx or 304 has none, and maybe another behind it. */
static __always_inline bool netlab_begins_message(const u8 *text)
{
	u64 letters = netlab_letters(text);

	if ((letters & NETLAB_FIRST(7)) == NETLAB_HTTP)
		return text[9] != '1' && !(text[9] == '3' && text[10] == '0' && text[11] == '4');
	return (letters & NETLAB_FIRST(5)) == NETLAB_POST || (letters & NETLAB_FIRST(4)) == NETLAB_PUT;
}

/* The number at *place* of *text*; 0 where it has no end. */
static __always_inline u64 netlab_content_length(const u8 *text, u64 place)
{
	u64 length = 0;
	int i;

	place += text[place & (NETLAB_HEAD_TEXT - 1)] == ' ';
#pragma clang loop unroll(disable)
	for (i = 0; i < NETLAB_LENGTH_DIGITS; i++) {
		u8 letter = text[(place + i) & (NETLAB_HEAD_TEXT - 1)];

		if (letter == '\r')
			return length;
		if (letter < '0' || letter > '9')
			return 0;
		length = length * 10 + letter - '0';
	}
	return 0;
}

/* What was found of a head by now. */
struct netlab_found {
	u16 length_at;		/* behind the name of Content-Length */
	u16 bytes;
};

/*
 * Return how long the head is that a packet of so many *bytes* begins with, if all behind it is the body whose length it
 * tells; else 0. *text* is the first NETLAB_HEAD_TEXT bytes. What was found lies in memory whose contents no verifier follows:
 * else it would walk through the loop once for each place where something may be.
 */
static __always_inline u32 netlab_head_bytes(const u8 *text, u32 bytes, volatile struct netlab_found *found)
{
	u64 i;

	found->length_at = 0;
	found->bytes = 0;
#pragma clang loop unroll(disable)
	for (i = 0; i < NETLAB_HEAD_WORDS; i++) {
		u64 feeds = netlab_line_feeds(netlab_letters(text + i * 8)), at, line;

		if (!feeds)
			continue;
		at = i * 8 + netlab_first_byte(feeds) + 1;
		line = netlab_letters(text + at);
		if ((line & NETLAB_FIRST(2)) == NETLAB_LINE_END) {
			found->bytes = at + 2;
			break;
		}
		line = netlab_lower(line);
		if (line == NETLAB_TRANSFER)
			return 0;
		if (line == NETLAB_CONTENT && (netlab_lower(netlab_letters(text + at + 8)) & NETLAB_FIRST(7)) == NETLAB_LENGTH)
			found->length_at = at + 15;
	}
	if (!found->bytes || !found->length_at ||
	    found->bytes + netlab_content_length(text, found->length_at) < bytes)
		return 0;
	return found->bytes;
}

#endif
