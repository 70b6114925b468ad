"""What one asker sends until it has an answer is one row; what others send is not in it."""

from __future__ import annotations

from typing import Any

import dns.message
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import pandas as pd
import pytest
from asking import OTHER, SECOND, SERVER, answer, ends, query, seen_by_server

import netlab
from netlab.protocols.dns import names
from netlab.protocols.dns.message import read
from netlab.protocols.dns.queries import Queries
from netlab.protocols.dns.rows import Owner, frame
from netlab.protocols.dns.stats import dns_stats
from netlab.protocols.masking import masking

APP, CURL = Owner(100, "app", None), Owner(200, "curl", "c1")
OWNERS = {1: APP, 2: APP, 3: CURL}


def told(*said: tuple[Any, Any, float, bool], end_s: float = 0, **options: Any) -> pd.DataFrame:
    """Return the frame of messages: whose, what, when in seconds, and whether it was sent."""
    return frame(heard(*said, end_s=end_s).all(), owners=OWNERS, timeout_s=15, to_utc_ns=0, **options)


def heard(*said: tuple[Any, Any, float, bool], end_s: float = 0, **options: Any) -> Queries:
    seen = Queries(timeout_s=15, max_kept=1000, **options)
    for whose, message, at_s, sent in said:
        seen.said(whose, message, round(at_s * SECOND), sent=sent)
    seen.expire(round(end_s * SECOND))
    return seen


def column(rows: pd.DataFrame, *names: str) -> list[list[Any]]:
    part = rows[list(names)].astype(object)
    return part.where(part.notna(), None).to_numpy().tolist()


FIRST, AGAIN = ends(cookie=1), ends(cookie=2, port=40_001)
ELSEWHERE = ends(cookie=2, port=40_001, server=OTHER)
RETRIED = ["rcode", "retries", "latency_ms", "answer_ms", "server_address", "silent_servers"]


@pytest.mark.parametrize(
    ("second", "number", "row"),
    [
        (FIRST, 77, ["NOERROR", 1, 5020.0, 20.0, SERVER, None]),
        (AGAIN, 78, ["NOERROR", 1, 5020.0, 20.0, SERVER, SERVER]),
        (ELSEWHERE, 77, ["NOERROR", 1, 5020.0, 20.0, OTHER, SERVER]),
        (ELSEWHERE, 78, ["NOERROR", 1, 5020.0, 20.0, OTHER, SERVER]),
    ],
    ids=[
        "the same packet again",
        "a new socket and id",
        "another server, the same id",
        "another server and id",
    ],
)
def test_what_is_asked_again_after_a_silence_is_one_lookup(second: Any, number: int, row: list[Any]) -> None:
    rows = told(
        (FIRST, query(), 0, True),
        (second, query(number=number), 5, True),
        (second, answer(number=number), 5.02, False),
    )

    assert column(rows, *RETRIED) == [row]


def test_a_lookup_that_nobody_answers_is_one_timeout() -> None:
    rows = told((FIRST, query(), 0, True), (ELSEWHERE, query(number=78), 5, True), end_s=30)

    assert column(rows, *RETRIED) == [["timeout", 1, None, None, OTHER, SERVER]]


def test_two_servers_asked_at_once_are_one_lookup_of_the_first_answer() -> None:
    both = [ends(server=server) for server in (SERVER, OTHER)]

    rows = told(
        *((one, query(), 0, True) for one in both),
        (both[1], answer(), 0.01, False),
        (both[0], answer(rcode="SERVFAIL"), 0.02, False),
    )

    assert column(rows, "rcode", "retries", "server_address") == [["NOERROR", 1, OTHER]]


@pytest.mark.parametrize(
    ("whose", "number", "at_s"),
    [(AGAIN, 78, 0.01), (ends(cookie=3, port=40_001), 78, 5.0)],
    ids=["another thread", "another process"],
)
def test_what_others_ask_meanwhile_is_a_lookup_of_its_own(whose: Any, number: int, at_s: float) -> None:
    rows = told((FIRST, query(), 0, True), (whose, query(number=number), at_s, True), end_s=30)

    assert column(rows, "rcode", "retries") == [["timeout", 0]] * 2


