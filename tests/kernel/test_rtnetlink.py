"""The pure decoders, against pyroute2's encoder and against noise."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from netlab.errors import KernelError
from netlab.kernel import lookups, nlmessages, routemessages, rtnetlink

QUESTION = lookups.Question(4, socket.inet_aton("198.51.100.1"))


def encoded(attributes: list[tuple[str, Any]], family: int = socket.AF_INET, **fields: int) -> bytes:
    """Return an RTM_NEWROUTE message as pyroute2 writes it."""
    message = rtmsg()
    message["family"] = family
    for name, value in fields.items():
        message[name] = value
    message["attrs"] = attributes
    message["header"]["type"] = 24
    message.encode()
    return bytes(message.data)


def dumped(*messages: bytes) -> Any:
    return routemessages.decoded(nlmessages.Dump.of(np.frombuffer(b"".join(messages), np.uint32)), 4)


HOPS = [
    {"oif": 3, "hops": 0, "flags": 4, "attrs": [("RTA_GATEWAY", "10.0.0.1")]},
    {"oif": 4, "hops": 9, "flags": 0, "attrs": [("RTA_VIA", {"family": 10, "addr": "fe80::1"})]},
    {"oif": 5, "hops": 1, "flags": 17, "attrs": []},
]


def test_next_hops_of_one_route_become_rows() -> None:
    message = encoded([("RTA_TABLE", 70000), ("RTA_MULTIPATH", HOPS)], type=1, dst_len=0)

    found = dumped(message)

    columns = ["nexthop", "nexthops", "gateway", "index", "weight", "flags", "table", "destination"]
    assert found[columns].astype(object).where(found[columns].notna(), None).to_numpy().tolist() == [
        [0, 3, "10.0.0.1", 3, 1, 4, 70000, "0.0.0.0/0"],
        [1, 3, "fe80::1", 4, 10, 0, 70000, "0.0.0.0/0"],
        [2, 3, None, 5, 2, 17, 70000, "0.0.0.0/0"],
    ]


def test_routes_of_many_layouts_keep_the_order_of_the_dump() -> None:
    single = encoded([("RTA_DST", "10.1.0.0"), ("RTA_OIF", 2)], type=1, dst_len=16)
    several = encoded([("RTA_DST", "10.2.0.0"), ("RTA_MULTIPATH", HOPS)], type=1, dst_len=16)
    dead = encoded([("RTA_DST", "10.3.0.0"), ("RTA_PRIORITY", 7)], type=6, dst_len=16)

    found = dumped(several, single, dead, single, several)

    assert found["row"].tolist() == [0, 0, 0, 1, 2, 3, 4, 4, 4]
    assert found["metric"].tolist() == [0, 0, 0, 0, 7, 0, 0, 0, 0]
    assert (
        found["destination"].tolist()
        == ["10.2.0.0/16"] * 3
        + [
            "10.1.0.0/16",
            "10.3.0.0/16",
            "10.1.0.0/16",
        ]
        + ["10.2.0.0/16"] * 3
    )


def test_an_answer_has_the_way_and_the_route() -> None:
    told = encoded(
        [("RTA_OIF", 7), ("RTA_GATEWAY", "10.0.0.1"), ("RTA_PREFSRC", "10.0.0.9"), ("RTA_TABLE", 300)], type=1
    )
    matched = encoded([("RTA_DST", "198.51.0.0"), ("RTA_PRIORITY", 5), ("RTA_MULTIPATH", HOPS)], dst_len=16)

    assert lookups.answer(QUESTION, told, matched) == lookups.Answer(
        type="unicast",
        gateway="10.0.0.1",
        index=7,
        address="10.0.0.9",
        table=300,
        route="198.51.0.0/16",
        metric=5,
        nexthops=3,
    )


@pytest.mark.parametrize(
    ("number", "kind", "error"),
    [(6, "blackhole", "EINVAL"), (7, "unreachable", "EHOSTUNREACH"), (8, "prohibit", "EACCES")],
)
def test_a_route_that_leads_nowhere_has_its_type_and_errno_and_no_interface(
    number: int, kind: str, error: str
) -> None:
    told = encoded([("RTA_OIF", 1), ("RTA_PREFSRC", "10.0.0.9")], type=number)

    found = lookups.answer(QUESTION, told, told)

    assert (found.type, found.error, found.index, found.address) == (kind, error, 0, None)


@given(st.dictionaries(st.integers(0, 0x3FFF), st.binary(max_size=40), max_size=8))
def test_attributes_are_those_that_were_written(written: dict[int, bytes]) -> None:
    payload = b""
    for kind, value in written.items():
        payload += struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)

    assert rtnetlink.attributes(payload) == written


@given(st.binary(max_size=200))
def test_noise_is_refused_or_read_but_never_crashes(noise: bytes) -> None:
    rtnetlink.attributes(noise)
    message = struct.pack("=IHHII", 16 + len(noise), 24, 0, 1, 0) + noise
    with contextlib.suppress(KernelError):
        lookups.answer(QUESTION, message, message)


@given(st.data())
def test_a_message_with_bytes_turned_is_refused_or_read(data: st.DataObject) -> None:
    message = bytearray(
        encoded([("RTA_DST", "198.51.0.0"), ("RTA_MULTIPATH", HOPS), ("RTA_OIF", 3)], type=1, dst_len=16)
    )
    for _ in range(data.draw(st.integers(1, 4))):
        message[data.draw(st.integers(16, len(message) - 1))] = data.draw(st.integers(0, 255))

    with contextlib.suppress(KernelError):
        lookups.answer(QUESTION, bytes(message), bytes(message))
