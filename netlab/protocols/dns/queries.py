"""Queries matched to their answers, and what becomes of those without; all times are those of packets."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from netlab.protocols.dns import text
from netlab.protocols.dns.message import ANY, CNAME, NOERROR, QUERY, Message, Question, Record

MOST_WAITING = 10_000  # queries in flight
_TRANSFERS = {
    251,
    252,
}  # IXFR, AXFR: the answer is as many messages as it takes (RFC 5936 section 2.2)
_MOST_TRANSFERS = 1_000
_GROUPS = {  # RFC 6762 section 3, RFC 4795 section 2
    5353: frozenset({b"\xe0\0\0\xfb", b"\xff\x02" + bytes(13) + b"\xfb"}),
    5355: frozenset({b"\xe0\0\0\xfc", b"\xff\x02" + bytes(11) + b"\x01\0\x03"}),
}
_SERVICES = {5353: "mdns", 5355: "llmnr"}


class Ends(NamedTuple):
    """One socket's conversation as the socket sees it; addresses in network order, 4 or 16 bytes."""

    netns: int
    cookie: int
    is_tcp: bool
    local_address: bytes
    local_port: int
    remote_address: bytes
    remote_port: int
    is_tls: bool = False

    @property
    def transport(self) -> str:
        """One of udp, tcp, tls."""
        return "tls" if self.is_tls else "tcp" if self.is_tcp else "udp"


class Outcome(StrEnum):
    """What became of a query."""

    PENDING = "pending"  # an answer may still come
    ANSWERED = "answered"
    TIMEOUT = "timeout"  # no answer came in time
    CLOSED = "closed"  # the TCP connection ended without one
    UNREACHABLE = "unreachable"  # ICMP told the asker that nobody takes it
    MISSED = "missed"  # packets were not seen, the answer's perhaps among them


@dataclass(slots=True, eq=False)
class Query:
    """One question put to one server, by one socket, under one id; and its answer."""

    ends: Ends
    outgoing: bool  # the asker is here
    id: int
    question: Question
    asked_ns: int
    last_ns: int  # when it was sent for the last time
    edns_bytes: int | None
    resent: int = 0
    outcome: Outcome = Outcome.PENDING
    answered_ns: int | None = None
    rcode: int | None = None
    is_truncated: bool = False
    answer_bytes: int | None = None
    records: tuple[Record, ...] = ()
    is_blind: bool = False  # packets were missed since it was asked

    @property
    def service(self) -> str:
        """One of dns, mdns, llmnr. A host on mDNS's port may be a resolver, which is asked for any name."""
        named = _SERVICES.get(self.server[1], "dns")
        is_link_wide = self.to_group or named != "mdns" or self.question.name.endswith(".local")
        return named if is_link_wide else "dns"

    @property
    def server(self) -> tuple[bytes, int]:
        """The address and port that are asked."""
        ends = self.ends
        if self.outgoing:
            return ends.remote_address, ends.remote_port
        return ends.local_address, ends.local_port

    @property
    def conversation(self) -> str:
        """Who asks whom, as both ends call it."""
        ends = self.ends
        near, far = (ends.local_address, ends.local_port), (ends.remote_address, ends.remote_port)
        asker, server = (near, far) if self.outgoing else (far, near)
        return ">".join(f"{text.of_address(address)}#{port}" for address, port in (asker, server))

    @property
    def to_group(self) -> bool:
        """Whether everybody on the link is asked, and whoever knows answers."""
        address, port = self.server
        return address in _GROUPS.get(port, ())


@dataclass(slots=True)
class Account:
    """What is in no row, in numbers."""

    unasked: int = 0  # answers to no query that is waiting: late, a second one, or asked before
    crowded: int = 0  # queries that came when too many were in flight
    dropped: int = 0  # queries that made room for later ones
    others: int = 0  # messages that look nothing up: zone changes, notifications, claims to a name


_Key: TypeAlias = tuple[object, ...]


