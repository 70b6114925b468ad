from __future__ import annotations

import dataclasses
import itertools
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import psycopg
import pytest
from databases import PROGRAMS, postgres
from hypothesis import given, settings, strategies as st
from overheard import Heard, cut, overhearing, read

from netlab.protocols.dialog import Exchange, Outcome, Side, is_done
from netlab.protocols.postgres import Postgres
from netlab.protocols.sqlstates import SQLSTATES

LITERAL = "hunter2"
Row = tuple[
    str | None, str | None, str | None, str | None, int | None
]  # operation, table, status, error, records


def rows(exchanges: list[Exchange]) -> list[Row]:
    return [(e.operation, e.resource, e.status, e.error, e.records) for e in exchanges]


def simple(connection: psycopg.Connection) -> list[Row]:
    with psycopg.ClientCursor(connection) as cursor:
        cursor.execute("CREATE TABLE orders (id int PRIMARY KEY, name text)")
        cursor.execute("INSERT INTO orders VALUES (1, %s), (2, 'b'), (3, 'c')", [LITERAL])
        cursor.execute("UPDATE orders SET name = 'x' WHERE id > 1")
        cursor.execute("SELECT id FROM orders; DELETE FROM orders WHERE id = 3")
    return [
        ("CREATE", "orders", "OK", None, None),
        ("INSERT", "orders", "OK", None, 3),
        ("UPDATE", "orders", "OK", None, 2),
        ("SELECT", "orders", "OK", None, 3),
        ("DELETE", "orders", "OK", None, 1),
    ]


def extended(connection: psycopg.Connection) -> list[Row]:
    connection.execute("CREATE TABLE carts (id int)")
    for number in range(7):  # prepared from the sixth execution on
        connection.execute("INSERT INTO carts VALUES (%s)", [number], prepare=number > 4)
    assert connection.execute("SELECT * FROM carts c JOIN pg_class p ON p.oid = c.id").rowcount == 0
    once = ("INSERT", "carts", "OK", None, 1)
    return [
        ("CREATE", "carts", "OK", None, None),
        *[once] * 5,
        ("PREPARE", "carts", "OK", None, None),
        *[once] * 2,
        ("SELECT", "carts, pg_class", "OK", None, 0),
    ]


def errors(connection: psycopg.Connection) -> list[Row]:
    connection.execute("CREATE TABLE keys (id int PRIMARY KEY)")
    with connection.transaction():
        connection.execute("INSERT INTO keys VALUES (%s)", [1])
    with pytest.raises(psycopg.errors.UniqueViolation), connection.transaction():
        connection.execute("INSERT INTO keys VALUES (%s)", [1])
    with pytest.raises(psycopg.errors.UndefinedTable):
        connection.execute("SELECT * FROM nowhere")
    connection.autocommit = False
    with pytest.raises(psycopg.errors.DivisionByZero):
        connection.execute("SELECT 1 / 0")
    with pytest.raises(psycopg.errors.InFailedSqlTransaction):
        connection.execute("SELECT 1")
    connection.rollback()
    return [
        ("CREATE", "keys", "OK", None, None),
        ("BEGIN", None, "OK", None, None),
        ("INSERT", "keys", "OK", None, 1),
        ("COMMIT", None, "OK", None, None),
        ("BEGIN", None, "OK", None, None),
        ("INSERT", "keys", "23505", "unique_violation", None),
        ("ROLLBACK", None, "OK", None, None),
        ("SELECT", "nowhere", "42P01", "undefined_table", None),
        ("BEGIN", None, "OK", None, None),
        ("SELECT", None, "22012", "division_by_zero", None),
        ("SELECT", None, "25P02", "in_failed_sql_transaction", None),
        ("ROLLBACK", None, "OK", None, None),
    ]


def pipelined(connection: psycopg.Connection) -> list[Row]:
    connection.execute("CREATE TABLE steps (id int PRIMARY KEY)")
    with connection.pipeline() as pipeline:
        for number in range(3):
            connection.execute("INSERT INTO steps VALUES (%s)", [number])
            pipeline.sync()
    with suppress(psycopg.errors.UniqueViolation), connection.pipeline():
        connection.execute("INSERT INTO steps VALUES (%s)", [1])
        connection.execute("SELECT * FROM steps WHERE id = %s", [1])
    return [
        ("CREATE", "steps", "OK", None, None),
        *[("INSERT", "steps", "OK", None, 1)] * 3,
        ("INSERT", "steps", "23505", "unique_violation", None),
        ("SELECT", "steps", None, "pipeline_aborted", None),
    ]


