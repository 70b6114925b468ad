"""Queries find their answers, and only theirs; silence is told as what it is."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import dns.message
import dns.rrset
import pytest
from asking import OTHER, SECOND, answer, ends, query, seen_by_server
from hypothesis import given, strategies as st

from netlab.protocols.dns.message import Question, read
from netlab.protocols.dns.queries import Outcome, Queries


def queries(**options: int) -> Queries:
    return Queries(**{"timeout_s": 15, "max_kept": 100, **options})


def outcomes(seen: Queries) -> list[str]:
    return [str(one.outcome) for one in seen.all()]


def test_an_answer_of_the_same_id_question_and_ends_ends_the_query() -> None:
    seen = queries()

    seen.said(ends(), query(), 1000, sent=True)
    seen.said(ends(), answer(), 3500, sent=False)

    (found,) = seen.all()
    assert (found.outcome, found.asked_ns, found.answered_ns, found.rcode) == (
        Outcome.ANSWERED,
        1000,
        3500,
        0,
    )


def test_the_server_s_side_is_told_apart_from_the_asker_s() -> None:
    seen = queries()

    seen.said(seen_by_server(ends()), query(), 1000, sent=False)
    seen.said(seen_by_server(ends()), answer(), 2000, sent=True)

    assert [(one.outgoing, one.outcome) for one in seen.all()] == [(False, Outcome.ANSWERED)]


@pytest.mark.parametrize(
    ("to", "reply"),
    [
        (ends(server=OTHER), answer()),
        (ends(port=40_001), answer()),
        (ends(is_tcp=True), answer()),
        (ends(server_port=5300), answer()),
        (ends(), answer(number=78)),
        (ends(), answer("other.example.")),
        (ends(), answer(kind="AAAA")),
    ],
    ids=["another address", "another port", "TCP", "the server's port", "id", "name", "type"],
)
def test_an_answer_that_is_not_quite_its_own_leaves_a_query_waiting(to: object, reply: object) -> None:
    seen = queries()

    seen.said(ends(), query(), 1000, sent=True)
    seen.said(to, reply, 2000, sent=False)

    assert outcomes(seen) == ["pending"]
    assert seen.account.unasked == 1


def test_a_question_in_mixed_case_is_the_same_question() -> None:
    seen = queries()

    seen.said(ends(), query("wWw.ExAmPlE."), 1000, sent=True)
    seen.said(ends(), answer("WwW.eXaMpLe."), 2000, sent=False)

    assert outcomes(seen) == ["answered"]


def test_an_id_used_for_two_questions_at_once_answers_each_by_its_own() -> None:
    seen = queries()

    seen.said(ends(), query(kind="A"), 1000, sent=True)
    seen.said(ends(), query(kind="AAAA"), 1100, sent=True)
    seen.said(ends(), answer(kind="AAAA", rcode="NXDOMAIN"), 2000, sent=False)
    seen.said(ends(), answer(kind="A"), 3000, sent=False)

    assert [(one.question.type, one.rcode, one.answered_ns) for one in seen.all()] == [
        (28, 3, 2000),
        (1, 0, 3000),
    ]


def test_a_refusal_without_its_question_is_known_by_its_id() -> None:
    seen = queries()

    seen.said(ends(), query(), 1000, sent=True)
    seen.said(ends(), answer(rcode="REFUSED", question=False), 2000, sent=False)

    assert [one.rcode for one in seen.all()] == [5]


def test_several_questions_of_one_message_are_queries_each() -> None:
    two = bytearray(b"\0\x4d\0\0\0\2\0\0\0\0\0\0" + b"\1a\0\0\1\0\1" + b"\1b\0\0\1\0\1")
    seen = queries()

    seen.said(ends(), read(bytes(two)), 1000, sent=True)
    seen.said(ends(), answer("b."), 2000, sent=False)

    assert {one.question.name: str(one.outcome) for one in seen.all()} == {"a": "pending", "b": "answered"}


def test_a_second_answer_and_one_that_comes_too_late_change_nothing() -> None:
    seen = queries()

    seen.said(ends(), query(), 0, sent=True)
    seen.said(ends(), answer(), 2000, sent=False)
    seen.said(ends(), answer(rcode="SERVFAIL"), 3000, sent=False)
    seen.said(ends(), query(number=78), 0, sent=True)
    seen.said(ends(), answer(number=78), 15 * SECOND, sent=False)

    assert [(str(one.outcome), one.rcode) for one in seen.all()] == [("answered", 0), ("timeout", None)]
    assert seen.account.unasked == 2


def test_the_many_messages_of_a_zone_transfer_are_one_answer() -> None:
    seen, over_tcp = queries(), ends(is_tcp=True)

    seen.said(over_tcp, query(kind="AXFR"), 0, sent=True)
    for at_ns in range(10, 60):
        seen.said(over_tcp, answer(kind="AXFR"), at_ns, sent=False)

    assert [(one.outcome, one.answered_ns) for one in seen.all()] == [(Outcome.ANSWERED, 10)]
    assert seen.account.unasked == 0


def test_a_query_sent_again_waits_on() -> None:
    seen = queries()

    seen.said(ends(), query(), 0, sent=True)
    seen.said(ends(), query(), 10 * SECOND, sent=True)
    seen.expire(20 * SECOND)

    assert [(one.resent, str(one.outcome)) for one in seen.all()] == [(1, "pending")]
    seen.expire(25 * SECOND)
    assert outcomes(seen) == ["timeout"]


def test_silence_proves_nothing_after_packets_were_missed() -> None:
    seen = queries()

    seen.said(ends(), query(), 0, sent=True)
    seen.missed()
    seen.said(ends(port=40_001), query(), 1, sent=True)
    seen.expire(20 * SECOND)

    assert outcomes(seen) == ["missed", "timeout"]


def test_a_closed_connection_answers_no_more() -> None:
    seen = queries()
    tcp = ends(is_tcp=True)

    seen.said(tcp, query(), 0, sent=True)
    seen.said(ends(is_tcp=True, port=40_001), query(), 0, sent=True)
    seen.ended(tcp, 1000)

    assert outcomes(seen) == ["closed", "pending"]


def test_what_does_not_fit_is_counted() -> None:
    seen = queries(max_waiting=2, max_kept=1)

    for number in range(3):
        seen.said(ends(), query(number=number), 0, sent=True)
    for number in range(3):
        seen.said(ends(), answer(number=number), 1000, sent=False)

    assert outcomes(seen) == ["answered"]
    assert (seen.account.crowded, seen.account.dropped, seen.account.unasked) == (1, 1, 1)


def test_what_looks_nothing_up_is_counted_and_no_row() -> None:
    seen = queries()

    notify = read(bytes.fromhex("004d20000001000000000000") + b"\1a\0\0\6\0\1")
    seen.said(ends(), notify, 0, sent=True)

    assert seen.all() == []
    assert seen.account.others == 1


GROUP = "224.0.0.251"


def test_who_asks_if_his_own_name_is_free_looks_nothing_up() -> None:
    """The probe says in its authority section what he would answer (RFC 6762 section 8.1)."""
    asked = dns.message.make_query("printer.local.", "ANY", id=0)
    asked.authority.append(dns.rrset.from_text("printer.local.", 120, "IN", "A", "192.0.2.10"))
    transfer = dns.message.make_query("example.", "IXFR")
    transfer.authority.append(dns.rrset.from_text("example.", 9, "IN", "SOA", "a. b. 1 2 3 4 5"))
    seen = queries()

    seen.said(ends(server=GROUP, server_port=5353, port=5353), read(asked.to_wire()), 0, sent=True)
    seen.said(ends(), read(transfer.to_wire()), 0, sent=True)

    assert [one.question.name for one in seen.all()] == ["example"]
    assert seen.account.others == 1


def test_a_group_is_asked_and_whoever_knows_answers() -> None:
    seen = queries()
    asked = ends(server=GROUP, server_port=5353, port=5353)
    said = ends(server=OTHER, server_port=5353, port=5353, cookie=2)

    seen.said(asked, query("printer.local.", number=0), 0, sent=True)
    seen.said(
        said, answer("x.local.", "A", "else.local. 9 A 192.0.2.2", number=0, question=False), 500, sent=False
    )
    seen.said(
        said,
        answer("x.local.", "A", "printer.local. 9 A 192.0.2.3", number=0, question=False),
        900,
        sent=False,
    )

    assert [(one.service, one.answered_ns, str(one.outcome)) for one in seen.all()] == [
        ("mdns", 900, "answered")
    ]


@pytest.mark.parametrize(
    ("name", "server", "service"),
    [
        ("printer.local.", GROUP, "mdns"),
        ("printer.local.", OTHER, "mdns"),
        ("api.shop.example.", GROUP, "mdns"),
        ("api.shop.example.", OTHER, "dns"),  # such as CoreDNS in OpenShift
    ],
)
def test_a_resolver_on_the_port_of_multicast_dns_is_a_resolver(name: str, server: str, service: str) -> None:
    seen = queries()

    seen.said(ends(server=server, server_port=5353), query(name), 0, sent=True)

    assert [one.service for one in seen.all()] == [service]


def test_of_what_the_link_is_asked_only_what_is_answered_here_is_told() -> None:
    seen = queries()
    heard = seen_by_server(ends(server=GROUP, server_port=5353, port=5353))

    seen.said(heard, query("printer.local.", number=0), 0, sent=False)
    seen.said(heard, query("other.local.", number=0), 0, sent=False)
    reply = answer("x.local.", "A", "printer.local. 9 A 192.0.2.3", number=0, question=False)
    seen.said(ends(server=GROUP, server_port=5353, port=5353), reply, 900, sent=True)
    seen.expire(20 * SECOND)

    assert [(one.question.name, one.outgoing, one.answered_ns) for one in seen.all()] == [
        ("printer.local", False, 900)
    ]


class Counted(Question):
    """A question that counts how often it is compared."""

    times = 0

    def __eq__(self, other: object) -> bool:
        Counted.times += 1
        return tuple.__eq__(self, other)

    __hash__ = tuple.__hash__


def test_a_link_full_of_questions_makes_none_of_them_dearer() -> None:
    seen = queries()
    heard = seen_by_server(ends(server=GROUP, server_port=5353, port=5353))
    count = 2000

    for number in range(count):
        asked = replace(query(number=0), questions=(Counted(f"{number}.local", 1, 1),))
        seen.said(heard, asked, 0, sent=False)

    assert Counted.times < 10 * count


EVENTS = st.lists(
    st.tuples(st.booleans(), st.integers(0, 3), st.integers(0, 2), st.integers(0, 5)), max_size=60
)


@given(EVENTS)
def test_every_query_is_one_row_and_every_answer_ends_at_most_one(
    events: list[tuple[bool, int, int, int]],
) -> None:
    """The truth is a plain list: an answer ends the query of its ends and id that waits, if one does."""
    seen, now, waiting = queries(), 0, Counter[tuple[int, int]]()
    truth = Counter[str]()
    deadline: dict[tuple[int, int], int] = {}
    for is_query, port, number, pause_s in events:
        now += pause_s * SECOND
        key = (port, number)
        if waiting[key] and now - deadline[key] >= 15 * SECOND:
            waiting[key], truth["timeout"] = 0, truth["timeout"] + 1
        if is_query:
            waiting[key], deadline[key] = 1, now
            seen.said(ends(port=40_000 + port), query(number=number), now, sent=True)
        else:
            truth["answered" if waiting[key] else "unasked"] += 1
            waiting[key] = 0
            seen.said(ends(port=40_000 + port), answer(number=number), now, sent=False)
    now += 15 * SECOND
    seen.expire(now)
    truth["timeout"] += waiting.total()

    assert Counter(outcomes(seen)) + Counter(unasked=seen.account.unasked) == +truth
