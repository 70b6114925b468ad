/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What TLS libraries are given to seal and have opened: clear text, in pieces as those of payload.c, for captures that ask
 * for it. Compiled behind payload.c.
 *
 * Uprobes on a library see each call of every process that maps it: a session is the library's object in one process's
 * memory, from its making to its end. Which socket it speaks over no library tells. It is learnt from a record of TLS that
 * leaves from a socket which the current process holds, if either is true:
 *
 *   - the sending thread is inside of a call of the session;
 *   - the session has just had this very record written, by its first bytes, which are random: asyncio and others send it
 *     themselves.
 *
 * Until then nobody knows, and what was said waits in user space.
 */
#include "netlab.h"
#include "pieces.h"

#define NETLAB_HEAD 32	/* of a flight of records, its first one's header among them */
#define NETLAB_HANDSHAKE 22	/* RFC 8446 section 5.1 */

enum netlab_call_kind {
	NETLAB_SHAKES,
	NETLAB_OPENS,
	NETLAB_SEALS,
	NETLAB_MAKES,
	NETLAB_SENDS_FILE,	/* which it seals by calls of its own, or the kernel does */
	NETLAB_FLUSHES,		/* what calls before have said */
};

struct netlab_process_id {
	u64 started_ns;		/* another number after exec() */
	u32 pid;
	u32 padding;
};

struct netlab_session_key {
	u64 address;		/* of the library's object */
	struct netlab_process_id process;
};

/* When something was first given to be sealed, and how much had been opened by then. */
struct netlab_try {
	u64 at_ns;		/* 0: not yet */
	u64 opened;
};

struct netlab_session {
	struct netlab_conversation conversation;	/* with the socket */
	u32 handed;
	u64 id;
	u64 cookie;		/* 0: it is not known over which socket this goes */
	u64 socket;
	u64 said[2];		/* bytes: opened, sealed */
	struct netlab_try tried;	/* to seal what has not gone yet */
	u32 holders;		/* besides the one who made it */
	u8 whole;		/* seen from its making on */
	u8 unwanted;
	u8 padding[2];
};

struct netlab_thread {
	u64 task;
	u64 started_ns;
};

/* A call of a library that a thread is inside of. */
struct netlab_call {
	struct netlab_session_key session;
	struct netlab_try begun;
	u64 stack;
	u64 data;
	u64 count;		/* where the library puts how much it did, if it does not return that */
	u64 kind;
};

struct netlab_head {
	u8 bytes[NETLAB_HEAD];
};

/* A piece, and whose it is when no cookie is known. */
struct netlab_clear {
	u64 session;
	struct netlab_piece piece;
};

BPF_TABLE("lru_hash", struct netlab_session_key, struct netlab_session, netlab_sessions, NETLAB_SIZED);
BPF_TABLE("lru_hash", struct netlab_thread, struct netlab_call, netlab_calls, NETLAB_SIZED);
BPF_TABLE("lru_hash", struct netlab_head, struct netlab_session_key, netlab_heads, 4096);
BPF_TABLE("lru_hash", u64, struct netlab_session_key, netlab_spoken_over, NETLAB_SIZED);	/* by cookie */
/* What user space says of connections, by cookie: NETLAB_GO_ON, or 0. */
BPF_TABLE("lru_hash", u64, u32, netlab_verdicts, NETLAB_SIZED);
BPF_RINGBUF_OUTPUT(netlab_clears, NETLAB_SIZED);

static __always_inline struct netlab_thread netlab_this_thread(void)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct netlab_thread thread = { .task = (u64)task };

	NETLAB_READ(thread.started_ns, task->start_boottime);
	return thread;
}

static __always_inline struct netlab_process_id netlab_this_process(void)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct netlab_process_id process = {};
	struct task_struct *leader = NULL;
	u64 executed = 0;

	NETLAB_READ(leader, task->group_leader);
	NETLAB_READ(process.pid, task->tgid);
	NETLAB_READ(process.started_ns, leader->start_boottime);
	netlab_probe_read(&executed, sizeof(leader->self_exec_id), &leader->self_exec_id);
	process.started_ns += executed;
	return process;
}

/* What the pieces of one call have in common; zero bytes are word that something has changed. */
struct netlab_words {
	struct netlab_session *session;
	u64 at_ns;
	u64 data;
	u64 settled;
	u64 other_settled;
	u32 bytes;
	u32 handed_bytes;
	u32 budget;
	u8 tcp_flags;
	u8 outgoing;
	u8 fresh;
	u8 other_fresh;
	u8 urgent;	/* user space is to read at once */
};