class Queries:
    """Every query seen: those in flight, and those that are over, up to *max_kept*.

    Parameters
    ----------
    timeout_s
        How long after it was sent for the last time a query is given up, in seconds.
    max_kept, max_waiting
        How many are kept when they are over, and how many are followed at a time.
    on_answer
        Is given each query that has been answered.
    """

    def __init__(
        self,
        *,
        timeout_s: float,
        max_kept: int,
        max_waiting: int = MOST_WAITING,
        on_answer: Callable[[Query], object] | None = None,
    ) -> None:
        self.account = Account()
        self.totals: Counter[tuple[Outcome, int | None]] = Counter()  # of all that are over, with their rcode
        self._on_answer = on_answer
        self._timeout_ns, self._max_waiting = round(timeout_s * 1e9), max_waiting
        self._over: deque[Query] = deque(maxlen=max_kept)
        self._waiting: OrderedDict[Query, None] = OrderedDict()  # the one sent longest ago first
        self._known: dict[_Key, dict[Question, Query]] = {}
        self._transfers: OrderedDict[_Key, None] = OrderedDict()  # those that were answered, and may go on

    def said(self, ends: Ends, message: Message, at_ns: int, *, sent: bool) -> None:
        """Take note of a message that this socket *sent*, or got."""
        self.expire(at_ns)
        if message.opcode != QUERY or not (message.questions or message.is_answer) or _probes(ends, message):
            self.account.others += 1
        elif message.is_answer:
            self._answer(ends, message, at_ns, sent=sent)
        else:
            for question in dict.fromkeys(message.questions):
                self._ask(Query(ends, sent, message.id, question, at_ns, at_ns, message.edns_bytes))

    def missed(self, ends: Ends | None = None) -> None:
        """Take note that packets of this connection, or any, were not seen: a silence now proves nothing."""
        for query in self._waiting:
            query.is_blind |= ends is None or query.ends == ends

    def ended(self, ends: Ends, at_ns: int) -> None:
        """Take note that a TCP connection is over: what it was asked stays unanswered."""
        self.expire(at_ns)
        for query in [one for one in self._waiting if one.ends == ends]:
            self._finish(query, Outcome.MISSED if query.is_blind else Outcome.CLOSED)

    def refused(self, ends: Ends) -> None:
        """Take note that an ICMP error came back for what this socket has asked."""
        for query in [one for one in self._waiting if one.outgoing and one.ends == ends]:
            self._finish(query, Outcome.UNREACHABLE)

    def expire(self, now_ns: int) -> None:
        """Give up the queries that have waited for too long."""
        while self._waiting:
            query = next(iter(self._waiting))
            if now_ns - query.last_ns < self._timeout_ns:
                return
            self._finish(query, Outcome.MISSED if query.is_blind else Outcome.TIMEOUT)

    def all(self) -> list[Query]:
        """Return the queries that are over and kept, then those in flight as they are now."""
        return [*self._over, *(replace(query) for query in self._waiting if _concerns_us(query))]

    def _ask(self, query: Query) -> None:
        key = _key(query.ends, query.id, sent=query.outgoing, to_group=query.to_group)
        known = self._known.get(key, {}).get(query.question)
        if known:
            known.last_ns = query.asked_ns
            if query.outgoing or not query.to_group:  # else each socket gets its copy of one packet
                known.resent += 1
            self._waiting.move_to_end(known)
            return
        if len(self._waiting) >= self._max_waiting:
            self.account.crowded += 1
            return
        self._known.setdefault(key, {})[query.question] = query
        self._waiting[query] = None

    def _answer(self, ends: Ends, message: Message, at_ns: int, *, sent: bool) -> None:
        alone = self._known.get(_key(ends, message.id, sent=not sent, to_group=False), {})
        group = self._known.get(_key(ends, message.id, sent=not sent, to_group=True), {})
        answered = _meant(alone, message) or _meant(group, message)
        for query in answered:
            query.answered_ns, query.rcode = at_ns, message.rcode
            query.is_truncated, query.answer_bytes = message.is_truncated, message.size_bytes
            query.records = message.records
            self._finish(query, Outcome.ANSWERED)
            if self._on_answer:
                self._on_answer(query)
        if answered or ends.remote_port in _SERVICES:  # others' multicast answers are everybody's
            return
        if _key(ends, message.id, sent=not sent, to_group=False) not in self._transfers:
            self.account.unasked += 1

    def _finish(self, query: Query, outcome: Outcome) -> None:
        query.outcome = outcome
        del self._waiting[query]
        key = _key(query.ends, query.id, sent=query.outgoing, to_group=query.to_group)
        del self._known[key][query.question]
        if not self._known[key]:
            del self._known[key]
        if query.question.type in _TRANSFERS and outcome is Outcome.ANSWERED:
            self._transfers[key] = None
            if len(self._transfers) > _MOST_TRANSFERS:
                self._transfers.popitem(last=False)
        if _concerns_us(query):
            self.totals[outcome, query.rcode] += 1
            self.account.dropped += len(self._over) == self._over.maxlen
            self._over.append(query)


def _key(ends: Ends, number: int, *, sent: bool, to_group: bool) -> _Key:
    """Return what a query and its answer have in common.

    Not the socket: a server may answer from another one. Of a query to a group, not the addresses either.
    """
    if to_group:
        return ends.netns, sent, number, ends.local_port if sent else ends.remote_port
    return ends._replace(cookie=0), sent, number


def _meant(queries: dict[Question, Query], message: Message) -> list[Query]:
    """Return which of *queries*, alike but for their questions, a message answers.

    Some servers leave out the question when they refuse; multicast answers never have one.
    """
    if message.questions:
        return [queries[one] for one in dict.fromkeys(message.questions) if one in queries]
    told = {record.name for record in message.records}
    return [
        query
        for question, query in queries.items()
        if (
            question.name in told and any(_tells(record, question) for record in message.records)
            if query.to_group
            else message.rcode != NOERROR
        )
    ]


def _probes(ends: Ends, message: Message) -> bool:
    """Tell whether somebody asks by multicast only if his own name is free (RFC 6762 section 8.1)."""
    is_multicast = _SERVICES.get(ends.remote_port) == "mdns"
    return is_multicast and not message.is_answer and bool(message.authorities)


def _tells(record: Record, question: Question) -> bool:
    return record.name == question.name and (question.type == ANY or record.type in {question.type, CNAME})


def _concerns_us(query: Query) -> bool:
    """Of what the whole link is asked, only what this host asked or answered is worth a row."""
    return query.outgoing or not query.to_group or query.outcome is Outcome.ANSWERED
