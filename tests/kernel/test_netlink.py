from __future__ import annotations

import errno
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

import numpy as np
import pytest
from hypothesis import given, strategies as st

from netlab.errors import CapabilityError, KernelError
from netlab.kernel import netlink

Tree: TypeAlias = "dict[int, bytes | Tree]"

SEQUENCE = 0x5EC0DE01
DONE, ERROR, ANSWER, MULTI, INTERRUPTED = 3, 2, 0x14, 2, 0x10
BODY = np.dtype([("first", "u1", 5), ("second", "u1", 3)])


# What the tests know to be true: an encoder written from include/uapi/linux/netlink.h.


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def encoded(tree: Tree) -> bytes:
    out = b""
    for kind, value in tree.items():
        payload, flag = (encoded(value), 0x8000) if isinstance(value, dict) else (value, 0)
        out += padded(struct.pack("=HH", 4 + len(payload), kind | flag) + payload)
    return out


def message(payload: bytes, kind: int = ANSWER, flags: int = MULTI, sequence: int = SEQUENCE) -> bytes:
    return padded(struct.pack("=IHHII", 16 + len(payload), kind, flags, sequence, 7) + payload)


def done(code: int = 0) -> bytes:
    return message(struct.pack("=i", code), DONE)


def leaves(tree: Tree, parent: netlink.Path = ()) -> dict[netlink.Path, bytes]:
    found: dict[netlink.Path, bytes] = {}
    for kind, value in tree.items():
        path = (*parent, kind)
        found |= leaves(value, path) if isinstance(value, dict) else {path: value}
    return found


def parsed(*messages: bytes) -> netlink.Dump:
    return netlink._messages(np.frombuffer(b"".join(messages), np.uint32), SEQUENCE)


look_alikes = st.sampled_from(
    [
        struct.pack("=I", SEQUENCE),
        message(b"", DONE),
        message(b"\0" * 4),
        done(),
        struct.pack("=II", SEQUENCE, SEQUENCE) * 3,
    ]
)
payloads = st.binary(max_size=24) | look_alikes
trees = st.recursive(
    st.dictionaries(st.integers(1, 40), payloads, max_size=4),
    lambda inner: st.dictionaries(st.integers(1, 40), payloads | inner, max_size=4),
    max_leaves=8,
)
bodies = st.binary(min_size=8, max_size=8) | st.just(struct.pack("=II", SEQUENCE, SEQUENCE))


@given(st.lists(st.tuples(bodies, trees), max_size=12))
def test_every_attribute_of_every_message_is_read_whatever_it_carries(
    sent: list[tuple[bytes, Tree]],
) -> None:
    dump = parsed(*(message(body + encoded(tree)) for body, tree in sent), done())

    assert dump.body(BODY).tobytes() == b"".join(body for body, _ in sent)
    seen: list[int] = []
    for group in dump.groups(8):
        for place, row in enumerate(group.rows):
            truth = leaves(sent[row][1])
            assert {path: group.octets(path)[place].tobytes() for path in truth} == truth
            assert all(group.length(path) == len(value) for path, value in truth.items())
            seen.append(row)
    assert sorted(seen) == list(range(len(sent)))


@given(st.lists(trees, min_size=1, max_size=3), st.integers(2, 30))
def test_messages_of_one_layout_form_one_group(kinds: list[Tree], count: int) -> None:
    dump = parsed(*(message(encoded(kinds[n % len(kinds)])) for n in range(count)), done())

    groups = list(dump.groups(0))

    assert len(groups) <= len(kinds)
    assert all((np.diff(group.rows) > 0).all() for group in groups)


@given(st.binary(max_size=96))
def test_bytes_that_are_no_dump_are_refused_or_read_but_never_crash(raw: bytes) -> None:
    start = message(b"\0" * 8 + encoded({1: b"1234"}))
    words = np.frombuffer(start + padded(raw), np.uint32)
    try:
        dump = netlink._messages(words, SEQUENCE)
        dump.body(BODY)
        rows = [row for group in dump.groups(8) for row in group.rows]
    except KernelError:
        return
    assert sorted(rows) == list(range(len(dump)))


@pytest.mark.parametrize("length", [0, 15, 28, 0xFFFFFFFE])
def test_a_message_length_that_does_not_fit_is_refused(length: int) -> None:
    raw = bytearray(message(b"\0" * 8) + done())
    struct.pack_into("=I", raw, 0, length)

    with pytest.raises(KernelError, match="does not fit"):
        parsed(bytes(raw))


@pytest.mark.parametrize("length", [0, 3, 9, 0xFFFF])
def test_an_attribute_length_that_does_not_fit_is_refused(length: int) -> None:
    dump = parsed(message(struct.pack("=HHI", length, 1, 0)), done())

    with pytest.raises(KernelError, match="attribute that does not fit"):
        list(dump.groups(0))


def test_a_message_shorter_than_its_body_is_refused() -> None:
    with pytest.raises(KernelError, match="shorter than its body"):
        parsed(message(b"\0" * 4), done()).body(BODY)


