"""Finding each attempt's conntrack entry by its tuple and its time."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given, strategies as st

from netlab.kernel.ctlives import LIFE, NEVER
from netlab.tracer import natjoin
from netlab.tracer.natjoin import Found, Times

HERE, ELSEWHERE = 1, 2
CLIENT, SERVICE, SERVER, MASK = (np.frombuffer(bytes(15) + bytes([n]), np.uint8) for n in (1, 2, 3, 4))


def attempts(*lives: tuple[int, int], port: int = 5, netns: int = HERE) -> tuple[np.ndarray, Times]:
    """Outgoing attempts of one tuple: when each opened and closed."""
    tuples = np.zeros(len(lives), natjoin.TUPLE)
    tuples["netns"], tuples["protocol"] = netns, 6
    tuples["local_address"], tuples["remote_address"] = CLIENT, SERVICE
    tuples["local_port"], tuples["remote_port"] = port, 80
    opened, closed = (np.array([life[place] for life in lives], np.int64) for place in (0, 1))
    return tuples, Times(opened, closed, np.ones(len(lives), bool))


def entry(
    to: int,
    made: tuple[int, int],
    ended: tuple[int, int] = (NEVER, NEVER),
    *,
    zone: int = 0,
    netns: int = HERE,
) -> np.ndarray:
    """An entry of that tuple, translated to a port of its own; when it was made and ended: from, until."""
    life = np.zeros(1, LIFE)
    life["src"], life["dst"], life["reply_src"], life["reply_dst"] = CLIENT, SERVICE, SERVER, MASK
    life["sport"], life["dport"], life["reply_sport"], life["reply_dport"] = 5, 80, 8080, to
    life["made_since_ns"], life["made_until_ns"] = made
    life["ended_since_ns"], life["ended_until_ns"] = ended
    life["netns"], life["zone"], life["protocol"] = netns, zone, 6
    return life


def joined(tuples: np.ndarray, times: Times, *entries: np.ndarray) -> Found:
    every = np.concatenate(entries)
    every["order"] = np.arange(len(every))
    return natjoin.beyond(tuples, times, every)


def ports(found: Found) -> list[int | None]:
    told = zip(found.tuples["local_port"].tolist(), found.translated, strict=True)
    return [port if translated else None for port, translated in told]


MS = 1_000_000


def test_an_entry_from_before_that_was_gone_is_not_taken() -> None:
    found = joined(*attempts((1000 * MS, 1100 * MS)), entry(61, (0, 400 * MS), (500 * MS, 550 * MS)))

    assert ports(found) == [None]


def test_an_entry_made_after_the_end_is_not_taken() -> None:
    found = joined(*attempts((1000 * MS, 1100 * MS)), entry(61, (1200 * MS, 1250 * MS)))

    assert ports(found) == [None]


def test_an_entry_from_before_that_is_still_there_is_taken() -> None:
    found = joined(*attempts((1000 * MS, NEVER)), entry(61, (0, 400 * MS)))

    assert ports(found) == [61]


def test_each_use_of_a_tuple_has_its_own_entry() -> None:
    found = joined(
        *attempts((1000 * MS, 1001 * MS), (3000 * MS, 3001 * MS)),
        entry(61, (980 * MS, 1030 * MS), (980 * MS, 1030 * MS)),
        entry(62, (2980 * MS, 3030 * MS), (2980 * MS, 3030 * MS)),
    )

    assert ports(found) == [61, 62]
    assert not found.doubtful.any()


def test_uses_between_two_readings_are_counted_off_and_doubtful() -> None:
    window = (980 * MS, 1030 * MS)
    found = joined(
        *attempts((1000 * MS, 1001 * MS), (1002 * MS, 1003 * MS), (1004 * MS, NEVER)),
        *(entry(port, window, window) for port in (61, 62)),
        entry(63, window),
    )

    assert ports(found) == [61, 62, 63]
    assert found.doubtful.any()


def test_an_old_entry_does_not_shift_those_of_the_attempts() -> None:
    found = joined(
        *attempts((1000 * MS, 1001 * MS), (2005 * MS, 2006 * MS)),
        entry(60, (0, 100 * MS), (0, 900 * MS)),  # it expired before
        entry(61, (980 * MS, 1030 * MS), (1980 * MS, 2030 * MS)),
        entry(62, (1980 * MS, 2030 * MS)),
    )

    assert ports(found) == [61, 62]


def test_an_attempt_that_made_no_entry_uses_the_one_that_is_there() -> None:
    found = joined(*attempts((1000 * MS, 1001 * MS), (3000 * MS, NEVER)), entry(61, (980 * MS, 1030 * MS)))

    assert ports(found) == [61, 61]


def test_an_entry_that_ended_with_its_attempt_is_not_the_next_ones() -> None:
    window = (980 * MS, 1030 * MS)
    found = joined(*attempts((1000 * MS, 1001 * MS), (1040 * MS, NEVER)), entry(61, window, window))

    assert ports(found) == [61, None]


def test_a_long_connection_has_its_newest_entry() -> None:
    found = joined(
        *attempts((1000 * MS, NEVER)),
        entry(61, (980 * MS, 1030 * MS), (4980 * MS, 5030 * MS)),
        entry(62, (5980 * MS, 6030 * MS)),
    )

    assert ports(found) == [62]


def test_the_accepting_end_gets_the_original_tuple() -> None:
    tuples, times = attempts((1000 * MS, NEVER))
    tuples["local_address"], tuples["remote_address"] = SERVER, MASK
    tuples["local_port"], tuples["remote_port"] = 8080, 61
    times.outgoing[:] = False

    found = joined(tuples, times, entry(61, (0, 500 * MS)))  # the handshake took half a second

    (after,) = found.tuples
    assert (bytes(after["local_address"]), after["local_port"]) == (SERVICE.tobytes(), 80)
    assert (bytes(after["remote_address"]), after["remote_port"]) == (CLIENT.tobytes(), 5)


def test_other_namespaces_protocols_and_ports_do_not_count() -> None:
    tuples, times = attempts((1000 * MS, NEVER), (1000 * MS, NEVER), (1000 * MS, NEVER))
    tuples["netns"][0], tuples["protocol"][1], tuples["local_port"][2] = ELSEWHERE, 17, 6

    assert ports(joined(tuples, times, entry(61, (0, MS)))) == [None] * 3


def test_zones_that_say_the_same_agree_and_others_are_contested() -> None:
    made = (980 * MS, 1030 * MS)

    same = joined(*attempts((1000 * MS, NEVER)), entry(61, made), entry(61, made, zone=7))
    other = joined(*attempts((1000 * MS, NEVER)), entry(61, made), entry(62, made, zone=7))
    over = joined(*attempts((1000 * MS, NEVER)), entry(61, made), entry(62, (0, MS), (MS, 2 * MS), zone=7))

    assert (ports(same), same.contested.tolist()) == ([61], [False])
    assert (ports(other), other.contested.tolist()) == ([None], [True])
    assert (ports(over), over.contested.tolist()) == ([61], [False])


def test_without_attempts_or_entries_there_is_nothing() -> None:
    assert ports(joined(*attempts(), entry(61, (0, MS)))) == []
    assert ports(natjoin.beyond(*attempts((0, NEVER)), np.empty(0, LIFE))) == [None]


@given(st.randoms(use_true_random=False), st.integers(1, 8), st.integers(1, 200))
def test_what_is_not_said_to_be_doubtful_is_right(chance: random.Random, uses: int, drain_ms: int) -> None:
    """Attempts of one tuple, each with an entry or none, whose messages are read now and then."""
    now, lives, entries, truth = 1000, [], [], []

    def read(at: int) -> tuple[int, int]:
        return at // drain_ms * drain_ms * MS, -(-at // drain_ms) * drain_ms * MS

    for use in range(uses):
        opened = now + chance.randrange(300)
        closed = opened + chance.randrange(1, 300)
        ended = closed + chance.choice([0, 0, chance.randrange(100)])
        sent = chance.random() < 0.8
        if sent:
            made = chance.randrange(opened, closed)
            entries.append(entry(1 + use, read(made), read(max(made, ended))))
        lives.append((opened * MS, closed * MS))
        truth.append(1 + use if sent else None)
        now = ended + 1
    if not entries:
        return

    found = joined(*attempts(*lives), *entries)

    wrong = [place for place, port in enumerate(ports(found)) if port not in {truth[place], None}]
    assert found.doubtful[wrong].all()
    lost = [place for place, port in enumerate(ports(found)) if port is None and truth[place]]
    assert found.doubtful[lost].all()