def copied(connection: psycopg.Connection) -> list[Row]:
    connection.execute("CREATE TABLE bulk (id int, name text)")
    with connection.cursor() as cursor:
        with cursor.copy("COPY bulk FROM STDIN") as copy:
            for number in range(1000):
                copy.write_row((number, LITERAL * 20))
        with cursor.copy("COPY bulk TO STDOUT") as copy:
            assert sum(1 for _ in copy.rows()) == 1000
        with suppress(psycopg.errors.QueryCanceled), cursor.copy("COPY bulk FROM STDIN") as copy:
            copy.write_row((1, "a"))
            raise psycopg.errors.QueryCanceled
    with psycopg.ServerCursor(connection, "c") as cursor:
        connection.autocommit = False
        cursor.execute("SELECT id FROM bulk ORDER BY id")
        assert len(cursor.fetchmany(10)) == 10
    connection.commit()
    return [
        ("CREATE", "bulk", "OK", None, None),
        ("COPY", "bulk", "OK", None, 1000),
        ("COPY", "bulk", "OK", None, 1000),
        ("COPY", "bulk", "57014", "query_canceled", None),
        ("BEGIN", None, "OK", None, None),
        ("DECLARE", None, "OK", None, None),
        ("DESCRIBE", None, "OK", None, None),
        ("FETCH", None, "OK", None, 10),
        ("CLOSE", None, "OK", None, None),
        ("COMMIT", None, "OK", None, None),
    ]


TALKS: dict[str, Callable[[psycopg.Connection], list[Row]]] = {
    talk.__name__: talk for talk in (simple, extended, errors, pipelined, copied)
}


@dataclasses.dataclass
class Talk:
    heard: Heard
    truth: list[Row]


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    with postgres() as port:
        yield port


@pytest.fixture(scope="module")
def talks(server: int) -> dict[str, Talk]:
    held = {}
    for name, talk in TALKS.items():
        with overhearing(server) as through:
            options = {"host": "127.0.0.1", "port": through.port, "user": "postgres", "sslmode": "disable"}
            with psycopg.connect(**options, autocommit=True) as connection:
                truth = talk(connection)
        held[name] = Talk(through.whole(1)[0], [("CONNECT", "postgres", "OK", None, None), *truth])
    return held


@pytest.mark.parametrize("name", TALKS)
def test_rows_are_what_the_client_asked_and_got(talks: dict[str, Talk], name: str) -> None:
    dialog = Postgres()

    exchanges = read(dialog, talks[name].heard)

    assert rows(exchanges) == talks[name].truth
    assert {e.outcome for e in exchanges} == {Outcome.ANSWERED}
    assert {e.version for e in exchanges} == {"3.0"}
    assert dialog.unread_bytes == 0
    assert LITERAL not in repr(exchanges)


@pytest.mark.parametrize("name", TALKS)
def test_times_and_bytes_are_those_of_the_messages(talks: dict[str, Talk], name: str) -> None:
    exchanges = read(Postgres(), talks[name].heard)
    client, server = (b"".join(data for who, data, _ in talks[name].heard if who is side) for side in Side)

    for e in exchanges:
        assert e.answered_ns is not None
        assert e.ended_ns is not None
        assert e.requested_ns <= e.answered_ns <= e.ended_ns
    syncs = 5 * (client.count(b"S\0\0\0\x04") + client.count(b"H\0\0\0\x04"))  # and Flush
    asked = sum(e.request_bytes or 0 for e in exchanges)
    assert asked + syncs + 5 == len(client)  # and Terminate
    assert sum(e.response_bytes or 0 for e in exchanges) <= len(server)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_it_does_not_matter_where_segments_end(talks: dict[str, Talk], data: st.DataObject) -> None:
    talk = talks[data.draw(st.sampled_from(sorted(TALKS)))]
    sizes = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=5))

    assert rows(read(Postgres(), cut(talk.heard, sizes))) == talk.truth


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_what_was_not_seen_costs_rows_and_makes_none_wrong(
    talks: dict[str, Talk], data: st.DataObject
) -> None:
    talk = talks[data.draw(st.sampled_from(sorted(TALKS)))]
    said = talk.heard
    first = data.draw(st.integers(0, len(said) - 1))
    count = data.draw(st.integers(1, 3))
    told = data.draw(st.booleans())
    dialog = Postgres()
    found = []

    for index, (side, what, at) in enumerate(said):
        if first <= index < first + count:
            found += dialog.missed(side, len(what) if told else None, at)
        else:
            found += dialog.said(side, what, at)
    found += dialog.ended(0)

    answered = [row for row, e in zip(rows(found), found, strict=True) if e.outcome is Outcome.ANSWERED]
    assert is_part(answered, talk.truth)


@pytest.mark.parametrize("name", TALKS)
def test_a_reader_that_begins_anywhere_tells_only_what_is_so(talks: dict[str, Talk], name: str) -> None:
    talk = talks[name]
    for begin in range(1, len(talk.heard)):
        found = read(Postgres(whole=False), talk.heard[begin:])

        assert is_part(
            [row for row, e in zip(rows(found), found, strict=True) if e.outcome == "answered"], talk.truth
        )


def is_part(some: list[Row], truth: list[Row]) -> bool:
    """Say whether *some* are rows of *truth* in their order, a statement prepared unseen having no table."""
    rest = iter(truth)
    return all(any(alike(row, other) for other in rest) for row in some)


def alike(row: Row, other: Row) -> bool:
    if row[0] is None and row[3]:  # its statement was prepared unseen, and an error does not name it
        return row[2:4] == other[2:4]
    return (
        row[0] == other[0]
        and row[1] in {other[1], None}
        and row[2:4] == other[2:4]
        and row[4] in {other[4], None}
    )


def test_a_reader_that_joins_in_begins_with_the_first_whole_statement(talks: dict[str, Talk]) -> None:
    talk = talks["simple"]
    said = talk.heard
    begin = next(i for i, (side, what, _) in enumerate(said) if side is Side.CLIENT and b"INSERT" in what)

    found = read(Postgres(whole=False), said[begin:])

    assert rows(found) == talk.truth[2:]