static __always_inline bool netlab_put_clear(struct netlab_words *words, u32 offset, u32 bytes)
{
	struct netlab_clear *clear = netlab_clears.ringbuf_reserve(sizeof(*clear));
	struct netlab_session *session = words->session;
	struct netlab_piece *piece;
	u64 size = bytes - 1;

	asm volatile("%0 &= %1" : "+r"(size) : "i"(NETLAB_PIECE - 1));
	size++;
	if (!clear) {
		netlab_count(NETLAB_PAYLOAD_LOST);
		return false;
	}
	piece = &clear->piece;
	clear->session = session->id;
	__builtin_memcpy(&piece->conversation, &session->conversation, sizeof(piece->conversation));
	piece->conversation.budget = words->budget;
	piece->at_ns = words->at_ns;
	piece->cookie = session->cookie;
	piece->settled = words->settled;
	piece->sequence = words->settled + offset;
	piece->other_settled = words->other_settled;
	piece->packet_bytes = words->bytes;
	piece->handed_bytes = words->handed_bytes;
	piece->offset = offset;
	piece->bytes = bytes;
	piece->tcp_flags = words->tcp_flags;
	piece->outgoing = words->outgoing;
	piece->fresh = words->fresh;
	piece->other_fresh = words->other_fresh;
	if (bytes && netlab_probe_read_user(piece->data, size, (void *)(words->data + offset))) {
		netlab_clears.ringbuf_discard(clear, BPF_RB_NO_WAKEUP);
		netlab_count(NETLAB_PAYLOAD_LOST);
		return false;
	}
	netlab_clears.ringbuf_submit(clear, words->urgent ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP);
	words->urgent = 0;
	return true;
}

/* What is the same in all pieces is looked at once: the verifier walks through the loop for each way to get there. */
static __always_inline void netlab_put_all(struct netlab_words *words)
{
	struct netlab_session *session = words->session;
	u32 handed = words->handed_bytes;
	u64 full = handed / NETLAB_PIECE, i;

	words->settled = session->said[words->outgoing & 1];
	words->fresh = session->whole && !words->settled;
	words->other_fresh = session->whole && !words->other_settled;

#pragma clang loop unroll(disable)
	for (i = 0; i < NETLAB_PIECES_MAX; i++) {
		asm volatile("" : "+r"(i), "+r"(full));
		if (i >= full)
			break;
		if (!netlab_put_clear(words, i * NETLAB_PIECE, NETLAB_PIECE))
			return;
	}
	if (!handed || handed % NETLAB_PIECE)
		netlab_put_clear(words, full * NETLAB_PIECE, handed % NETLAB_PIECE);
}

static __always_inline void netlab_hand_up_clear(struct netlab_words *words)
{
	struct netlab_session *session = words->session;
	u32 *verdict = session->cookie ? netlab_verdicts.lookup(&session->cookie) : NULL;
	u32 handed = words->bytes, room;

	words->budget = verdict ? *verdict : NETLAB_UNJUDGED_BYTES + 1 - session->handed;
	if (session->unwanted || !words->budget)
		return;
	if (handed > NETLAB_PIECES_MAX * NETLAB_PIECE)
		handed = NETLAB_PIECES_MAX * NETLAB_PIECE;
	if (handed > NETLAB_SMALL) {
		room = netlab_room(NETLAB_LARGE_CLEAR, handed);
		words->urgent |= room < handed;
		handed = room;
	}
	if (handed > words->budget - 1)
		handed = words->budget - 1;
	words->urgent |= words->budget > NETLAB_LEISURE && words->budget - handed <= NETLAB_LEISURE;
	if (!handed && !session->cookie)
		return;		/* enough is waiting */
	if (!verdict)
		session->handed += handed;
	if (session->cookie && !session->conversation.direction)
		netlab_read_direction(&session->conversation, session->socket);
	words->handed_bytes = handed;
	netlab_put_all(words);
}

/* Say what became of a session: it has a socket, or is over. */
static __always_inline void netlab_send_word(struct netlab_session *session, u8 tcp_flags)
{
	struct netlab_words words = { .session = session, .tcp_flags = tcp_flags };

	words.budget = !session->unwanted;
	words.other_settled = session->said[1];
	words.at_ns = bpf_ktime_get_ns();
	netlab_put_all(&words);
}