def test_threads_that_wait_for_a_slow_server_are_lookups_each() -> None:
    sockets = [ends(port=40_000 + n) for n in range(4)]

    rows = told(
        *((one, query(number=n), n * 0.5, True) for n, one in enumerate(sockets)),
        *((one, answer(number=n), 3 + n * 0.5, False) for n, one in enumerate(sockets)),
    )

    assert column(rows, "latency_ms", "retries") == [[3000.0, 0]] * 4


def test_the_names_that_are_looked_up_again_after_an_answer_are_new_lookups() -> None:
    rows = told(
        (FIRST, query(), 0, True),
        (FIRST, answer(), 1, False),
        (FIRST, query(), 2, True),
        (FIRST, answer(), 3, False),
    )

    assert column(rows, "latency_ms", "retries") == [[1000.0, 0]] * 2


def test_a_truncated_answer_and_the_whole_one_over_tcp_are_one_row() -> None:
    tcp = ends(cookie=2, port=40_002, is_tcp=True)

    rows = told(
        (FIRST, query(), 0, True),
        (FIRST, answer(flags="QR TC"), 0.01, False),
        (tcp, query(number=78), 0.02, True),
        (tcp, answer("www.example.", "A", "www.example. 60 A 192.0.2.1", number=78), 0.05, False),
    )

    assert column(rows, "transport", "truncated", "retries", "latency_ms", "answers", "local_port") == [
        ["udp+tcp", "yes", 0, 50.0, "192.0.2.1", 40_002]
    ]


def test_an_answer_over_tcp_that_has_to_be_asked_for_again_took_a_retry() -> None:
    """Two datagrams, the second of which was answered by half, then two connections."""
    tcp = [ends(cookie=2, port=40_002 + n, is_tcp=True) for n in range(2)]

    rows = told(
        (FIRST, query(), 0, True),
        (FIRST._replace(local_port=40_001), query(), 5, True),
        (FIRST._replace(local_port=40_001), answer(flags="QR TC"), 5.01, False),
        (tcp[0], query(number=78), 5.02, True),
        (tcp[1], query(number=78), 10.02, True),
        (tcp[1], answer(number=78), 10.03, False),
    )

    assert column(rows, "transport", "retries", "rcode", "latency_ms") == [["udp+tcp", 2, "NOERROR", 10030.0]]


def test_a_lookup_that_was_asked_again_is_one_for_both_its_ends_whatever_each_took_for_its_answer() -> None:
    """The asker has given up its first socket when the server answers there, and then at the second."""
    first_there, again_there = (seen_by_server(one)._replace(cookie=9) for one in (FIRST, AGAIN))

    rows = told(
        (FIRST, query(), 0, True),
        (first_there, query(), 0, False),
        (AGAIN, query(), 2, True),
        (again_there, query(), 2, False),
        (first_there, answer(), 3, True),
        (again_there, answer(), 3, True),
        (AGAIN, answer(), 3.5, False),
    )

    assert column(rows.sort_values("direction"), "direction", "local_port", "remote_port", "retries") == [
        ["incoming", 53, 40_000, 1],
        ["outgoing", 40_001, 53, 1],
    ]
    assert set(rows["conversations"]) == {"192.0.2.10#40000>192.0.2.53#53 192.0.2.10#40001>192.0.2.53#53"}
    counted = dns_stats(rows)
    assert counted[["lookups", "retries", "wait_max_ms"]].to_numpy().tolist() == [[1, 1, 3500.0]]
    assert netlab.protocol_stats(rows)["requests"].tolist() == [1]


def test_a_truncated_answer_alone_is_an_answer() -> None:
    rows = told((FIRST, query(), 0, True), (FIRST, answer(flags="QR TC"), 0.01, False), end_s=30)

    assert column(rows, "rcode", "transport", "truncated", "latency_ms") == [["NOERROR", "udp", "yes", 10.0]]


CHAIN = (
    "www.example. 300 CNAME a.cdn.example.",
    "a.cdn.example. 20 CNAME b.cdn.example.",
    "b.cdn.example. 60 A 192.0.2.1",
    "b.cdn.example. 60 A 192.0.2.2",
    "stray.example. 1 A 192.0.2.9",
)


def test_a_chain_of_names_leads_to_the_answers() -> None:
    rows = told((FIRST, query(), 0, True), (FIRST, answer("www.example.", "A", *CHAIN), 1, False))

    assert column(rows, "name", "type", "cname", "answers", "ttl_s") == [
        ["www.example", "A", "a.cdn.example b.cdn.example", "192.0.2.1; 192.0.2.2", 20]
    ]