def test_answers_to_what_was_not_seen_are_nobodys(talks: dict[str, Talk]) -> None:
    talk = talks["simple"]
    turns = [list(turn) for _, turn in itertools.groupby(talk.heard, lambda said: said[0])]
    begin = next(i for i, turn in enumerate(turns) if b"INSERT" in turn[0][1])
    answered, then, answered_then = turns[begin + 1 : begin + 4]
    dialog = Postgres(whole=False)

    found = [one for said in (*then, *answered, *answered_then) for one in dialog.said(*said)]  # asked before
    found += dialog.ended(0)

    assert [(one.outcome, one.status) for one in found] == [(Outcome.MISSED, None)]


def test_an_error_that_may_be_another_statements_is_not_that_of_one_that_is_missed() -> None:
    dialog = Postgres(whole=False)
    error = b"SERROR\0C23505\0Mtaken\0\0"
    heard = [
        (Side.CLIENT, b"Q" + (13).to_bytes(4, "big") + b"select 1\0", 1),
        (Side.SERVER, b"E" + (4 + len(error)).to_bytes(4, "big") + error, 2),
    ]

    found = [one for said in heard for one in dialog.said(*said)] + dialog.ended(3)

    assert [(one.operation, one.outcome) for one in found] == [("SELECT", Outcome.MISSED)]
    assert (found[0].status, found[0].error, found[0].answered_ns) == (None, None, None)


def test_messages_that_look_whole_and_are_not_are_read_once() -> None:
    dialog = Postgres(whole=False)
    query, sync_with_a_body = b"Q\0\0\0\x05\0", b"S\0\0\0\x05\0"

    over = dialog.said(Side.CLIENT, query + sync_with_a_body, 1)

    assert [one.outcome for one in over] == [Outcome.MISSED]
    assert dialog.unread_bytes == len(query + sync_with_a_body)


def test_a_statement_that_was_prepared_unseen_has_its_command_from_the_answer(talks: dict[str, Talk]) -> None:
    said = talks["extended"].heard
    prepared = next(i for i, (side, what, _) in enumerate(said) if side is Side.CLIENT and b"_pg3_0" in what)
    begin = next(i for i, (side, _, _) in enumerate(said) if i > prepared and side is Side.CLIENT)

    found = read(Postgres(whole=False), said[begin:])

    assert ("INSERT", None, "OK", None, 1) in rows(found)


def test_an_unanswered_statement_is_pending_and_then_unanswered(talks: dict[str, Talk]) -> None:
    said = talks["simple"].heard
    last = max(i for i, (side, what, _) in enumerate(said) if side is Side.CLIENT and b"SELECT" in what)
    dialog = Postgres()
    for side, what, at in said[: last + 1]:
        dialog.said(side, what, at)

    assert [e.outcome for e in dialog.pending()] == [Outcome.PENDING]
    assert [e.outcome for e in dialog.ended(0)] == [Outcome.UNANSWERED]


def test_a_refused_password_is_a_failed_connect(server: int) -> None:
    with overhearing(server) as through:
        connect = partial(
            psycopg.connect, host="127.0.0.1", port=through.port, user="postgres", sslmode="disable"
        )
        with pytest.raises(psycopg.OperationalError):
            connect(dbname="nowhere")

    found = read(Postgres(), through.whole(1)[0])

    assert rows(found) == [("CONNECT", "nowhere", "3D000", "invalid_catalog_name", None)]