static __always_inline void netlab_begin_session(struct netlab_session_key *key, bool whole)
{
	struct netlab_session begun = { .whole = whole };

	begun.id = bpf_ktime_get_ns() << 8 | (bpf_get_smp_processor_id() & 0xff);
	if (netlab_is_paused()) {
		begun.unwanted = 1;
		netlab_count(NETLAB_PAYLOAD_WHILE_PAUSED);
	}
	netlab_sessions.update(key, &begun);
}

/* Of one that was not seen when it was made, from now on. */
static __always_inline struct netlab_session *netlab_session_of(struct netlab_session_key *key)
{
	struct netlab_session *session = netlab_sessions.lookup(key);

	if (session)
		return session;
	netlab_begin_session(key, false);
	return netlab_sessions.lookup(key);
}

/* It is over; or else nothing is known of what it says from now on, which user space sees when it begins anew. */
static __always_inline bool netlab_end_session(struct netlab_session_key *key, bool over)
{
	struct netlab_session *session = netlab_sessions.lookup(key);

	if (!session)
		return false;
	if (over && !session->unwanted && (session->said[0] || session->said[1]))
		netlab_send_word(session, NETLAB_TCP_RST);
	netlab_spoken_over.delete(&session->cookie);
	netlab_sessions.delete(key);
	return true;
}

/*
 * A call inside of another one: a handshake belongs to it, as does what is said again when it is flushed; a file is said by
 * the calls inside. Else what the outer one does is not known any more. A call that was left by longjmp() looks like that, too.
 */
static __always_inline int netlab_called(struct pt_regs *ctx, u64 kind, u64 count)
{
	struct netlab_thread thread = netlab_this_thread();
	struct netlab_call call = { .kind = kind, .count = count, .begun.at_ns = bpf_ktime_get_ns() };
	struct netlab_call *outer = netlab_calls.lookup(&thread);
	struct netlab_session *session;
	bool own;

	call.session.address = PT_REGS_PARM1(ctx);
	call.session.process = netlab_this_process();
	call.data = kind == NETLAB_SENDS_FILE ? 0 : PT_REGS_PARM2(ctx);
	call.stack = PT_REGS_SP(ctx);
	if (outer && outer->stack > call.stack && outer->kind != NETLAB_SHAKES) {
		own = outer->session.address == call.session.address;
		if (own && (kind == NETLAB_SHAKES || outer->kind == NETLAB_FLUSHES))
			return 0;
		if (!own || outer->kind != NETLAB_SENDS_FILE)
			netlab_end_session(&outer->session, false);
	}
	if (kind == NETLAB_SEALS || kind == NETLAB_SENDS_FILE) {
		session = netlab_sessions.lookup(&call.session);
		call.begun.opened = session ? session->said[0] : 0;
	}
	netlab_calls.update(&thread, &call);
	return 0;
}

int netlab_tls_shakes(struct pt_regs *ctx)
{
	return netlab_called(ctx, NETLAB_SHAKES, 0);
}

int netlab_tls_opens(struct pt_regs *ctx)
{
	return netlab_called(ctx, NETLAB_OPENS, 0);
}

int netlab_tls_opens_ex(struct pt_regs *ctx)
{
	return netlab_called(ctx, NETLAB_OPENS, PT_REGS_PARM4(ctx));
}

int netlab_tls_seals(struct pt_regs *ctx)
{
	return netlab_called(ctx, NETLAB_SEALS, 0);
}

int netlab_tls_seals_ex(struct pt_regs *ctx)
{
	return netlab_called(ctx, NETLAB_SEALS, PT_REGS_PARM4(ctx));
}

/* By the kernel, what nobody sees here is a gap. */
int netlab_tls_sends_file(struct pt_regs *ctx)
{
	return netlab_called(ctx, NETLAB_SENDS_FILE, 0);
}

int netlab_tls_flushes(struct pt_regs *ctx)
{
	return netlab_called(ctx, NETLAB_FLUSHES, 0);
}

int netlab_tls_makes(struct pt_regs *ctx)
{
	return netlab_called(ctx, NETLAB_MAKES, 0);
}