def test_a_chain_that_leads_back_to_itself_ends() -> None:
    loop = ("www.example. 60 CNAME a.example.", "a.example. 60 CNAME www.example.")

    rows = told((FIRST, query(), 0, True), (FIRST, answer("www.example.", "A", *loop), 1, False))

    assert column(rows, "cname", "answers") == [["a.example www.example", None]]


def test_both_ends_of_a_lookup_are_rows() -> None:
    there = seen_by_server(FIRST)._replace(cookie=3)

    rows = told(
        (FIRST, query(), 0, True),
        (there, query(), 0.1, False),
        (there, answer(), 0.2, True),
        (FIRST, answer(), 1, False),
    )

    columns = ["direction", "latency_ms", "server_address", "local_address", "pid", "process", "container"]
    assert column(rows, *columns) == [
        ["outgoing", 1000.0, SERVER, "192.0.2.10", 100, "app", None],
        ["incoming", 100.0, SERVER, SERVER, 200, "curl", "c1"],
    ]


def test_no_name_under_a_mask_is_in_a_frame() -> None:
    secret = tuple(record.replace("www.", "vault7.").replace("cdn", "vault7") for record in CHAIN)
    said = (
        (FIRST, query("vault7.example."), 0, True),
        (FIRST, answer("vault7.example.", "A", *secret), 1, False),
    )

    rows = told(*said, mask=masking(domains=["example"]).domain)
    shown = names.frame(sightings(*said), to_utc_ns=0, mask=masking(domains=["example"]).domain)

    assert column(rows, "name", "cname", "answers") == [
        ["*.example", "*.example *.example", "192.0.2.1; 192.0.2.2"]
    ]
    assert "vault7" not in rows.to_csv() + shown.to_csv() + dns_stats(rows).to_csv()


def sightings(*said: tuple[Any, Any, float, bool]) -> pd.DataFrame:
    seen = names.Sightings(100)
    heard(*said, on_answer=seen.add)
    return names.table(seen.all(), OWNERS)


def connections(*rows: tuple[int, str, float | None]) -> pd.DataFrame:
    pids, addresses, opened_s = zip(*rows, strict=True)
    return pd.DataFrame(
        {
            "netns": pd.array([7] * len(rows), "Int64"),
            "pid": pd.array(pids, "Int64"),
            "remote_address": pd.array(addresses, "string"),
            "opened_at": pd.array(
                [pd.NaT if s is None else pd.Timestamp(round(s * SECOND), tz="UTC") for s in opened_s],
                "datetime64[ns, UTC]",
            ),
        }
    )


def looked_up(
    whose: Any, name: str, at_s: float, ttl: int = 300, number: int = 1
) -> list[tuple[Any, Any, float, bool]]:
    return [
        (whose, query(name, number=number), at_s, True),
        (whose, answer(name, "A", f"{name} {ttl} A 192.0.2.1", number=number), at_s, False),
    ]


def test_a_connection_has_the_name_that_its_process_saw_last_before() -> None:
    seen = sightings(
        *looked_up(ends(cookie=1), "one.example.", 10),
        *looked_up(ends(cookie=3), "two.example.", 20),
        *looked_up(ends(cookie=1), "three.example.", 30),
    )
    asked = connections(
        (100, "192.0.2.1", 40), (100, "192.0.2.1", 25), (200, "192.0.2.1", 40), (300, "192.0.2.1", 25),
        (100, "192.0.2.1", 5), (200, "192.0.2.1", 15), (100, "192.0.2.2", 40),
        (100, "192.0.2.1", None),
    )  # fmt: skip

    found = names.remote_names(asked, seen, to_utc_ns=0)

    assert found.astype(object).where(found.notna(), None).tolist() == [
        "three.example", "one.example", "two.example", "two.example", None, "one.example", None,
        None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("ttl", "opened_s", "known"), [(300, 309, True), (300, 311, False), (0, 69, True), (0, 71, False)]
)
def test_a_name_holds_for_its_time_to_live_and_a_minute_at_least(
    ttl: int, opened_s: float, known: bool
) -> None:
    seen = sightings(*looked_up(ends(), "one.example.", 10, ttl))

    found = names.remote_names(connections((100, "192.0.2.1", opened_s)), seen, to_utc_ns=0)

    assert found.notna().tolist() == [known]


