"""What a socket's tuple becomes in its own namespace and on the host, and what is said to be unknown."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from netlab.kernel.ctlives import LIFE, NEVER, mapped
from netlab.tracer import natjoin
from netlab.tracer.natjoin import Times
from netlab.tracer.translated import NatTable, Spans

OWN, HOST = 7, 1


def address(text: str) -> np.ndarray:
    return mapped(np.array([[int(part) for part in text.split(".")]], np.uint8))[0]


def socket_at(local: str = "10.0.0.2", remote: str = "192.0.2.1", netns: int = OWN) -> np.ndarray:
    tuples = np.zeros(1, natjoin.TUPLE)
    tuples["netns"], tuples["protocol"], tuples["local_port"], tuples["remote_port"] = netns, 6, 5, 80
    tuples["local_address"], tuples["remote_address"] = address(local), address(remote)
    return tuples


def entry(netns: int, src: str, dst: str, reply_src: str, reply_dst: str) -> np.ndarray:
    life = np.zeros(1, LIFE)
    for name, text in {"src": src, "dst": dst, "reply_src": reply_src, "reply_dst": reply_dst}.items():
        life[name] = address(text)
    life["netns"], life["protocol"] = netns, 6
    life["sport"], life["dport"], life["reply_sport"], life["reply_dport"] = 5, 80, 80, 5
    life["ended_since_ns"] = life["ended_until_ns"] = NEVER
    return life


def told(known: NatTable, tuples: np.ndarray, opened_ns: int = 100) -> tuple[list[Any], list[str]]:
    times = Times(np.array([opened_ns]), np.array([NEVER]), np.array([True]))
    translated = known.beyond(tuples, times)
    columns = pd.DataFrame(translated.columns)
    return columns.to_numpy().ravel().tolist(), [gap.kind.value for gap in translated.missing]


def test_the_host_translates_what_leaves_the_own_namespace() -> None:
    entries = [
        entry(OWN, "10.0.0.2", "192.0.2.1", "192.0.2.2", "10.0.0.2"),
        entry(HOST, "10.0.0.2", "192.0.2.2", "192.0.2.3", "198.51.100.1"),
        entry(HOST, "10.0.0.2", "192.0.2.1", "192.0.2.4", "10.0.0.2"),  # of another namespace's connection
    ]

    columns, gaps = told(NatTable(np.concatenate(entries), HOST, []), socket_at())

    assert columns == ["198.51.100.1", "192.0.2.3", 5, 80]
    assert not gaps


def test_loopback_does_not_leave_its_namespace() -> None:
    entries = entry(HOST, "127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.1")

    assert told(NatTable(entries, HOST, []), socket_at("127.0.0.1", "127.0.0.2")) == ([], [])
    assert told(NatTable(entries, HOST, []), socket_at("127.0.0.1", "127.0.0.2", HOST))[0][1] == "127.0.0.3"


def test_a_translation_back_to_the_same_is_none() -> None:
    entries = [
        entry(OWN, "10.0.0.2", "192.0.2.1", "192.0.2.2", "10.0.0.2"),
        entry(HOST, "10.0.0.2", "192.0.2.2", "192.0.2.1", "10.0.0.2"),
    ]

    assert told(NatTable(np.concatenate(entries), HOST, []), socket_at()) == ([], [])


@pytest.mark.parametrize(
    ("listened", "opened_ns", "gaps"),
    [
        ({OWN: ((150, NEVER),)}, 100, ["unseen"]),
        ({OWN: ((150, NEVER),)}, 49, []),
        ({OWN: ((150, NEVER),)}, 151, []),
        ({OWN: ((0, 90), (150, NEVER))}, 100, ["unseen"]),
        ({OWN: ((0, 90), (150, NEVER))}, 80, []),
        ({OWN: ((0, NEVER),), HOST: ((150, NEVER),)}, 100, ["unseen"]),
        ({}, 100, ["unseen"]),
    ],
    ids=[
        "found later",
        "nothing translated",
        "found",
        "inode used again",
        "first use",
        "host",
        "never found",
    ],
)
def test_what_opened_while_nobody_listened_may_be_translated(
    listened: dict[int, Spans], opened_ns: int, gaps: list[str]
) -> None:
    known = NatTable(np.empty(0, LIFE), HOST, [], {HOST: ((0, NEVER),), **listened}, 50)

    assert told(known, socket_at(), opened_ns) == ([], gaps)


def test_nothing_is_known_of_nothing() -> None:
    known = NatTable.nothing()

    assert (
        known.beyond(
            socket_at()[:0], Times(*(np.empty(0, np.int64) for _ in range(2)), np.empty(0, bool))
        ).columns
        == {}
    )