def test_a_deferred_constraint_fails_the_sync_that_commits(server: int) -> None:
    with overhearing(server) as through:
        options = {"host": "127.0.0.1", "port": through.port, "user": "postgres", "sslmode": "disable"}
        with psycopg.connect(**options, autocommit=True) as connection:
            connection.execute("CREATE TABLE late (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
            with pytest.raises(psycopg.errors.UniqueViolation):
                connection.execute("INSERT INTO late VALUES (%s), (%s)", [1, 1])

    found = read(Postgres(), through.whole(1)[0])

    assert rows(found)[2:] == [
        ("INSERT", "late", "OK", None, 2),
        ("SYNC", None, "23505", "unique_violation", None),
    ]


STARTUP = b"\0\0\0\x10\0\3\0\0user\0a\0\0"
READY = b"Z\0\0\0\5I"


def pg(kind: str, body: bytes = b"") -> bytes:
    return kind.encode() + (4 + len(body)).to_bytes(4, "big") + body


EXECUTE = pg("P", b"\0SELECT 1 FROM t\0\0\0") + pg("B", b"\0\0\0\0\0\0\0\0") + pg("E", b"\0\0\0\0\0")
EXECUTED = pg("1") + pg("2") + pg("C", b"SELECT 1\0")


def started() -> Postgres:
    dialog = Postgres()
    dialog.said(Side.CLIENT, STARTUP, 1)
    dialog.said(Side.SERVER, pg("R", bytes(4)) + READY, 2)
    return dialog


def test_a_notification_is_no_answer() -> None:
    dialog = started()

    dialog.said(Side.CLIENT, pg("Q", b"SELECT 1\0"), 10)
    dialog.said(Side.SERVER, pg("A", b"\0\0\0\1news\0\0"), 11)  # said before the query came
    (one,) = dialog.said(Side.SERVER, pg("C", b"SELECT 1\0") + READY, 20)

    assert (one.answered_ns, one.response_bytes) == (20, 14 + 6)


def test_what_comes_before_a_query_in_the_pipeline_is_answered_before_it() -> None:
    dialog = started()
    heard = [(Side.CLIENT, pg("P", b"s\0SELECT 1\0\0\0") + pg("Q", b"SELECT 2\0"), 10)]
    heard += [(Side.SERVER, pg("1"), 11), (Side.SERVER, pg("C", b"SELECT 1\0") + READY, 12)]

    found = read(dialog, heard)

    assert [(one.operation, one.answered_ns) for one in found] == [("PREPARE", 11), ("SELECT", 12)]


def parse(name: bytes, statement: bytes) -> bytes:
    return pg("P", name + b"\0" + statement + bytes(3))


def bind(statement: bytes, portal: bytes = b"") -> bytes:
    return pg("B", portal + b"\0" + statement + bytes(7))


def execute(portal: bytes = b"") -> bytes:
    return pg("E", portal + bytes(5))


def failed(code: bytes) -> bytes:
    return pg("E", b"SERROR\0C" + code + bytes(2))


def done(tag: bytes) -> bytes:
    return pg("C", tag + b"\0")


SYNC, OPEN = pg("S"), b"Z\0\0\0\5T"  # in a transaction
PARSED, BOUND, CLOSED = pg("1"), pg("2"), pg("3")
A, B = parse(b"s", b"SELECT 1 FROM a") + SYNC, parse(b"s", b"DELETE FROM b") + SYNC
RUN, RAN = bind(b"s") + execute() + SYNC, BOUND + done(b"SELECT 1") + READY
UNNAMED = bind(b"") + execute() + SYNC
NOT_THERE = failed(b"26000") + READY
CURSOR = (b"DECLARE c CURSOR FOR SELECT 1 FROM b", b"DECLARE CURSOR")
Turns = list[tuple[bytes, bytes]]  # what the client asks, and the server's answer


def in_sql(statement: bytes, tag: bytes, ready: bytes = READY) -> tuple[bytes, bytes]:
    return pg("Q", statement + b"\0"), done(tag) + ready


NAMED: dict[str, tuple[Turns, Row]] = {  # and the last row
    "a name that is taken": (
        [(A, PARSED + READY), (B, failed(b"42P05") + READY), (RUN, RAN)],
        ("SELECT", "a", "OK", None, 1),
    ),
    "a name that is given anew": (
        [(A, PARSED + READY), (pg("C", b"Ss\0") + B, CLOSED + PARSED + READY), (RUN, RAN)],
        ("DELETE", "b", "OK", None, 1),
    ),
    "a name that was closed": (
        [(A, PARSED + READY), (pg("C", b"Ss\0") + SYNC, CLOSED + READY), (RUN, NOT_THERE)],
        (None, None, "26000", "invalid_sql_statement_name", None),
    ),
    "another that was closed": (
        [(A, PARSED + READY), (pg("C", b"Sx\0") + pg("C", b"Ps\0") + SYNC, CLOSED * 2 + READY), (RUN, RAN)],
        ("SELECT", "a", "OK", None, 1),
    ),
    "no name, behind another without": (
        [
            (parse(b"", b"SELECT 1 FROM a") + SYNC, PARSED + READY),
            (parse(b"", b"DELET FROM b") + SYNC, failed(b"42601") + READY),
            (UNNAMED, NOT_THERE),
        ],
        (None, None, "26000", "invalid_sql_statement_name", None),
    ),
    "no name, behind a failure with a name": (
        [
            (parse(b"", b"SELECT 1 FROM a") + SYNC, PARSED + READY),
            (B, failed(b"42P05") + READY),
            (UNNAMED, RAN),
        ],
        ("SELECT", "a", "OK", None, 1),
    ),
    "no name, behind a simple query": (
        [
            (parse(b"", b"SELECT 1 FROM a") + SYNC, PARSED + READY),
            in_sql(b"SELECT 1", b"SELECT 1"),
            (UNNAMED, NOT_THERE),
        ],
        (None, None, "26000", "invalid_sql_statement_name", None),
    ),
    "deallocated and prepared in SQL": (
        [
            (A, PARSED + READY),
            (
                pg("Q", b"DEALLOCATE s; PREPARE s AS DELETE FROM b\0"),
                done(b"DEALLOCATE") + done(b"PREPARE") + READY,
            ),
            (RUN, BOUND + done(b"DELETE 1") + READY),
        ],
        ("DELETE", None, "OK", None, 1),
    ),
    "deallocated, and who knows what": (
        [(A, PARSED + READY), in_sql(b'/* x */ DEALLOCATE U&"s"', b"DEALLOCATE"), (RUN, NOT_THERE)],
        (None, None, "26000", "invalid_sql_statement_name", None),
    ),
    "another deallocated": (
        [(A, PARSED + READY), in_sql(b"deallocate Prepare _PG3_0;", b"DEALLOCATE"), (RUN, RAN)],
        ("SELECT", "a", "OK", None, 1),
    ),
    "deallocated by an execute": (
        [
            (A, PARSED + READY),
            (
                parse(b"", b"DEALLOCATE S") + bind(b"") + execute() + SYNC,
                PARSED + BOUND + done(b"DEALLOCATE") + READY,
            ),
            (RUN, NOT_THERE),
        ],
        (None, None, "26000", "invalid_sql_statement_name", None),
    ),
    "not deallocated": (
        [(A, PARSED + READY), (pg("Q", b"DEALLOCATE ALL\0"), failed(b"42501") + READY), (RUN, RAN)],
        ("SELECT", "a", "OK", None, 1),
    ),
    "discarded": (
        [(A, PARSED + READY), in_sql(b"DISCARD ALL", b"DISCARD ALL"), (RUN, NOT_THERE)],
        (None, None, "26000", "invalid_sql_statement_name", None),
    ),
    "a transaction that was prepared, or rolled back": (
        [
            (A, PARSED + READY),
            in_sql(b"PREPARE TRANSACTION 'x'", b"PREPARE TRANSACTION"),
            in_sql(b"ROLLBACK", b"ROLLBACK"),
            (RUN, RAN),
        ],
        ("SELECT", "a", "OK", None, 1),
    ),
    "a portal in its transaction": (
        [
            (A, PARSED + OPEN),
            (bind(b"s", b"c") + SYNC, BOUND + OPEN),
            (execute(b"c") + SYNC, done(b"SELECT 1") + OPEN),
        ],
        ("SELECT", "a", "OK", None, 1),
    ),
    "a portal whose name is taken": (
        [
            (A, PARSED + OPEN),
            (bind(b"s", b"c") + SYNC, BOUND + OPEN),
            (
                parse(b"t", b"TABLE b") + bind(b"t", b"c") + execute(b"c") + SYNC,
                PARSED + failed(b"42P03") + OPEN,
            ),
            (execute(b"c") + SYNC, done(b"SELECT 1") + OPEN),
        ],
        ("SELECT", "a", "OK", None, 1),
    ),
    "a portal behind its transaction": (
        [
            (A, PARSED + OPEN),
            (bind(b"s", b"c") + SYNC, BOUND + OPEN),
            in_sql(b"COMMIT", b"COMMIT"),
            in_sql(*CURSOR, OPEN),
            (execute(b"c") + SYNC, done(b"SELECT 1") + OPEN),
        ],
        ("SELECT", None, "OK", None, 1),
    ),
    "a portal that a cursor replaced": (
        [
            (A, PARSED + OPEN),
            (bind(b"s", b"c") + SYNC, BOUND + OPEN),
            (pg("Q", b"CLOSE c; " + CURSOR[0] + b"\0"), done(b"CLOSE CURSOR") + done(CURSOR[1]) + OPEN),
            (execute(b"c") + SYNC, done(b"SELECT 1") + OPEN),
        ],
        ("SELECT", None, "OK", None, 1),
    ),
}


@pytest.mark.parametrize("is_at_once", [False, True], ids=["one after another", "at once"])
@pytest.mark.parametrize("name", NAMED)
def test_a_name_stands_for_what_the_server_took_it_for(name: str, *, is_at_once: bool) -> None:
    turns, row = NAMED[name]
    said = turns
    if is_at_once:
        said = [(b"".join(asked for asked, _ in turns), b"".join(answer for _, answer in turns))]
    heard = [
        (side, data, at) for at, both in enumerate(said, 10) for side, data in zip(Side, both, strict=True)
    ]

    for pieces in (heard, cut(heard, [1])):
        dialog = started()
        found = [one for said in pieces for one in dialog.said(*said)]

        assert rows(found)[-1] == row
        assert {one.outcome for one in found} == {Outcome.ANSWERED}
        assert dialog.unread_bytes == 0


def test_what_waits_is_named_by_what_is_sure() -> None:
    dialog = started()
    heard = [(Side.CLIENT, A, 10), (Side.SERVER, PARSED + READY, 11), (Side.CLIENT, B + RUN, 12)]
    names = []

    for said in (*heard, (Side.SERVER, failed(b"42P05") + READY, 13)):
        dialog.said(*said)
        names.append([(one.operation, one.resource) for one in dialog.pending()])

    assert names[2:] == [[("PREPARE", "b"), (None, None)], [("SELECT", "a")]]


def test_a_parse_that_was_missed_may_have_given_any_name() -> None:
    dialog = started()
    for side, data in ((Side.CLIENT, A), (Side.SERVER, PARSED + READY), (Side.CLIENT, B[:5])):
        dialog.said(side, data, 10)
    dialog.missed(Side.CLIENT, len(B) - 5 - len(SYNC), 11)
    dialog.said(Side.CLIENT, SYNC, 12)
    dialog.said(Side.SERVER, PARSED + READY, 12)
    dialog.said(Side.CLIENT, RUN, 13)

    (one,) = dialog.said(Side.SERVER, BOUND + done(b"DELETE 1") + READY, 14)

    assert (one.operation, one.resource) == ("DELETE", None)


@pytest.mark.parametrize(
    ("seen", "operation", "resource"),
    [
        (b"SELECT * FROM ord", "SELECT", None),
        (b"SELECT * FROM a, shop.ord", "SELECT", "a"),
        (b"TRUNCATE shop.", "TRUNCATE", None),
        (b"TRUNCATE caf\xc3", "TRUNCATE", None),
        (b"DELETE FROM orders WHERE x = 'y", "DELETE", "orders"),
    ],
)
def test_a_word_that_was_not_seen_to_its_end_names_no_table(
    seen: bytes, operation: str, resource: str | None
) -> None:
    dialog = started()
    dialog.said(Side.CLIENT, b"Q" + (4 + len(seen) + 9).to_bytes(4, "big") + seen, 10)
    dialog.missed(Side.CLIENT, 9, 11)

    (one,) = dialog.said(Side.SERVER, done(operation.encode()) + READY, 12)

    assert (one.operation, one.resource) == (operation, resource)


def test_statements_that_a_client_drops_cost_the_others_nothing(server: int) -> None:
    with overhearing(server) as through:
        options = {"host": "127.0.0.1", "port": through.port, "user": "postgres", "sslmode": "disable"}
        with psycopg.connect(**options, autocommit=True) as connection:
            connection.prepared_max = 2
            for number in range(8):
                connection.execute("SELECT 1 FROM pg_class LIMIT 1", prepare=True)
                connection.execute(f"SELECT {number} FROM pg_index LIMIT 1", prepare=True)  # noqa: S608

    found = read(Postgres(), through.whole(1)[0])

    assert [row for row in rows(found) if row[0] == "SELECT"] == [
        ("SELECT", "pg_class", "OK", None, 1),
        ("SELECT", "pg_index", "OK", None, 1),
    ] * 8


FATAL = pg("E", b"SFATAL\0C57P01\0Mterminating connection due to administrator command\0\0")


@pytest.mark.parametrize(
    ("asked", "answered", "row"),
    [
        (pg("Q", b"SELECT 1 FROM t\0"), b"", ("SELECT", "t")),
        (pg("Q", b"SELECT 1 FROM t\0"), pg("T", b"\0\0"), ("SELECT", "t")),
        (pg("F", bytes(12)), b"", ("CALL", None)),
        (EXECUTE + pg("S"), b"", ("SELECT", "t")),
        (EXECUTE + pg("S"), EXECUTED, ("SYNC", None)),  # while it commits
    ],
    ids=["a query", "a query with an answer so far", "a function call", "an execute", "a sync"],
)
def test_a_server_that_ends_the_connection_answers_what_waits(
    asked: bytes, answered: bytes, row: tuple[str, str | None]
) -> None:
    dialog = started()
    heard = [(Side.CLIENT, asked, 10), (Side.SERVER, answered, 11), (Side.SERVER, FATAL, 12)]

    found = read(dialog, heard)[-1]

    assert (found.operation, found.resource) == row
    assert (found.outcome, found.status, found.error) == (Outcome.ANSWERED, "57P01", "admin_shutdown")
    assert found.ended_ns == 12


def test_what_was_asked_behind_a_fatal_answer_is_unanswered() -> None:
    dialog = started()
    heard = [
        (Side.CLIENT, pg("Q", b"SELECT 1\0") + pg("Q", b"DELETE FROM t\0"), 10),
        (Side.SERVER, FATAL, 12),
    ]

    found = read(dialog, heard)

    assert [(one.outcome, one.status) for one in found] == [
        (Outcome.ANSWERED, "57P01"),
        (Outcome.UNANSWERED, None),
    ]


@pytest.mark.parametrize(
    "asked", [pg("Q", b"DELETE FROM t\0"), EXECUTE + pg("S")], ids=["simple", "extended"]
)
def test_what_met_a_connection_that_the_server_had_closed_has_its_reason(asked: bytes) -> None:
    dialog = started()

    (found, *_) = read(dialog, [(Side.SERVER, FATAL, 10), (Side.CLIENT, asked, 20)])

    assert (found.outcome, found.status, found.error) == (Outcome.UNANSWERED, "57P01", "admin_shutdown")
    assert (found.requested_ns, found.answered_ns, found.ended_ns) == (20, None, None)


def test_a_failure_that_comes_before_the_statement_is_said_in_whole_is_its_answer() -> None:
    with postgres() as port, overhearing(port) as through:
        parameters = {"host": "127.0.0.1", "port": through.port, "user": "postgres", "autocommit": True}
        with psycopg.connect(**parameters) as connection:
            with pytest.raises(psycopg.errors.UndefinedTable):
                connection.execute("INSERT INTO missing VALUES (%b)", [bytes(3_000_000)])
            connection.execute("SELECT 1 FROM pg_class LIMIT 1")

    found = read(Postgres(), through.whole(1)[0])

    assert [(one.outcome, *row) for one, row in zip(found, rows(found), strict=True)][1:] == [
        (Outcome.ANSWERED, "INSERT", "missing", "42P01", "undefined_table", None),
        (Outcome.ANSWERED, "SELECT", "pg_class", "OK", None, 1),
    ]


def test_a_statement_keeps_its_latency_when_more_of_its_rows_are_missed(talks: dict[str, Talk]) -> None:
    said = talks["simple"].heard
    asked = next(i for i, (side, what, _) in enumerate(said) if side is Side.CLIENT and b"SELECT" in what)
    side, answer, at_ns = said[asked + 1]
    dialog = Postgres()

    for one in said[: asked + 1]:
        dialog.said(*one)
    first = 1 + int.from_bytes(answer[1:5], "big")  # what the rows are; they follow
    dialog.said(side, answer[: first + 3], at_ns)
    dialog.missed(side, None, at_ns + 1)
    (found,) = dialog.pending()

    assert (found.operation, found.outcome, found.status) == ("SELECT", Outcome.MISSED, None)
    assert (found.answered_ns, found.ended_ns) == (at_ns, None)


@pytest.mark.parametrize("side", Side)
def test_a_gap_in_the_data_of_a_copy_costs_no_row(talks: dict[str, Talk], side: Side) -> None:
    talk, dialog, found = talks["copied"], Postgres(), list[Exchange]()

    for who, what, at_ns in talk.heard:
        if who is side and len(what) > 10_000:
            found += dialog.said(who, what[:100], at_ns)
            found += dialog.missed(who, len(what) - 200, at_ns)
            found += dialog.said(who, what[-100:], at_ns)
        else:
            found += dialog.said(who, what, at_ns)

    assert rows(found) == talk.truth
    assert {one.outcome for one in found} == {Outcome.ANSWERED}


ROWS = pg("T", b"\0\0") + pg("D", b"\0\0") * 3
BROKEN_OFF = pg("E", b"SERROR\0C57014\0Mcanceled\0\0")
ENDS = {
    "whole": (b"select 1;\0", pg("C", b"SELECT 9\0") + READY, ("answered", "OK", 9)),
    "one of several": (b"select 1; select 2\0", pg("C", b"SELECT 9\0") + READY, ("answered", "OK", None)),
    "an error": (b"select 1\0", BROKEN_OFF + READY, ("answered", "57014", None)),
    "not the end": (b"select 1\0", pg("D", b"\0\0"), ("missed", None, None)),
    "the end of something": (b"select 1\0", READY, ("missed", None, None)),
}


@pytest.mark.parametrize("name", ENDS)
def test_behind_rows_that_are_missed_the_last_words_tell_the_end(name: str) -> None:
    query, last, told = ENDS[name]
    dialog = started()

    found = read(dialog, [(Side.CLIENT, pg("Q", query), 10), (Side.SERVER, ROWS, 11)], ended=False)
    found += dialog.missed(Side.SERVER, 100_000, 12)
    found += read(dialog, [(Side.SERVER, b"rest" + last, 13), (Side.CLIENT, EXECUTE + pg("S"), 20)])

    assert (found[0].outcome, found[0].status, found[0].records) == told
    assert found[0].answered_ns == 11


def test_a_client_that_does_not_wait_proves_no_end() -> None:
    dialog = started()
    heard = [(Side.CLIENT, pg("Q", b"select 1\0"), 10), (Side.SERVER, ROWS, 11)]
    found = read(dialog, heard, ended=False) + dialog.missed(Side.SERVER, 100_000, 12)

    found += dialog.missed(Side.CLIENT, 50, 13)
    found += read(dialog, [(Side.SERVER, pg("C", b"SELECT 9\0") + READY, 14)])

    assert [(one.outcome, one.status) for one in found] == [(Outcome.MISSED, None)]


def test_a_sync_that_a_server_ignores_costs_what_waits_and_makes_no_wrong_row() -> None:
    dialog = started()
    heard = [(Side.CLIENT, pg("P", b"\0COPY t FROM STDIN\0\0\0") + pg("B", bytes(8)) + pg("E", bytes(5)), 10)]
    heard += [(Side.CLIENT, pg("H"), 10), (Side.SERVER, pg("1") + pg("2") + pg("G", b"\0\0\0"), 11)]
    heard += [(Side.CLIENT, pg("S") + pg("d", b"1\n") + pg("c") + pg("S"), 12)]  # the first while data come
    heard += [(Side.SERVER, pg("C", b"COPY 1\0") + READY, 13)]
    heard += [(Side.CLIENT, EXECUTE + pg("S"), 20), (Side.SERVER, EXECUTED + READY, 21)]
    heard += [(Side.CLIENT, EXECUTE + pg("S"), 30), (Side.SERVER, EXECUTED + READY, 31)]

    found = read(dialog, heard)

    assert [(one.operation, one.outcome, one.answered_ns) for one in found] == [
        ("COPY", Outcome.ANSWERED, 11),
        ("SELECT", Outcome.MISSED, None),
        ("SELECT", Outcome.ANSWERED, 31),
    ]


def test_a_cancel_request_is_answered_by_the_end_of_its_connection(server: int) -> None:
    with overhearing(server) as through:
        options = {"host": "127.0.0.1", "port": through.port, "user": "postgres", "sslmode": "disable"}
        with psycopg.connect(**options, autocommit=True) as connection:
            connection.cancel_safe(timeout=30)
    cancel = read(Postgres(), through.whole(2)[1])

    (one,) = cancel
    assert (one.operation, one.outcome, one.request_bytes) == ("CANCEL", Outcome.ANSWERED, 16)
    assert (one.status, one.error, one.answered_ns) == (None, None, one.ended_ns)


SEVERAL = {
    "a script": (
        "BEGIN; CREATE TABLE a (x int); INSERT INTO a VALUES (1), (2);; UPDATE a SET x = 3; COMMIT;",
        [
            ("BEGIN", None, "OK", None, None),
            ("CREATE", "a", "OK", None, None),
            ("INSERT", "a", "OK", None, 2),
            ("UPDATE", "a", "OK", None, 2),
            ("COMMIT", None, "OK", None, None),
        ],
    ),
    "one that fails": (
        "SELECT 1; SELECT * FROM nowhere; DELETE FROM pg_class",
        [("SELECT", None, "OK", None, 1), ("SELECT", "nowhere", "42P01", "undefined_table", None)],
    ),
    "one that cannot be parsed": (
        "SELECT 1; SELCT 2",
        [(None, None, "42601", "syntax_error", None)],
    ),
    "bodies with semicolons": (
        """CREATE TABLE b (x int); CREATE TABLE c (x int); INSERT INTO c SELECT length(';');
        CREATE RULE r AS ON INSERT TO b DO ALSO (DELETE FROM c; INSERT INTO c VALUES (2)); TABLE c""",
        [
            ("CREATE", "b", "OK", None, None),
            ("CREATE", "c", "OK", None, None),
            ("INSERT", "c", "OK", None, 1),
            ("CREATE", None, "OK", None, None),
            ("SELECT", "c", "OK", None, 1),
        ],
    ),
    "a function in SQL, behind which others are told by their answers": (
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END; SELECT FROM pg_class LIMIT 1",
        [("CREATE", None, "OK", None, None), ("SELECT", None, "OK", None, 1)],
    ),
    "a backslash, likewise": (
        "SELECT E'\\';'; TRUNCATE pg_class",
        [("SELECT", None, "OK", None, 1), (None, None, "42501", "insufficient_privilege", None)],
    ),
    "one that is longer than what is read": (
        f"SELECT '{'x' * 5000}'; LISTEN a",
        [("SELECT", None, "OK", None, 1), ("LISTEN", None, "OK", None, None)],
    ),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_statements_of_one_query_are_a_row_each(server: int, name: str) -> None:
    text, truth = SEVERAL[name]
    with overhearing(server) as relay:
        subprocess.run(
            ("psql", "-h", "127.0.0.1", "-p", str(relay.port), "-U", "postgres", "-c", text),
            env={**os.environ, "PGSSLMODE": "disable", "PGGSSENCMODE": "disable"},
            capture_output=True,
            check=False,
        )
        said = relay.whole(1)[0]
    found = read(Postgres(), said)

    assert rows(found)[1:] == truth
    client = sum(len(what) for side, what, _ in said if side is Side.CLIENT)
    assert sum(one.request_bytes or 0 for one in found) + 5 == client  # and Terminate


def test_a_base_backup_is_told_as_one(server: int) -> None:
    with overhearing(server) as relay:
        where = ("-h", "127.0.0.1", "-p", str(relay.port), "-U", "postgres")
        backup = (PROGRAMS[-1] / "pg_basebackup", *where, "-Ft", "-D", "-", "-X", "none", "-c", "fast")
        subprocess.run(backup, check=True, stdout=subprocess.DEVNULL)
        (heard,) = relay.whole(1)
    found = [
        one for one in read(Postgres(), heard) if one.operation not in {"CONNECT", "SHOW", "IDENTIFY_SYSTEM"}
    ]
    assert rows(found) == [("BASE_BACKUP", None, "OK", None, None)]
    assert found[0].ended_ns == max(at_ns for side, _, at_ns in heard if side is Side.SERVER)


def test_behind_the_beginning_of_replication_nothing_is_read() -> None:
    dialog = started()
    heard = [
        (Side.CLIENT, pg("Q", b"START_REPLICATION 0/1000000\0"), 10),
        (Side.SERVER, pg("W", bytes(3)), 11),
        (Side.CLIENT, pg("d", b"r" + bytes(33)), 12),
        (Side.SERVER, pg("d", b"w" + bytes(100)), 13),
    ]

    (found,) = read(dialog, heard)[-1:]

    assert (found.operation, found.status, found.answered_ns) == ("START_REPLICATION", "OK", 11)
    assert is_done(dialog)


def test_encryption_refused_goes_on_in_clear(server: int) -> None:
    with overhearing(server) as through:
        psycopg.connect(host="127.0.0.1", port=through.port, user="postgres", sslmode="prefer").close()

    assert rows(read(Postgres(), through.whole(1)[0])) == [("CONNECT", "postgres", "OK", None, None)]


def test_what_is_encrypted_is_counted_as_unread() -> None:
    dialog = Postgres()

    dialog.said(Side.CLIENT, b"\0\0\0\x08\x04\xd2\x16\x2f", 1)
    dialog.said(Side.SERVER, b"S", 2)
    dialog.said(Side.CLIENT, b"\x16\x03\x01" + bytes(500), 3)

    assert dialog.unread_bytes == 503
    assert dialog.ended(4) == []


def test_condition_names_are_the_servers_own() -> None:
    listed = Path("/usr/share/postgresql", PROGRAMS[-1].parent.name, "errcodes.txt").read_text().splitlines()
    fields = [line.split() for line in listed]
    named = {f[0]: f[3] for f in reversed(fields) if len(f) == 4 and f[1] in {"E", "W"} and len(f[0]) == 5}

    assert named.items() <= SQLSTATES.items()
