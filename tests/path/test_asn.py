"""AS databases: MaxMind files are written by mmdb-writer, tables are looked through range by range."""

from __future__ import annotations

import gzip
import ipaddress
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given, strategies as st
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from netlab.errors import BadInput, CapabilityError
from netlab.path.asn import opened, with_asn
from netlab.schemas import HOPS

TABLE = """\
1.0.0.0\t1.0.0.255\t13335\tUS\tCLOUDFLARENET
1.0.1.0\t1.0.3.255\t0\tNone\tNot routed
10.0.0.0\t10.0.0.0\t64500\tZZ\t"QUOTED, Inc.
2001:db8::\t2001:db8:0:ffff:ffff:ffff:ffff:ffff\t64501\tZZ\tNA
"""
OWNERS = [
    ("1.0.0.0", (13335, "CLOUDFLARENET")),
    ("1.0.0.255", (13335, "CLOUDFLARENET")),
    ("1.0.2.1", None),
    ("1.0.4.0", None),
    ("0.255.255.255", None),
    ("10.0.0.0", (64500, '"QUOTED, Inc.')),
    ("10.0.0.1", None),
    ("2001:db8::1", (64501, "NA")),
    ("2001:db7:ffff::", None),
    ("fe80::1%eth0", None),
]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "ip2asn-combined.tsv"
    path.write_text(TABLE)
    return path


def maxmind(path: Path, records: dict[str, dict[str, object]], kind: str = "GeoLite2-ASN") -> Path:
    writer = MMDBWriter(ip_version=6, ipv4_compatible=True, database_type=kind)
    for network, record in records.items():
        writer.insert_network(IPSet([network]), record)
    writer.to_db_file(str(path))
    return path


@pytest.mark.parametrize(("address", "owner"), OWNERS)
def test_a_table_tells_whose_range_an_address_is_in(table: Path, address: str, owner: object) -> None:
    with opened(table) as owners:
        assert owners.owner(address) == owner


def test_a_packed_table_tells_the_same(table: Path) -> None:
    packed = table.with_suffix(".tsv.gz")
    packed.write_bytes(gzip.compress(TABLE.encode()))

    with opened(packed) as owners:
        assert [owners.owner(address) for address, _ in OWNERS] == [owner for _, owner in OWNERS]


