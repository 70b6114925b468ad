from __future__ import annotations

import ipaddress

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, strategies as st

from netlab import addresses

v4 = st.binary(min_size=4, max_size=4)
v6 = st.binary(min_size=16, max_size=16) | v4.map(lambda tail: bytes(10) + b"\xff\xff" + tail)


def table(rows: list[bytes], width: int) -> addresses.Bytes:
    return np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), width)


def spelt(packed: bytes) -> str:
    address = ipaddress.ip_address(packed)
    return str(getattr(address, "ipv4_mapped", None) or address)


@given(st.lists(v4, max_size=40))
def test_ipv4_text_is_that_of_the_standard_library(rows: list[bytes]) -> None:
    assert addresses.ipv4_text(table(rows, 4)).to_pylist() == [spelt(row) for row in rows]


@given(st.lists(v6, max_size=40))
def test_ipv6_text_is_canonical_and_mapped_addresses_are_ipv4(rows: list[bytes]) -> None:
    found = addresses.ipv6_text(table(rows, 16)).to_pylist()

    assert [ipaddress.ip_address(text) for text in found] == [
        ipaddress.ip_address(spelt(row)) for row in rows
    ]
    assert all(addresses.canonical(text) == text for text in found if "." not in text or ":" not in text)


@given(st.lists(v4, min_size=1, max_size=5), st.lists(v6, min_size=1, max_size=5))
def test_repeated_and_mixed_families_keep_their_order_in_a_column(
    four: list[bytes], six: list[bytes]
) -> None:
    parts = [addresses.text(6, table(six * 2, 16)), addresses.text(4, table(four, 4))]

    column = addresses.column(parts)

    assert str(column.dtype) == "string"
    expected = [ipaddress.ip_address(spelt(row)) for row in [*six * 2, *four]]
    assert [ipaddress.ip_address(text) for text in column] == expected


def test_every_octet_is_spelt_without_padding() -> None:
    octets = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 4, axis=1)

    assert addresses.ipv4_text(octets).to_pylist() == [f"{n}.{n}.{n}.{n}" for n in range(256)]


def test_a_column_of_no_addresses_is_empty_text() -> None:
    empty = addresses.column([addresses.ipv4_text(table([], 4)), addresses.ipv6_text(table([], 16))])

    assert (len(empty), str(empty.dtype)) == (0, "string")


def test_a_missing_address_is_na() -> None:
    column = addresses.column([pa.array(["192.0.2.1", None], pa.large_string())])

    assert column[1] is pd.NA


def test_a_view_with_gaps_reads_the_same_as_a_copy() -> None:
    wide = np.arange(160, dtype=np.uint8).reshape(5, 32)

    assert addresses.text(4, wide[::2, 3:7]).equals(addresses.text(4, wide[::2, 3:7].copy()))
    assert addresses.text(6, wide[::2, 3:19]).equals(addresses.text(6, wide[::2, 3:19].copy()))


@pytest.mark.parametrize(
    ("given_text", "canonical"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8:0:0::0:1", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::ffff:c000:201", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("::", "::"),
    ],
)
def test_an_address_has_one_canonical_spelling(given_text: str, canonical: str) -> None:
    assert addresses.canonical(given_text) == canonical


@pytest.mark.parametrize("text", ["", "192.0.2", "192.0.2.256", "010.0.0.1", "example.com", "::1::"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="does not appear to be"):
        addresses.canonical(text)


@given(st.lists(v4, min_size=1, max_size=8), st.integers(200, 300))
def test_many_rows_of_few_addresses_are_each_spelt_in_their_place(known: list[bytes], rows: int) -> None:
    repeated = [known[row % len(known)] for row in range(rows)]

    assert addresses.ipv4_text(table(repeated, 4)).to_pylist() == [spelt(row) for row in repeated]


def test_many_distinct_addresses_are_each_spelt_in_their_place() -> None:
    packed = [number.to_bytes(4, "big") for number in range(2**32 - 300, 2**32)]

    assert addresses.ipv4_text(table(packed, 4)).to_pylist() == [spelt(row) for row in packed]
