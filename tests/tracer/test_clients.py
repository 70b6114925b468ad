"""Each client's own account of changes: every byte once, every close once, nothing negative."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from attempts import attempts
from hypothesis import given, settings, strategies as st

import netlab
from netlab.tracer.clients import COUNTED, Client, Clients, changes
from netlab.tracer.closed import Closed
from netlab.tracer.records import Attempts

SECOND = 10**9


def client(opened: Attempts | None = None) -> Client:
    clients = Clients(120)
    clients.register("me", attempts() if opened is None else opened, 0, 0)
    return clients.get("me", 0)


def sent(socket: int, count: int, opened_ns: int = 1, **more: Any) -> dict[str, Any]:
    return {"socket": socket, "opened_ns": opened_ns, "bytes_sent": count, **more}


def test_what_was_there_at_registration_counts_from_there() -> None:
    me = client(attempts(sent(1, 100)))

    change = changes(me, attempts(), attempts(sent(1, 130)))

    assert change["bytes_sent"].tolist() == [30]
    assert change["is_new"].tolist() == [False]


def test_names_that_expired_do_not_fill_the_memory() -> None:
    clients = Clients(1)
    for number in range(3000):
        clients.register(f"client {number}", attempts(), 0, 2 * number * SECOND)

    assert len(clients._expired) < 2000
    with pytest.raises(netlab.CaptureError, match="not heard from"):
        clients.get("client 2998", 5998 * SECOND)


def test_an_open_attempt_without_a_change_is_left_out() -> None:
    me = client(attempts(sent(1, 100)))

    assert changes(me, attempts(), attempts(sent(1, 100)))["is_changed"].tolist() == [False]


def test_an_attempt_that_closed_since_counts_its_rest_and_is_told_even_without_one() -> None:
    me = client(attempts(sent(1, 100), sent(2, 5)))

    change = changes(me, attempts(sent(1, 150), sent(2, 5)), attempts())

    assert change["bytes_sent"].tolist() == [50, 0]
    assert change["is_changed"].all()


def test_an_attempt_that_opened_and_closed_between_two_looks_is_new_with_all_its_bytes() -> None:
    me = client()

    change = changes(me, attempts(sent(1, 7)), attempts())

    assert (change["is_new"].tolist(), change["bytes_sent"].tolist()) == ([True], [7])


def test_a_socket_used_again_between_two_looks_is_several_attempts() -> None:
    me = client(attempts(sent(1, 100, opened_ns=1)))

    change = changes(
        me, attempts(sent(1, 110, opened_ns=1), sent(1, 3, opened_ns=2)), attempts(sent(1, 4, 3))
    )

    assert change["bytes_sent"].tolist() == [10, 3, 4]
    assert change["is_new"].tolist() == [False, True, True]


def test_a_connection_older_than_the_capture_keeps_its_account_when_it_closes() -> None:
    listed = {"socket": 0, "cookie": 9, "bytes_sent": 100}
    me = client(attempts(listed))

    change = changes(me, attempts({"socket": 77, "cookie": 9, "bytes_sent": 120}), attempts())

    assert (change["bytes_sent"].tolist(), change["is_new"].tolist()) == ([20], [False])


def test_a_counter_that_went_back_is_no_negative_change_and_no_doubled_byte() -> None:
    me = client(attempts(sent(1, 100)))

    back = changes(me, attempts(), attempts(sent(1, 40)))
    again = changes(me, attempts(), attempts(sent(1, 110)))

    assert back["bytes_sent"].tolist() == [0]
    assert again["bytes_sent"].tolist() == [10]
    assert me.underflows == 1


def test_packet_counters_that_wrapped_go_on() -> None:
    me = client(attempts(sent(1, 0, packets_sent=2**32 - 10)))

    change = changes(me, attempts(), attempts(sent(1, 0, packets_sent=5)))

    assert change["packets_sent"].tolist() == [15]
    assert me.underflows == 0


def test_two_clients_take_nothing_from_each_other() -> None:
    one, other = client(), client()
    closed = attempts(sent(1, 10))

    assert changes(one, closed, attempts())["bytes_sent"].tolist() == [10]
    assert changes(other, closed, attempts())["bytes_sent"].tolist() == [10]


def test_a_client_that_was_silent_is_forgotten_and_told_so() -> None:
    clients = Clients(expire_after_s=10)
    clients.register("me", attempts(), 0, 0)
    clients.get("me", 9 * SECOND)

    with pytest.raises(netlab.CaptureError, match="forgotten"):
        clients.get("me", 20 * SECOND)


def test_registering_again_changes_nothing() -> None:
    clients = Clients(10)
    clients.register("me", attempts(sent(1, 5)), 3, 0)
    clients.register("me", attempts(sent(1, 50)), 4, SECOND)

    assert clients.get("me", SECOND).seen == 3


def test_a_client_that_never_registered_is_told_to() -> None:
    with pytest.raises(netlab.CaptureError, match=r"register\('you'\)"):
        Clients(10).get("you", 0)


@pytest.mark.parametrize("name", ["", "  ", 7, "x" * 65, "a\nb", "a\u202eb"])
def test_a_bad_name_is_refused(name: Any) -> None:
    with pytest.raises(netlab.BadInput):
        Clients(10).register(name, attempts(), 0, 0)


def test_empty_attempts_are_dropped_first_then_the_oldest() -> None:
    closed = Closed(3)
    closed.append(attempts(sent(1, 1), sent(2, 0), sent(3, 0, error=111), sent(4, 4), sent(5, 0)))

    kept = closed.since(0)

    assert kept.attempts["socket"].tolist() == [1, 3, 4]
    assert kept.numbers.tolist() == [0, 2, 3]
    assert (kept.following, closed.dropped) == (5, 2)

    closed.append(attempts(sent(6, 6)))
    assert closed.since(0).attempts["socket"].tolist() == [3, 4, 6]


Step = tuple[str, int, int]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["open", "send", "close", "look"]), st.integers(0, 3), st.integers(0, 9)),
        max_size=60,
    ),
    st.integers(1, 40),
)
def test_the_changes_of_each_client_add_up_to_what_the_sockets_sent(steps: list[Step], most: int) -> None:
    """Four sockets are opened, used, closed and used again, while two clients look whenever they like."""
    closed, opened, totals = Closed(most), {}, {}
    clients = Clients(10**6)
    for name in ("one", "other"):
        clients.register(name, attempts(), 0, 0)
    sums: dict[str, dict[tuple[int, int], int]] = {"one": {}, "other": {}}
    closes: dict[str, list[tuple[int, int]]] = {"one": [], "other": []}
    lost = {"one": 0, "other": 0}

    def look(name: str) -> None:
        me, kept = clients.get(name, 0), closed.since(0)
        fresh = kept.attempts[kept.numbers >= me.seen]
        lost[name] += kept.following - me.seen - len(fresh)
        me.seen = kept.following
        now = attempts(*opened.values())
        change = changes(me, fresh, now)
        for record, changed in zip(np.concatenate([fresh, now]), change, strict=True):
            key = (int(record["socket"]), int(record["opened_ns"]))
            assert all(changed[counter] >= 0 for counter in COUNTED)
            assert changed["is_new"] == (key not in sums[name])
            sums[name][key] = sums[name].get(key, 0) + int(changed["bytes_sent"])
        closes[name] += [(int(r["socket"]), int(r["opened_ns"])) for r in fresh]

    for moment, (what, socket, amount) in enumerate(steps, 1):
        if what == "open" and socket not in opened:
            opened[socket] = sent(socket, 0, opened_ns=moment)
        elif what == "send" and socket in opened:
            opened[socket]["bytes_sent"] += amount
        elif what == "close" and socket in opened:
            closed.append(attempts(opened[socket] | {"closed_ns": moment}))
            gone = opened.pop(socket)
            totals[socket, gone["opened_ns"]] = gone["bytes_sent"]
        elif what == "look":
            look("one" if amount % 2 else "other")
    for name, of_mine in sums.items():
        look(name)
        assert len(closes[name]) == len(set(closes[name]))
        assert len(closes[name]) + lost[name] == len(totals)
        told = {key: of_mine[key] for key in closes[name]}
        assert told == {key: totals[key] for key in closes[name]}
        assert {k: v for k, v in of_mine.items() if k not in totals} == {
            (s, row["opened_ns"]): row["bytes_sent"] for s, row in opened.items()
        }
