"""Members of structs as columns, against Python's own packing and text."""

from __future__ import annotations

import ctypes
import ipaddress
import json
import struct

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from netlab.errors import BadInput
from netlab.probes.columns import columns
from netlab.probes.layout import layout

C_TYPES = {
    "char": ctypes.c_char, "signed char": ctypes.c_int8, "unsigned char": ctypes.c_uint8,
    "short": ctypes.c_int16, "unsigned short": ctypes.c_uint16,
    "int": ctypes.c_int32, "unsigned int": ctypes.c_uint32,
    "long long": ctypes.c_int64, "unsigned long long": ctypes.c_uint64, "_Bool": ctypes.c_bool,
}  # fmt: skip
NUMBERS = ["b", "B", "h", "H", "i", "I", "q", "Q"]


def records(dtype: list[tuple[str, str]], *rows: bytes) -> np.ndarray:
    return np.frombuffer(b"".join(rows), np.dtype(dtype))


@given(st.lists(st.tuples(st.sampled_from(sorted(C_TYPES)), st.integers(0, 5)), min_size=1, max_size=8))
def test_a_described_struct_lies_as_the_compiler_lays_it(members: list[tuple[str, int]]) -> None:
    names = [f"m{place}" for place in range(len(members))]
    fields = [
        (name, C_TYPES[kind] * length if length else C_TYPES[kind])
        for name, (kind, length) in zip(names, members, strict=True)
    ]
    truth = type("Truth", (ctypes.Structure,), {"_fields_": fields})
    described = [
        [name, kind, [length]] if length else [name, kind]
        for name, (kind, length) in zip(names, members, strict=True)
    ]

    found = layout(json.dumps(["truth", described, "struct"]), ctypes.sizeof(truth))

    assert found.itemsize == ctypes.sizeof(truth)
    assert found.fields is not None
    assert [found.fields[name][1] for name in names] == [getattr(truth, name).offset for name in names]
    assert [found.fields[name][0].itemsize for name in names] == [getattr(truth, name).size for name in names]


@pytest.mark.parametrize(
    "description",
    [
        '["s", [["flag", "unsigned int", 3]], "struct"]',
        '["s", [["value", "double"]], "struct"]',
    ],
)
def test_what_cannot_be_a_column_is_refused(description: str) -> None:
    with pytest.raises(BadInput, match=r"flag|value"):
        layout(description, 8)


def test_a_description_larger_than_its_type_is_refused() -> None:
    with pytest.raises(BadInput, match="8 bytes of a type of 4"):
        layout('["s", [["a", "unsigned long long"]], "struct"]', 4)


@given(st.sampled_from(NUMBERS), st.data())
def test_numbers_stay_as_they_are_and_as_wide(code: str, data: st.DataObject) -> None:
    bits = 8 * struct.calcsize(code)
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if code.islower() else (0, (1 << bits) - 1)
    value = data.draw(st.integers(low, high))

    frame = pd.DataFrame(
        columns(records([("x", f"={code}")], struct.pack(f"={code}", value)), frozenset(), 0)
    )

    assert frame["x"].tolist() == [value]
    assert frame["x"].dtype.itemsize == struct.calcsize(code)


@given(st.integers(0, 65535))
def test_a_number_in_network_order_becomes_the_hosts(port: int) -> None:
    found = columns(records([("port", "u2")], struct.pack("!H", port)), frozenset({"port"}), 0)

    assert found["port"].tolist() == [port]


@given(st.binary(min_size=16, max_size=16))
def test_addresses_are_known_by_name_and_size(octets: bytes) -> None:
    six = ipaddress.IPv6Address(octets)
    four = str(ipaddress.IPv4Address(octets[:4]))
    row = octets[:4] * 2 + octets
    frame = pd.DataFrame(
        columns(records([("saddr", "u4"), ("peer_ip", "(4,)u1"), ("daddr", "(16,)u1")], row), frozenset(), 0)
    )

    assert frame.iloc[0].tolist() == [four, four, str(six.ipv4_mapped or six)]


def test_an_address_by_name_of_another_size_stays_a_number() -> None:
    assert columns(records([("addr", "u8")], struct.pack("=Q", 7)), frozenset(), 0)["addr"].tolist() == [7]


@given(st.binary(max_size=16))
def test_text_ends_at_its_first_nul_and_shows_what_could_act(raw: bytes) -> None:
    shown = columns(records([("name", "S16")], raw.ljust(16, b"\0")), frozenset(), 0)["name"][0]

    assert all(
        character.isprintable() or character in "\u00ad\u200b" or ord(character) > 0x9F for character in shown
    )
    if raw.partition(b"\0")[0].isascii() and raw.partition(b"\0")[0].decode().isprintable():
        assert shown == raw.partition(b"\0")[0].decode()


def test_a_reading_of_the_kernels_clock_becomes_utc_and_none_stays_missing() -> None:
    rows = struct.pack("=QQ", 5, 7), struct.pack("=QQ", 0, 8)
    frame = pd.DataFrame(columns(records([("at_ns", "u8"), ("took_ns", "u8")], *rows), frozenset(), 10))

    assert frame["at"].tolist() == [pd.Timestamp(15, tz="UTC"), pd.NaT]
    assert frame["took_ns"].tolist() == [7, 8]


def test_arrays_are_lists_and_inner_structs_have_dotted_names() -> None:
    inner = np.dtype([("a", "u2"), ("__pad_1", "S2"), ("saddr", "u4")])
    dtype = np.dtype([("some", "(3,)i4"), ("in", inner)])
    one = np.frombuffer(struct.pack("=3iHxx4B", 1, -2, 3, 9, 192, 0, 2, 1), dtype)

    frame = pd.DataFrame(columns(one, frozenset(), 0))

    assert frame.columns.tolist() == ["some", "in.a", "in.saddr"]
    assert frame.iloc[0].tolist() == [[1, -2, 3], 9, "192.0.2.1"]


def test_no_records_make_the_same_columns() -> None:
    dtype = np.dtype([("at_ns", "u8"), ("saddr", "u4"), ("name", "S16"), ("some", "(3,)i4")])

    none = pd.DataFrame(columns(np.empty(0, dtype), frozenset(), 0))
    one = pd.DataFrame(columns(np.zeros(1, dtype), frozenset(), 0))

    assert none.dtypes.tolist() == one.dtypes.tolist()
    assert none.columns.tolist() == one.columns.tolist()
