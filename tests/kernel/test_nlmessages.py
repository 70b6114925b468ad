from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, strategies as st

from netlab.errors import KernelError
from netlab.kernel import nlmessages
from tests.support.nlencoded import (
    DONE,
    ERROR,
    INTERRUPTED,
    MULTI,
    SEQUENCE,
    Tree,
    done,
    encoded,
    message,
    padded,
)

BODY = np.dtype([("first", "u1", 5), ("second", "u1", 3)])


def leaves(tree: Tree, parent: nlmessages.Path = ()) -> dict[nlmessages.Path, bytes]:
    found: dict[nlmessages.Path, bytes] = {}
    for kind, value in tree.items():
        path = (*parent, kind)
        found |= leaves(value, path) if isinstance(value, dict) else {path: value}
    return found


def parsed(*messages: bytes) -> nlmessages.Dump:
    return nlmessages.answers(np.frombuffer(b"".join(messages), np.uint32), SEQUENCE)


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
        dump = nlmessages.answers(words, SEQUENCE)
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

    def values(path: nlmessages.Path, dtype: str) -> list[int]:
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