/* Of whatever was called. Where a file is probed twice, by two names, the second time there is no call any more. */
int netlab_tls_returned(struct pt_regs *ctx)
{
	struct netlab_thread thread = netlab_this_thread();
	struct netlab_call call, *known = netlab_calls.lookup(&thread);
	struct netlab_session *session;
	struct netlab_words words = {};
	s32 result = PT_REGS_RC(ctx);
	u64 bytes = 0;

	if (!known || PT_REGS_SP(ctx) - known->stack > 2 * sizeof(u64))
		return 0;	/* the return of a call inside of it */
	call = *known;
	netlab_calls.delete(&thread);
	if (call.kind == NETLAB_MAKES) {
		u64 into = call.session.address;

		if (!result && !netlab_probe_read_user(&call.session.address, sizeof(u64), (void *)into))
			netlab_begin_session(&call.session, true);
		return 0;
	}
	if (call.kind == NETLAB_SHAKES || call.kind == NETLAB_FLUSHES)
		return 0;
	words.outgoing = call.kind != NETLAB_OPENS;
	if (result > 0) {
		bytes = result;
		if (call.count && netlab_probe_read_user(&bytes, sizeof(bytes), (void *)call.count))
			bytes = 0;
	}
	if (!bytes && !words.outgoing)
		return 0;
	if (bytes >> 31) {	/* more than sequence numbers tell from less */
		netlab_end_session(&call.session, false);
		return 0;
	}
	session = netlab_session_of(&call.session);
	if (!session)
		return 0;
	words.at_ns = bpf_ktime_get_ns();
	words.other_settled = session->said[1];
	if (words.outgoing) {
		if (!session->tried.at_ns)
			session->tried = call.begun;
		if (result <= 0)
			return 0;	/* it is given again until it goes */
		words.at_ns = session->tried.at_ns;
		words.other_settled = session->tried.opened;
		session->tried.at_ns = 0;
	}
	if (!bytes)
		return 0;
	words.session = session;
	words.data = call.data;
	words.bytes = bytes;
	if (words.data)		/* GnuTLS goes on sending what it was given before: that is a gap */
		netlab_hand_up_clear(&words);
	session->said[words.outgoing & 1] += bytes;
	return 0;
}

/* Returns the object. */
int netlab_tls_made(struct pt_regs *ctx)
{
	struct netlab_session_key key = { .address = PT_REGS_RC(ctx), .process = netlab_this_process() };

	if (key.address)
		netlab_begin_session(&key, true);
	return 0;
}

/* From now on it takes one more to free it. */
int netlab_tls_shared(struct pt_regs *ctx)
{
	struct netlab_session_key key = { .address = PT_REGS_PARM1(ctx), .process = netlab_this_process() };
	struct netlab_session *session = netlab_sessions.lookup(&key);

	if (session)
		__sync_fetch_and_add(&session->holders, 1);
	return 0;
}

int netlab_tls_freed(struct pt_regs *ctx)
{
	struct netlab_session_key key = { .address = PT_REGS_PARM1(ctx), .process = netlab_this_process() };
	struct netlab_session *session = netlab_sessions.lookup(&key);

	if (session && session->holders)
		__sync_fetch_and_add(&session->holders, -1);
	else
		netlab_end_session(&key, true);
	return 0;
}

/* The object begins another session. */
int netlab_tls_cleared(struct pt_regs *ctx)
{
	struct netlab_session_key key = { .address = PT_REGS_PARM1(ctx), .process = netlab_this_process() };
	struct netlab_session *session = netlab_sessions.lookup(&key);
	u32 holders;

	if (!session)
		return 0;
	holders = session->holders;
	netlab_end_session(&key, true);
	netlab_begin_session(&key, true);
	session = netlab_sessions.lookup(&key);
	if (session)
		session->holders = holders;
	return 0;
}

static __always_inline bool netlab_is_record(struct netlab_head *head)
{
	return head->bytes[0] >= 20 && head->bytes[0] <= 23 && head->bytes[1] == 3;	/* RFC 8446 section 5.1 */
}

/* The "random" bytes of a HelloRetryRequest are always the same (RFC 8446 section 4.1.3). */
static __always_inline bool netlab_is_retry(struct netlab_head *head)
{
	return head->bytes[0] == 22 && head->bytes[5] == 2 && head->bytes[11] == 0xcf && head->bytes[12] == 0x21 &&
	       head->bytes[13] == 0xad && head->bytes[14] == 0x74;
}

/* BIO_write(bio, data, bytes): the session's records on their way, to a socket or into memory. */
int netlab_tls_sealed(struct pt_regs *ctx)
{
	struct netlab_thread thread = netlab_this_thread();
	struct netlab_call *call = netlab_calls.lookup(&thread);
	struct netlab_session *session;
	struct netlab_session_key key;
	struct netlab_head head = {};

	if (!call || (s32)PT_REGS_PARM3(ctx) < NETLAB_HEAD)
		return 0;
	key = call->session;
	session = netlab_sessions.lookup(&key);
	if (session && session->cookie)
		return 0;
	if (netlab_probe_read_user(&head, sizeof(head), (void *)PT_REGS_PARM2(ctx)))
		return 0;
	if (netlab_is_record(&head) && !netlab_is_retry(&head))
		netlab_heads.update(&head, &key);
	return 0;
}

