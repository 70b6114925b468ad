"""Messages read as dnspython, an independent reader, reads them."""

from __future__ import annotations

import contextlib

import dns.edns
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given, settings, strategies as st

from netlab.errors import BadInput, DecodeError
from netlab.protocols.dns import text
from netlab.protocols.dns.message import (
    CNAME,
    CUT,
    MOST_QUESTIONS,
    MOST_RECORDS,
    QUERY,
    Question,
    Record,
    read,
)
from netlab.protocols.masking import masking

LABELS = st.binary(min_size=1, max_size=20)
NAMES = st.lists(LABELS, min_size=0, max_size=6).map(lambda labels: dns.name.Name([*labels, b""]))
TYPES = ["A", "AAAA", "CNAME", "PTR", "MX", "TXT", "SRV", "NS", "SOA", "CAA", "HTTPS"]
SAID = {
    "A": "192.0.2.1",
    "AAAA": "2001:db8::1",
    "CNAME": "Other.example.",
    "PTR": "Host.example.",
    "MX": "10 Mail.example.",
    "TXT": '"two words" "and \\"more\\""',
    "SRV": "1 2 53 Server.example.",
    "NS": "ns.example.",
    "SOA": "ns.example. admin.example. 1 2 3 4 5",
    "CAA": '0 issue "ca.example"',
    "HTTPS": '1 . alpn="h2"',
}