def test_names_tell_the_way_from_each_name_to_its_addresses() -> None:
    seen = sightings(
        (FIRST, query(), 0, True),
        (FIRST, answer("www.example.", "A", *CHAIN), 1, False),
        (FIRST, query(number=2), 2, True),
        (FIRST, answer("www.example.", "A", *CHAIN[:-2], number=2), 3, False),
    )

    rows = names.frame(seen, to_utc_ns=0)

    assert column(rows, "address", "name", "cname", "answers", "process") == [
        ["192.0.2.1", "www.example", "a.cdn.example b.cdn.example", 2, "app"],
        ["192.0.2.2", "www.example", "a.cdn.example b.cdn.example", 1, "app"],
    ]


@pytest.mark.parametrize("rdclass", [dns.rdataclass.IN, dns.rdataclass.CH])
def test_a_record_that_holds_no_address_names_none(rdclass: dns.rdataclass.RdataClass) -> None:
    asked = dns.message.make_query("www.example.", "A", rdclass, id=77)
    told = dns.message.make_response(asked)
    data = b"\1\2\3" if rdclass == dns.rdataclass.IN else b"\1a\0\1\2"
    record = dns.rdata.GenericRdata(rdclass, dns.rdatatype.A, data)
    told.answer.append(dns.rrset.from_rdata("www.example.", 60, record))

    seen = sightings((FIRST, read(asked.to_wire()), 0, True), (FIRST, read(told.to_wire()), 1, False))

    assert seen.empty


def test_sightings_that_made_room_are_counted() -> None:
    seen = names.Sightings(1)

    heard(
        (FIRST, query(), 0, True), (FIRST, answer("www.example.", "A", *CHAIN), 1, False), on_answer=seen.add
    )

    assert ([one.address for one in seen.all()], seen.dropped) == (["192.0.2.2"], 1)


def test_stats_count_outcomes_and_tell_exact_quantiles() -> None:
    said = [
        each
        for n in range(1, 101)
        for each in ((FIRST, query(number=n), n, True), (FIRST, answer(number=n), n + n / 1000, False))
    ]
    failed = [
        (FIRST, query("no.example.", number=1), 200, True),
        (FIRST, answer("no.example.", number=1, rcode="NXDOMAIN"), 200.5, False),
        (FIRST, query("late.example.", number=2), 200, True),
        (ELSEWHERE, query("late.example.", number=2), 205, True),
        (ELSEWHERE, answer("late.example.", number=2, rcode="SERVFAIL"), 205.1, False),
        (FIRST, query("lost.example.", number=3), 200, True),
    ]
    rows = told(*said, *failed, end_s=300)

    each = dns_stats(rows).set_index("name")
    servers = dns_stats(rows, by=["server_address"]).set_index("server_address")

    assert each.loc["www.example", ["lookups", "noerror", "p50_ms", "max_ms"]].tolist() == [
        100,
        100,
        50.5,
        100.0,
    ]
    assert each.loc["no.example", ["lookups", "nxdomain"]].tolist() == [1, 1]
    assert servers.loc[SERVER, ["lookups", "timeouts", "passed_over"]].tolist() == [102, 1, 1]
    assert servers.loc[OTHER, ["lookups", "servfail", "retries", "p50_ms", "wait_max_ms"]].tolist() == [
        1, 1, 1, 100.0, 5100.0,
    ]  # fmt: skip


def test_a_server_that_never_answers_is_counted_although_no_row_is_its_own() -> None:
    rows = told((FIRST, query(), 0, True), (ELSEWHERE, query(), 5, True), (ELSEWHERE, answer(), 5.1, False))

    servers = dns_stats(rows, by="server_address").set_index("server_address")

    assert servers.loc[SERVER, ["lookups", "passed_over"]].tolist() == [0, 1]


def test_counts_have_the_columns_they_were_asked_by_and_no_others() -> None:
    counted = dns_stats(told((FIRST, query(), 0, True), (FIRST, answer(), 1, False)), by=["type", "name"])

    assert counted.columns[:3].tolist() == ["type", "name", "lookups"]