static __always_inline void netlab_join(struct netlab_session_key *key, struct netlab_session *session, u64 cookie, u64 socket)
{
	session->cookie = cookie;
	session->socket = socket;
	netlab_spoken_over.update(&cookie, key);
	netlab_read_speaker(&session->conversation, socket);
	netlab_read_direction(&session->conversation, socket);
	session->unwanted |= !netlab_is_wanted_conversation(&session->conversation);
	netlab_send_word(session, 0);
}

static __always_inline bool netlab_is_same_process(struct netlab_session_key *key)
{
	struct netlab_process_id process = netlab_this_process();

	return key->process.pid == process.pid && key->process.started_ns == process.started_ns;
}

static __always_inline bool netlab_is_same_session(struct netlab_session_key *one, struct netlab_session_key *other)
{
	return one->address == other->address && one->process.pid == other->process.pid &&
	       one->process.started_ns == other->process.started_ns;
}

/*
 * Whose record is sent: of the two ways to tell, the bytes are certain, if the process that wrote them has the socket. Softirq,
 * which sends later what had to wait, is in nobody's process: there who opened the socket counts.
 */
static __always_inline bool netlab_find_sender(
	struct netlab_session_key *key, struct netlab_head *head, u64 socket, bool locked)
{
	struct netlab_session_key *written = netlab_heads.lookup(head);
	struct netlab_attempt *opened;
	struct netlab_thread thread;
	struct netlab_call *call;

	if (written && locked && netlab_is_same_process(written)) {
		*key = *written;
		return true;
	}
	if (!locked) {
		opened = written ? netlab_open.lookup(&socket) : NULL;
		if (!opened || opened->pid != written->process.pid)
			return false;
		*key = *written;
		return true;
	}
	thread = netlab_this_thread();
	call = netlab_calls.lookup(&thread);
	if (!call)
		return false;
	*key = call->session;
	return true;
}

static __always_inline u32 netlab_this_pid(void)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	u32 pid = 0;

	NETLAB_READ(pid, task->tgid);
	return pid;
}

/* A socket that is locked is the current process's: softirq works on others alone. */
int netlab_record_sent(struct __sk_buff *skb)
{
	struct bpf_sock *socket = skb->sk;
	u64 guarded = (u64)socket, number = 0, cookie;
	struct netlab_session_key key, before, *known;
	struct netlab_session *session;
	struct netlab_head head = {};
	u32 place, owned = 0;
	u8 words = 0;
	bool first;

	if (!socket)
		return 1;
	socket = bpf_sk_fullsock(socket);
	if (!socket || socket->protocol != IPPROTO_TCP)
		return 1;
	place = netlab_ip_bytes(skb);
	if (bpf_skb_load_bytes(skb, place + 12, &words, 1))
		return 1;
	if (bpf_skb_load_bytes(skb, place + (words >> 4) * 4, &head, sizeof(head)) || !netlab_is_record(&head))
		return 1;
	cookie = bpf_get_socket_cookie(skb);
	known = netlab_spoken_over.lookup(&cookie);
	first = !known || head.bytes[0] == NETLAB_HANDSHAKE;	/* of a session; behind it, another may shake hands */
	if (!first && known->process.pid == netlab_this_pid())
		return 1;	/* else it may be the copy that a child has */
	netlab_probe_read(&number, sizeof(number), &guarded);
	NETLAB_READ(owned, ((struct sock *)number)->sk_lock.owned);
	if (!owned && !first)
		return 1;
	if (!netlab_find_sender(&key, &head, number, owned))
		return 1;
	if (known) {
		before = *known;
		if (netlab_is_same_session(&before, &key))
			return 1;
		netlab_end_session(&before, false);
	}
	session = netlab_session_of(&key);	/* it shakes hands, or says its first words */
	if (session && !session->cookie)
		netlab_join(&key, session, cookie, number);
	else if (session && session->cookie != cookie)
		netlab_end_session(&key, false);	/* the object has got another socket */
	netlab_heads.delete(&head);
	return 1;
}

/* A socket is closed: of the session, which few programs end when they exit, nothing more is said. */
int netlab_socket_closed(struct bpf_sock *ctx)
{
	u64 cookie = bpf_get_socket_cookie(ctx);
	struct netlab_session_key *known = netlab_spoken_over.lookup(&cookie), key;

	if (!known)
		return 1;
	key = *known;
	netlab_end_session(&key, true);
	return 1;
}
