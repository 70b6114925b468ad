"""Joining closed attempts, open attempts and listed sockets: each socket is one row."""

from __future__ import annotations

import numpy as np
from attempts import attempts
from hypothesis import given, strategies as st

from netlab.tracer.layout import Direction, PidSource
from netlab.tracer.merge import merge
from netlab.tracer.snapshot import Snapshot

ESTABLISHED, CLOSED = 1, 7


def listed(*rows: dict[str, object]) -> Snapshot:
    records = attempts(*rows)
    inodes = np.arange(100, 100 + len(rows), dtype=np.uint64)
    return Snapshot(records, np.full(len(rows), ESTABLISHED, np.uint8), inodes, {}, [])


def test_a_socket_that_closed_while_it_was_read_counts_once() -> None:
    both = attempts({"socket": 1, "cookie": 5, "opened_ns": 10})

    table = merge(both, both, Snapshot.empty(), Snapshot.empty(), now_ns=0)

    assert table.states.tolist() == [CLOSED]


def test_a_socket_used_again_is_two_attempts() -> None:
    first = attempts({"socket": 1, "cookie": 5, "opened_ns": 10})
    second = attempts({"socket": 1, "cookie": 5, "opened_ns": 20})

    table = merge(first, second, Snapshot.empty(), Snapshot.empty(), now_ns=0)

    assert table.attempts["opened_ns"].tolist() == [10, 20]


def test_an_attempt_read_before_its_syn_and_again_when_it_closed_counts_once() -> None:
    asking = attempts(
        {"socket": 1, "cookie": 5, "opened_ns": 10, "unsent": 1},
        {"socket": 2, "cookie": 6, "opened_ns": 30, "unsent": 1},
    )
    closed = attempts(
        {"socket": 1, "cookie": 5, "opened_ns": 11, "closed_ns": 20},
        {"socket": 2, "cookie": 6, "opened_ns": 9, "closed_ns": 20},
    )

    table = merge(closed, asking, Snapshot.empty(), Snapshot.empty(), now_ns=0)

    assert table.attempts[["socket", "opened_ns"]].tolist() == [(1, 11), (2, 9), (2, 30)]


def test_a_socket_listed_before_that_closed_takes_its_owner_from_the_list() -> None:
    closed = attempts({"socket": 1, "cookie": 5, "bytes_sent": 9})
    before = listed({"cookie": 5, "pid": 42, "pid_source": PidSource.SOCKET, "direction": Direction.INCOMING})

    table = merge(closed, attempts(), before, Snapshot.empty(), now_ns=0)

    assert table.attempts["pid"].tolist() == [42]
    assert table.attempts["direction"].tolist() == [Direction.INCOMING]
    assert table.attempts["bytes_sent"].tolist() == [9]
    assert table.backfilled.tolist() == [True]


def test_a_socket_listed_and_seen_opening_is_live() -> None:
    opened = attempts({"socket": 1, "cookie": 5, "opened_ns": 10})

    table = merge(attempts(), opened, listed({"cookie": 5}), Snapshot.empty(), now_ns=0)

    assert table.backfilled.tolist() == [False]


def test_an_open_socket_without_a_cookie_is_found_by_its_tuple() -> None:
    tuple_ = {"netns": 7, "local_port": 1000, "remote_port": 80, "local_address": 1, "remote_address": 2}
    opened = attempts({"socket": 1, "opened_ns": 10, **tuple_})

    table = merge(
        attempts(), opened, Snapshot.empty(), listed({"cookie": 5, "bytes_sent": 3, **tuple_}), now_ns=0
    )

    assert table.attempts["bytes_sent"].tolist() == [3]
    assert table.inodes.tolist() == [100]


def test_sockets_that_share_a_port_do_not_stand_in_for_one_without_a_cookie() -> None:
    shared = {"netns": 7, "local_port": 5353, "protocol": 17}
    other = {"netns": 7, "local_port": 1000, "remote_port": 80}
    opened = attempts({"socket": 1, "opened_ns": 10, **shared}, {"socket": 2, "opened_ns": 20, **other})
    now = listed({"cookie": 5, **shared}, {"cookie": 6, **shared}, {"cookie": 7, **other})

    table = merge(attempts(), opened, Snapshot.empty(), now, now_ns=0)

    assert table.inodes.tolist() == [0, 102]


def test_a_udp_socket_does_not_stand_in_for_a_tcp_one_at_the_same_ends() -> None:
    ends = {"netns": 7, "local_port": 1000, "remote_port": 80, "local_address": 1, "remote_address": 2}
    opened = attempts({"socket": 1, "opened_ns": 10, "protocol": 6, **ends})

    table = merge(
        attempts(), opened, Snapshot.empty(), listed({"cookie": 5, "protocol": 17, **ends}), now_ns=0
    )

    assert table.inodes.tolist() == [0]


def test_an_open_socket_that_is_not_listed_has_no_known_state() -> None:
    opened = attempts({"socket": 1, "cookie": 5, "opened_ns": 10})

    table = merge(attempts(), opened, Snapshot.empty(), Snapshot.empty(), now_ns=0)

    assert table.states.tolist() == [0]


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), max_size=20))
def test_every_socket_is_exactly_one_row(places: list[tuple[bool, bool, bool]]) -> None:
    rows = [
        {"socket": n, "cookie": n, "opened_ns": 0 if was else n} for n, (_, _, was) in enumerate(places, 1)
    ]
    closed = attempts(*(row for row, (shut, _, _) in zip(rows, places, strict=True) if shut))
    opened = attempts(
        *(
            row
            for row, (shut, racing, was) in zip(rows, places, strict=True)
            if not was and (not shut or racing)
        )
    )
    before = listed(
        *(
            {"cookie": row["cookie"], "remote_port": 80}
            for row, (_, _, was) in zip(rows, places, strict=True)
            if was
        )
    )

    table = merge(closed, opened, before, Snapshot.empty(), now_ns=0)

    assert sorted(table.attempts["cookie"].tolist()) == [row["cookie"] for row in rows]
