"""What answers reveal of the way: over the simulated internet, whose shapes say what is true."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from scapy.layers import inet, inet6
from shapes import Case, having

from netlab import lab
from netlab.errors import BadInput
from netlab.path import quotes
from netlab.path.trace import traceroute
from netlab.wire import extensions, icmp
from netlab.wire.extensions import Label

both = pytest.mark.parametrize("family", [4, 6])


def trace(case: Case, **options: Any) -> pd.DataFrame:
    """Return a trace over the case's shape, a row for each TTL."""
    wanted = case.wanted
    options = {"protocol": wanted.get("protocol", "udp"), "family": case.family, "queries": 1} | options
    with lab.simulated(case.graph) as net:
        target = net.address(wanted["target"], options["family"])
        return traceroute(target, netns=net.client.netns, **options)


@pytest.mark.privileged
@both
@pytest.mark.parametrize("protocol", ["udp", "tcp", "icmp"])
@pytest.mark.parametrize("case", having("labels"), ids=str)
def test_labels_are_those_of_the_shape(case: Case, protocol: str, family: int) -> None:
    hops = trace(case, protocol=protocol, family=family)

    found = [
        [int(entry.split(",")[0].removeprefix("L=")) for entry in text.split("/") if entry]
        for text in hops["mpls"].fillna("")
    ]
    assert found == case.wanted["labels"]


@pytest.mark.privileged
def test_labels_are_written_as_traceroute_does() -> None:
    hops = trace(having("labels")[0])

    assert hops["mpls"][1] == "L=16001,E=0,S=0,T=1/L=24005,E=5,S=1,T=1"


@pytest.mark.privileged
@both
@pytest.mark.parametrize("protocol", ["udp", "tcp", "icmp"])
@pytest.mark.parametrize("case", having("quoted_tos"), ids=str)
def test_quotes_tell_where_the_service_class_is_rewritten(case: Case, protocol: str, family: int) -> None:
    sent = case.wanted["sent_tos"]
    hops = trace(case, protocol=protocol, family=family, dscp=sent >> 2, ecn=sent & 3)

    quoted = hops[hops["quoted_ttl"].notna()]
    tos = quoted["quoted_dscp"] * 4 + quoted["quoted_ecn"]
    assert tos.tolist() == case.wanted["quoted_tos"][: len(tos)]
    assert len(tos) >= 3  # only the target does not quote, where it does not answer with an error
    assert set(hops["dscp"] * 4 + hops["ecn"]) == {sent}


@pytest.mark.privileged
@pytest.mark.parametrize("case", having("rewritten"), ids=str)
def test_quotes_tell_what_a_nat_has_rewritten(case: Case) -> None:
    hops = trace(case)

    assert hops["rewritten"].tolist() == case.wanted["rewritten"]


@pytest.mark.privileged
@both
@pytest.mark.parametrize("case", having("return_hops"), ids=str)
def test_the_ttl_of_answers_tells_how_long_the_way_back_is(case: Case, family: int) -> None:
    assert trace(case, family=family)["return_hops"].tolist() == case.wanted["return_hops"]


@pytest.mark.privileged
def test_probes_end_where_their_ttl_is_used_up() -> None:
    case = next(case for case in having("hops") if case.name == "chain")
    hops = trace(case)

    assert hops["quoted_ttl"].tolist() == [1] * len(hops)


@pytest.mark.privileged
@pytest.mark.parametrize("option", [{"dscp": 64}, {"dscp": -1}, {"ecn": 4}, {"dscp": "ef"}])
def test_a_service_class_that_cannot_be_is_refused(option: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="is not a whole number from 0"):
        traceroute("127.0.0.1", **option)


SENT4 = bytes(inet.IP(src="10.0.0.1", dst="10.0.0.2", id=7) / inet.UDP(sport=5, dport=6) / b"abcd")
SENT6 = bytes(inet6.IPv6(src="fd::1", dst="fd::2", fl=9) / inet.TCP(sport=5, dport=6))
SENT1 = bytes(inet.IP(src="10.0.0.1", dst="10.0.0.2", id=7) / inet.ICMP(id=3, seq=4))


@pytest.mark.parametrize(
    ("sent", "change", "found"),
    [
        (SENT4, {}, ()),
        (SENT4, {"ttl": 3, "tos": 9}, ()),
        (SENT4, {"src": "192.0.2.1"}, ("source", "checksum")),
        (SENT4, {"id": 8}, ("id",)),
        (SENT4, {"sport": 77}, ("source port", "checksum")),
        (SENT6, {"fl": 8}, ("flow label",)),
        (SENT6, {"src": "fd::3", "sport": 9}, ("source", "source port", "checksum")),
        (SENT1, {"src": "192.0.2.1"}, ("source",)),  # ICMP's checksum does not cover addresses
    ],
)
def test_what_a_router_saw_otherwise_is_named(sent: bytes, change: dict[str, Any], found: tuple[str]) -> None:
    quoted = seen(sent, changed(sent, **change))

    assert quoted.changed == found


def test_what_the_quote_does_not_show_is_not_said_to_have_changed() -> None:
    short = changed(SENT6, src="fd::3")[: 40 + 8]  # a TCP checksum is further back

    assert seen(SENT6, short).changed == ("source",)


def test_the_zeros_that_fill_a_short_quote_are_no_change() -> None:
    sent = bytes(inet.IP(src="10.0.0.1", dst="10.0.0.2", id=7) / inet.TCP(sport=5, dport=6, seq=9))
    message = extensions.extended(error(sent[: 20 + 8]), [extensions.encode_labels([Label(5)])])

    assert quotes.quoted(sent, icmp.quote(message), message).changed == ()


def test_damaged_extensions_have_no_labels() -> None:
    message = error(SENT4)
    whole = extensions.extended(message, [extensions.encode_labels([Label(5)])])
    broken = icmp.Message(family=4, type=11, code=0, rest=whole.rest, body=whole.body[:-1] + b"\xff")

    assert quotes.labels(whole) == [Label(5)]
    assert quotes.labels(broken) == []
    assert quotes.labels(message) == []


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(("told", "mtu_bytes"), [(1400, 1400), (0, None)])
def test_the_mtu_of_the_next_link_is_what_the_router_says(
    family: int, told: int, mtu_bytes: int | None
) -> None:
    what = icmp.Error.FRAGMENTATION_NEEDED if family == 4 else icmp.Error.PACKET_TOO_BIG
    sent = SENT4 if family == 4 else SENT6
    message = icmp.error(family, what, sent, mtu_bytes=told)

    assert quotes.quoted(sent, icmp.quote(message), message).mtu_bytes == mtu_bytes
    assert seen(sent, sent).mtu_bytes is None


def seen(sent: bytes, arrived: bytes) -> quotes.Quoted:
    message = error(arrived)
    return quotes.quoted(sent, icmp.quote(message), message)


def changed(packet: bytes, **fields: Any) -> bytes:
    """Return *packet* with other fields and the checksums that belong to them."""
    parsed: Any = inet.IP(packet) if packet[0] >> 4 == 4 else inet6.IPv6(packet)
    for name, value in fields.items():
        layer = parsed if name in parsed.fields else parsed.payload
        layer.setfieldval(name, value)
    for layer in (parsed, parsed.payload):
        if "chksum" in layer.fields:
            del layer.chksum
    return bytes(parsed)


def error(quoted: bytes) -> icmp.Message:
    return icmp.error(4 if quoted[0] >> 4 == 4 else 6, icmp.Error.TIME_EXCEEDED, quoted)