@st.composite
def ranges(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Return ranges of addresses that do not overlap, as numbers, in any order."""
    family = draw(st.sampled_from([32, 128]))
    bounds = sorted(draw(st.sets(st.integers(0, 2**family - 1), min_size=2, max_size=20)))
    return draw(st.permutations([*zip(bounds[::2], bounds[1::2], strict=False)]))


@given(ranges(), st.data())
def test_a_table_tells_what_looking_through_it_tells(
    tmp_path_factory: pytest.TempPathFactory, found: list[tuple[int, int]], data: st.DataObject
) -> None:
    kind = ipaddress.IPv6Address if max(max(pair) for pair in found) >= 2**32 else ipaddress.IPv4Address
    path = tmp_path_factory.mktemp("asn") / "table.tsv"
    rows = [(str(kind(a)), str(kind(b)), number) for number, (a, b) in enumerate(found, 1)]
    path.write_text("".join(f"{a}\t{b}\t{number}\tZZ\tAS\n" for a, b, number in rows))
    top = 2 ** kind(0).max_prefixlen - 1
    near = {min(max(edge + step, 0), top) for pair in found for edge in pair for step in (-1, 0, 1)}

    with opened(path) as owners:
        for wanted in near | {data.draw(st.integers(0, top))}:
            numbers = [number for number, (a, b) in enumerate(found, 1) if a <= wanted <= b]
            owner = owners.owner(str(kind(wanted)))
            assert [owner[0]] == numbers if owner else numbers == []


@pytest.mark.parametrize("order", [1, -1])
def test_of_ranges_within_ranges_the_narrowest_counts(tmp_path: Path, order: int) -> None:
    rows = [
        "10.0.0.0\t10.255.255.255\t1\tZZ\tWIDE\n",
        "10.0.0.0\t10.1.255.255\t2\tZZ\tIN\n",
        "10.1.2.0\t10.1.2.9\t3\tZZ\tINMOST\n",
    ]
    path = tmp_path / "nested.tsv"
    path.write_text("".join(rows[::order]))

    with opened(path) as owners:
        asked = ["10.0.0.0", "10.1.2.3", "10.1.3.0", "10.2.0.0", "11.0.0.0", "9.255.255.255"]
        found = [owners.owner(address) for address in asked]

    numbers = [owner and owner[0] for owner in found]
    assert numbers == [2, 3, 2, 1, None, None]


def test_a_maxmind_file_that_is_damaged_is_refused(tmp_path: Path) -> None:
    path = maxmind(tmp_path / "asn.mmdb", {"1.0.0.0/24": {"asn": 5, "name": "Example" * 9}})
    tree, marker, rest = path.read_bytes().partition(b"\xab\xcd\xefMaxMind.com")
    path.write_bytes(tree[:-80] + b"\xff" * 80 + marker + rest)

    with opened(path) as owners, pytest.raises(BadInput, match="is damaged"):
        owners.owner("1.0.0.1")


@pytest.mark.parametrize(
    ("text", "problem"),
    [("", "is empty"), ("10.0.0.0\t10.0.0.9\t4294967296\tUS\tX", "line 1: 4294967296 is no AS number")],
)
def test_a_table_without_as_numbers_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "table.tsv"
    path.write_text(text)

    with pytest.raises(BadInput, match=problem), opened(path):
        pass


def test_a_table_that_changed_is_read_again(table: Path) -> None:
    with opened(table) as owners:
        assert owners.owner("1.0.0.1") == (13335, "CLOUDFLARENET")
    table.write_text("1.0.0.0\t1.0.0.255\t64502\tZZ\tNEW\n")

    with opened(table) as owners:
        assert owners.owner("1.0.0.1") == (64502, "NEW")


def test_a_maxmind_file_tells_the_same_by_several_names(tmp_path: Path) -> None:
    path = maxmind(
        tmp_path / "asn.mmdb",
        {
            "1.0.0.0/24": {"autonomous_system_number": 13335, "autonomous_system_organization": "CLOUDFLARE"},
            "2001:db8::/32": {"asn": "AS64501", "name": "Example"},
            "10.0.0.0/8": {"asn": ""},
        },
    )

    with opened(path) as owners:
        assert owners.owner("1.0.0.9") == (13335, "CLOUDFLARE")
        assert owners.owner("2001:db8::9") == (64501, "Example")
        assert owners.owner("10.1.1.1") is None
        assert owners.owner("9.9.9.9") is None


def test_hops_get_numbers_and_names_and_keep_their_order(table: Path) -> None:
    addresses = ["10.0.0.0", None, "1.0.0.1", "192.0.2.1", "10.0.0.0"]
    hops = HOPS.frame({"ttl": [1, 2, 3, 4, 5], "address": addresses})

    found = with_asn(hops, table)

    assert found["asn"].fillna(-1).tolist() == [64500, -1, 13335, -1, 64500]
    assert found["as_name"].isna().tolist() == [False, True, False, True, False]
    assert (list(found), found.attrs) == (list(hops), hops.attrs)
    assert {name: str(dtype) for name, dtype in found.dtypes.items()} == {
        column.name: column.kind for column in HOPS.columns
    }


def written(path: Path, text: bytes) -> Path:
    path.write_bytes(text)
    return path


def test_files_that_are_no_database_are_refused(tmp_path: Path) -> None:
    city = maxmind(tmp_path / "city.mmdb", {"1.0.0.0/24": {"city": "Paris"}}, "GeoLite2-City")
    cases = [
        (tmp_path / "none.tsv", "cannot read"),
        (tmp_path, "is no table"),
        (None, "cannot read"),
        (written(tmp_path / "a.tsv", b"hello\n"), "is no table"),
        (written(tmp_path / "b.tsv", b"1.0.0.0\t1.0.0.9\tAS1\tZZ\tx\n"), "is no table"),
        (written(tmp_path / "c.tsv", b"1.0.0.0\t1.0.0\t1\tZZ\tx\n"), "line 1: '1.0.0' is no IPv4 address"),
        (written(tmp_path / "d.tsv", b"1.0.0.9\t1.0.0.0\t1\tZZ\tx\n"), "line 1: the range ends before"),
        (written(tmp_path / "e.tsv.gz", b"\x1f\x8b\x08not"), "is no table"),
        (written(tmp_path / "f.mmdb", os.urandom(64)), "is no MaxMind DB"),
        (city, "has no AS numbers: it is a GeoLite2-City"),
    ]
    hops = HOPS.frame({"address": ["1.0.0.1"]})

    for path, message in cases:
        with pytest.raises(BadInput, match=message):
            with_asn(hops, path)  # type: ignore[arg-type]


def test_without_the_package_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "maxminddb", None)

    with pytest.raises(CapabilityError, match="netlab\\[asn\\]"):
        with_asn(HOPS.frame({"address": ["1.0.0.1"]}), written(tmp_path / "a.mmdb", b""))


def test_a_frame_without_addresses_is_refused(table: Path) -> None:
    with pytest.raises(BadInput, match="needs the column 'address'"):
        with_asn(HOPS.frame({"ttl": [1]}).drop(columns="address"), table)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("flipped.tsv.gz", gzip.compress(TABLE.encode() * 50)[:40] + b"\xff\x00" * 60),
        ("table.tsv.xz", TABLE.encode()),
        ("table.tsv.zip", TABLE.encode()),
        ("table.tsv.zst", TABLE.encode()),
    ],
)
def test_a_table_that_cannot_be_unpacked_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(BadInput, match="is no table"), opened(tmp_path / name):
        pass


def test_a_database_may_have_no_number_for_some_providers(tmp_path: Path) -> None:
    records = {"1.0.0.0/24": {"isp": "Example"}, "2.0.0.0/24": {"autonomous_system_number": 64500}}
    path = maxmind(tmp_path / "isp.mmdb", records, kind="GeoIP2-ISP")

    with opened(path) as owners:
        assert [owners.owner(address) for address in ("1.0.0.1", "2.0.0.1")] == [None, (64500, None)]