def test_numbers_are_read_in_the_order_asked_for_and_cut_off_padding() -> None:
    tree: Tree = {1: {2: b"\x01\x02", 3: b"\xfe"}, 4: struct.pack("=Q", 7), 5: struct.pack(">I", 9)}
    (group,) = parsed(*[message(encoded(tree))] * 3, done()).groups(0)

    def values(path: netlink.Path, dtype: str) -> list[int]:
        found = group.get(path, dtype)
        assert found is not None
        return list(found.tolist())

    assert values((1, 2), ">u2") == [0x0102] * 3
    assert values((1, 3), "u1") == [0xFE] * 3
    assert values((4,), "u8") == [7] * 3
    assert values((5,), ">u4") == [9] * 3


def test_an_absent_or_shorter_attribute_has_no_numbers() -> None:
    (group,) = parsed(message(encoded({1: b"\1\2"})), done()).groups(0)

    assert group.get((2,), "u4") is None
    assert group.get((1,), "u4") is None
    assert group.length((2,)) == -1
    with pytest.raises(KernelError, match=r"lacks attribute 2\.3"):
        group.octets((2, 3))


@pytest.mark.parametrize("size", [0, 1, 6, 8, 12])
def test_a_struct_is_filled_as_far_as_the_kernel_gives_it(size: int) -> None:
    sent = bytes(range(1, size + 1))
    (group,) = parsed(message(encoded({1: sent})), done()).groups(0)

    found = group.prefix((1,), BODY)

    assert found is not None
    assert found.tobytes() == sent[:8].ljust(8, b"\0")
    assert group.prefix((2,), BODY) is None


def test_control_messages_are_no_entries() -> None:
    acknowledged = message(struct.pack("=i16x", 0), ERROR)

    assert len(parsed(message(b""), message(b"", 1), acknowledged)) == 1


@pytest.mark.parametrize("flags", [0, INTERRUPTED])
def test_an_interrupted_dump_is_known_by_its_flag(flags: int) -> None:
    dump = parsed(message(b""), message(b"", flags=MULTI | flags), done())

    assert dump.interrupted == bool(flags)


# Receiving: blocks sent through a real socket.


def received(*blocks: bytes) -> bytes:
    kernel, user = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with kernel, user, ThreadPoolExecutor(1) as pool:
        user.settimeout(5)
        sending = pool.submit(lambda: [kernel.send(block) for block in blocks])
        words = netlink._receive(user, SEQUENCE)
        sending.result()
    return words.tobytes()


def test_blocks_are_received_up_to_the_one_that_closes_the_dump() -> None:
    blocks = [message(bytes([n]) * 30_000) for n in range(60)]  # more than the first buffer holds

    assert received(*blocks, done()) == b"".join(blocks) + done()


def test_the_closing_message_may_share_a_block() -> None:
    block = message(b"x" * 40) + done()

    assert received(block) == block


def test_a_closing_message_of_another_request_closes_nothing() -> None:
    foreign = message(struct.pack("=i", 0), DONE, sequence=SEQUENCE ^ 1)

    assert received(message(b""), foreign, done()) == message(b"") + foreign + done()


@pytest.mark.parametrize("kind", [ERROR, DONE])
def test_an_error_in_the_dump_is_raised(kind: int) -> None:
    with pytest.raises(OSError, match="buffer") as caught:
        received(message(struct.pack("=i16x", -errno.ENOBUFS), kind))

    assert caught.value.errno == errno.ENOBUFS


def test_a_block_that_was_cut_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netlink, "_FIRST_BUFFER", netlink._LARGEST_BLOCK)

    with pytest.raises(KernelError, match="larger than"):
        received(message(b"x" * 50_000), done())


# The kernel of this machine.


def test_a_refused_privilege_is_a_capability_error() -> None:
    refused = netlink.refusal(errno.EPERM, "list something")

    assert isinstance(refused, CapabilityError)
    assert "CAP_NET_ADMIN" in refused.fix


@pytest.mark.privileged
def test_a_subsystem_that_nobody_serves_is_refused_with_the_module_to_load() -> None:
    with pytest.raises(KernelError, match=r"refused to list nothing: EINVAL.*modprobe nf_nothing"):
        netlink.dump(12, 0xFE01, b"\0" * 4, doing="list nothing", module="nf_nothing")


def test_a_protocol_the_kernel_does_not_speak_is_refused() -> None:
    with pytest.raises(KernelError, match="EPROTONOSUPPORT"):
        netlink.dump(31, 0x10, b"", doing="list nothing")


def test_a_kernel_that_does_not_answer_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netlink, "_SILENCE_S", 0.05)
    no_operation = 1  # the kernel reads NLMSG_NOOP and says nothing

    with pytest.raises(KernelError, match="stopped answering while netlab tried to wait"):
        netlink.dump(socket.NETLINK_ROUTE, no_operation, b"", doing="wait")


def test_the_interfaces_dumped_are_those_of_the_host() -> None:
    link = np.dtype([("family", "u1"), ("pad", "u1"), ("type", "u2"), ("index", "i4"), ("rest", "u4", 2)])
    dump = netlink.dump(socket.NETLINK_ROUTE, 18, bytes(link.itemsize), doing="list interfaces")
    named = {}
    for group in dump.groups(link.itemsize):
        names = [octets.tobytes().rstrip(b"\0").decode() for octets in group.octets((3,))]
        named |= dict(zip(dump.body(link)["index"][group.rows].tolist(), names, strict=True))

    assert named == dict(socket.if_nameindex())
