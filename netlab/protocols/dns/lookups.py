"""Queries put together to lookups: what one asker sent, again and to others, until it had an answer."""

from __future__ import annotations

import socket
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from netlab.protocols.dns.message import AAAA, ANY, CNAME, A, Question, Record
from netlab.protocols.dns.queries import Query

_FAMILIES = {A: socket.AF_INET, AAAA: socket.AF_INET6}
_IMPATIENT_NS = 100_000_000  # no resolver gives up sooner; what is asked sooner is another thread's


class Lookup:
    """One or more queries of one asker for one name and type, in the order they were sent.

    `last` is the query that was answered first and in full, else the last one.
    """

    def __init__(self, first: Query) -> None:
        self.queries = [first]
        self.last = first

    def go_on(self, query: Query) -> None:
        """Take the next query."""
        self.queries.append(query)
        is_sooner = _is_whole(query) and _answered_ns(query) < _answered_ns(self.last)
        if is_sooner or not _is_whole(self.last):
            self.last = query

    @property
    def retries(self) -> int:
        """Queries that were sent again. To ask by TCP what did not fit into a datagram is none, at first."""
        fell_back = self.queries[-1].ends.is_tcp and any(query.is_truncated for query in self.queries)
        return len(self.queries) - 1 - fell_back + sum(query.resent for query in self.queries)

    @property
    def transport(self) -> str:
        """One of udp, tcp, tls, or several in the order in which they were tried: udp+tcp."""
        return "+".join(dict.fromkeys(query.ends.transport for query in self.queries))

    @property
    def conversations(self) -> list[str]:
        """Who asked whom, in the same words at both ends, each once: 192.0.2.1#40001>192.0.2.53#53."""
        return list(dict.fromkeys(query.conversation for query in self.queries))

    @property
    def silent(self) -> list[bytes]:
        """The servers that left the queries before the last one unanswered."""
        if len(self.queries) == 1:
            return []
        return [query.server[0] for query in self.queries if query is not self.last and query.rcode is None]


def grouped(queries: Iterable[Query], askers: Sequence[Hashable], *, timeout_s: float) -> list[Lookup]:
    """Put the queries of one asker that belong together into lookups, by their beginning.

    Parameters
    ----------
    queries
        In any order.
    askers
        Who sent each of them: its process, where that is known.
    timeout_s
        How long a lookup may wait for a query that continues it, in seconds.
    """
    timeout_ns = round(timeout_s * 1e9)
    under_way: dict[tuple[Hashable, Question], list[Lookup]] = defaultdict(list)
    found = []
    for query, asker in sorted(zip(queries, askers, strict=True), key=lambda each: each[0].asked_ns):
        alike = under_way[asker, query.question]
        alike[:] = [lookup for lookup in alike if _may_go_on(lookup, query.asked_ns, timeout_ns)]
        lookup = next((lookup for lookup in alike if _goes_on(lookup, query)), None)
        if lookup is None:
            alike.append(Lookup(query))
            found.append(alike[-1])
        else:
            lookup.go_on(query)
    return found


def _may_go_on(lookup: Lookup, at_ns: int, timeout_ns: int) -> bool:
    last = lookup.last
    is_over = last.answered_ns is not None and last.answered_ns <= at_ns and not last.is_truncated
    return not is_over and at_ns - last.last_ns <= timeout_ns


def _goes_on(lookup: Lookup, query: Query) -> bool:
    """Tell whether *query* is the lookup's next one.

    The same id says so; so does TCP after a truncated answer, and a query after a silence.
    """
    last = lookup.last
    if last.ends.is_tcp < query.ends.is_tcp and last.is_truncated:
        return query.asked_ns >= _answered_ns(last)
    if last.answered_ns is not None and last.answered_ns <= query.asked_ns:
        return False
    if query.id == last.id and (query.id or query.ends.cookie == last.ends.cookie):
        return True
    return last.answered_ns is None and query.asked_ns - last.last_ns >= _IMPATIENT_NS


def _answered_ns(query: Query) -> int:
    return query.answered_ns or 0


def _is_whole(query: Query) -> bool:
    return query.answered_ns is not None and not query.is_truncated


@dataclass(frozen=True, slots=True)
class Answer:
    """What an answer says about its question: the records of the type, and the names on the way to them."""

    records: list[Record]
    chain: list[str]
    ttl_s: int | None

    @classmethod
    def of(cls, query: Query) -> Answer:
        """Follow the chain of CNAMEs; one that leads back to itself ends there."""
        name, kind = query.question.name, query.question.type
        aliases = {record.name: record for record in query.records if record.type == CNAME}
        passed: list[Record] = []
        while kind not in {CNAME, ANY} and name in aliases:
            passed.append(aliases.pop(name))
            name = passed[-1].text or ""
        found = [record for record in query.records if record.name == name and kind in {record.type, ANY}]
        ttls = [record.ttl_s for record in (*passed, *found)]
        return cls(found, [record.text or "" for record in passed], min(ttls, default=None))

    @property
    def addresses(self) -> list[str]:
        """The addresses that the name has; a record of their type may be damaged, or of another class."""
        return [
            record.text for record in self.records if record.text and _is_address(record.text, record.type)
        ]


def _is_address(text: str, kind: int) -> bool:
    if kind not in _FAMILIES:
        return False
    try:
        socket.inet_pton(_FAMILIES[kind], text)
    except (OSError, ValueError):
        return False
    return True