def plain(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower()


@given(
    name=NAMES,
    kind=st.sampled_from(TYPES),
    ttl=st.integers(0, 2**31 - 1),
    numbers=st.tuples(st.integers(0, 0xFFFF), st.integers(0, 4095), st.integers(0, 0xFFFF)),
)
def test_a_message_is_read_as_dnspython_wrote_it(
    name: dns.name.Name, kind: str, ttl: int, numbers: tuple[int, int, int]
) -> None:
    number, rcode, size = numbers
    query = dns.message.make_query(name, kind, id=number, use_edns=0, payload=size)
    answer = dns.message.make_response(query, our_payload=size)
    answer.set_rcode(dns.rcode.Rcode.make(rcode))
    answer.answer.append(dns.rrset.from_text(name, ttl, "IN", kind, SAID[kind]))
    wire = answer.to_wire()

    asked, answered = read(query.to_wire()), read(wire)

    question = Question(plain(name), dns.rdatatype.from_text(kind), 1)
    told = answer.answer[0][0].to_text().removesuffix(".")
    record = Record(question.name, question.type, ttl, told.lower() if kind == "CNAME" else told)
    assert (asked.id, asked.is_answer, asked.edns_bytes) == (number, False, size)
    assert asked.questions == answered.questions == (question,)
    assert (answered.is_answer, answered.rcode, answered.size_bytes) == (True, rcode, len(wire))
    assert answered.records == (record,)


@given(st.binary(max_size=200), st.binary(max_size=8), st.integers(0, 200))
@settings(max_examples=2000)
def test_garbage_is_read_or_refused_and_never_more_than_dnspython_reads(
    tail: bytes, damage: bytes, place: int
) -> None:
    query = dns.message.make_query("www.example.", "MX", use_edns=0)
    answer = dns.message.make_response(query)
    answer.answer.append(dns.rrset.from_text("www.example.", 60, "IN", "MX", "10 mail.example."))
    wire = bytearray(answer.to_wire() + tail)
    wire[place : place + len(damage)] = damage

    with contextlib.suppress(DecodeError):
        found = read(bytes(wire))
        if found.opcode != QUERY:  # dnspython holds updates to more rules
            return
        theirs = dns.message.from_wire(bytes(wire), question_only=True)
        assert found.id == theirs.id
        assert len(found.questions) == min(len(theirs.question), MOST_QUESTIONS)


@pytest.mark.parametrize(
    "name",
    [b"\xc0\x0c", b"\x01a\xc0\x0c", b"\x01a\xc0\x0e", b"\xc0\xff", b"\x40", b"\x3f" + b"a" * 63, b"\x80"],
    ids=["itself", "its label", "forward", "behind the end", "a type of label", "no end", "reserved"],
)
def test_a_name_that_cannot_end_is_refused(name: bytes) -> None:
    header = bytes.fromhex("000100000001000000000000")

    with pytest.raises(DecodeError):
        read(header + name + b"\x00\x01\x00\x01")


def test_a_name_longer_than_255_octets_is_refused() -> None:
    header = bytes.fromhex("000100000001000000000000")

    with pytest.raises(DecodeError, match="too long"):
        read(header + b"\x3f" * 1 + b"a" * 63 + (b"\x3f" + b"b" * 63) * 4 + b"\x00\x00\x01\x00\x01")


def test_a_name_of_more_pointers_than_labels_fit_into_one_is_refused() -> None:
    header = bytes.fromhex("000180000001000200000000")
    wire = header + b"\1a\0\0\1\0\1"  # pointers to pointers follow, as the data of a record
    begin = len(wire) + 12
    links = [12, *range(begin, begin + 2 * 199, 2)]
    data = b"".join((0xC000 | link).to_bytes(2, "big") for link in links)
    wire += b"\xc0\x0c\0\x63\0\1\0\0\0\1" + len(data).to_bytes(2, "big") + data
    last = (0xC000 | links[-1] + 2).to_bytes(2, "big")

    with pytest.raises(DecodeError, match="too long"):
        read(wire + last + b"\0\1\0\1\0\0\0\1\0\4\1\2\3\4")


def test_names_go_back_from_pointer_to_pointer() -> None:
    query = dns.message.make_query("a.b.example.", "A")
    answer = dns.message.make_response(query)
    chain = [("a.b.example.", "c.b.example."), ("c.b.example.", "d.b.example.")]
    answer.answer += [dns.rrset.from_text(owner, 1, "IN", "CNAME", target) for owner, target in chain]

    found = read(answer.to_wire()).records

    assert [(r.name, r.type, r.text) for r in found] == [
        ("a.b.example", CNAME, "c.b.example"),
        ("c.b.example", CNAME, "d.b.example"),
    ]


def test_the_end_of_a_truncated_message_may_be_missing() -> None:
    answer = dns.message.make_response(dns.message.make_query("www.example.", "TXT"))
    answer.answer.append(dns.rrset.from_text("www.example.", 60, "IN", "TXT", "one", "two"))
    wire = answer.to_wire()

    with pytest.raises(DecodeError):
        read(wire[:-3])

    assert len(read(wire[:-3], size_bytes=len(wire)).records) == 1
    answer.flags |= dns.flags.TC
    assert len(read(answer.to_wire()[:-3]).records) == 1


@pytest.mark.parametrize(
    ("kind", "data", "said"), [(16, "", r"\# 0"), (15, "00", r"\# 1 00"), (1, "0102", r"\# 2 0102")]
)
def test_a_record_that_is_not_as_its_type_says_is_told_as_bytes(kind: int, data: str, said: str) -> None:
    body = bytes.fromhex(data)
    question = b"\1a\0" + kind.to_bytes(2) + b"\0\1"
    record = question + bytes(4) + len(body).to_bytes(2) + body

    found = read(bytes.fromhex("000184000001000100000000") + question + record)

    assert [one.text for one in found.records] == [said]


def test_of_very_many_records_the_first_are_kept_and_the_cut_shows() -> None:
    query = dns.message.make_query("www.example.", "A", use_edns=0, payload=1232)
    answer = dns.message.make_response(query)
    many = [f"10.0.{n >> 8}.{n & 255}" for n in range(1000)]
    answer.answer.append(dns.rrset.from_text("www.example.", 60, "IN", "A", *many))

    found = read(answer.to_wire(max_size=65_535))

    assert len(found.records) == MOST_RECORDS
    assert {record.text for record in found.records[:-1]} <= set(many)
    assert found.records[-1].text == CUT
    assert found.edns_bytes is not None


def test_types_classes_and_codes_have_names() -> None:
    assert [text.of_type(*each) for each in [(28, 1), (16, 3), (65280, 1)]] == ["AAAA", "CH TXT", "TYPE65280"]
    assert [text.of_rcode(code) for code in (0, 3, 16, 3841)] == [
        "NOERROR",
        "NXDOMAIN",
        "BADVERS",
        "RCODE3841",
    ]


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("vault-7.eu.corp.example", "*.corp.example"),
        ("corp.example", "corp.example"),
        ("vault.corp.example.com", "vault.corp.example.com"),
        ("vault.notcorp.example", "vault.notcorp.example"),
        ("1 2 53 Vault.Corp.Example", "1 2 53 *.Corp.Example"),
        ('"v=spf1 include:vault.corp.example -all"', '"v=spf1 *.corp.example -all"'),
        ('10 1 "https://vault.corp.example/x"', '10 1 "*.corp.example/x"'),
        (r"va\"ult\ 1.corp.example", "*.corp.example"),
        (
            "a.corp.example b.deep.corp.example c.other.example",
            "*.corp.example *.deep.corp.example c.other.example",
        ),
    ],
)
def test_a_mask_hides_the_labels_before_its_suffix(said: str, shown: str) -> None:
    mask = masking(domains=["corp.example.", "deep.corp.example"]).domain

    assert mask(said.replace(r"\ ", r"\032")) == shown


@pytest.mark.parametrize("suffix", ["", ".", "a b", "*", 7])
def test_a_mask_of_no_domain_is_refused(suffix: str) -> None:
    with pytest.raises(BadInput, match="mask_names"):
        masking(domains=[suffix])
