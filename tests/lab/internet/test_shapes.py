"""The shapes do what their files say: pure, without a kernel. Answers are read by scapy."""

from __future__ import annotations

import ipaddress

import pytest
from scapy.contrib.mpls import MPLS, ICMPExtension_MPLS
from scapy.layers import inet, inet6
from shapes import Case, having, kind, parsed, quote

from netlab.lab.internet.truth import Flow

PORTS = range(20000, 20200)


def journeys(case: Case, **options: int) -> list[object]:
    """Send one probe for each expected hop."""
    internet = case.internet()
    at_ns = round(case.at_s * 10**9)
    return [internet.carry(case.probe(ttl + 1, **options), at_ns) for ttl in range(len(case.wanted["hops"]))]


@pytest.mark.parametrize("case", having("hops"), ids=str)
def test_the_hops_are_those_of_the_file(case: Case) -> None:
    found = case.truth().hops(case.flow(), at_s=case.at_s)

    assert [set(hop) for hop in found] == case.addresses(case.wanted["hops"])


@pytest.mark.parametrize("case", having("hops"), ids=str)
def test_probes_made_by_scapy_are_answered_by_these_hops(case: Case) -> None:
    found = [parsed(j.answer).src if j.answer else None for j in journeys(case)]
    wanted = case.addresses(case.wanted["hops"])

    assert all(address in hop for address, hop in zip(found, wanted, strict=True))


@pytest.mark.parametrize("case", having("end"), ids=str)
def test_the_last_answer_is_what_the_file_says(case: Case) -> None:
    *before, last = journeys(case)

    assert kind(last.answer) == case.wanted["end"]
    assert {kind(journey.answer) for journey in before if journey.answer} <= {
        "time-exceeded",
        "admin-prohibited",
    }


@pytest.mark.parametrize("case", having("paths"), ids=str)
def test_a_flow_takes_the_paths_of_the_file(case: Case) -> None:
    assert case.truth().paths(case.flow()) == sorted(map(tuple, case.wanted["paths"]))


@pytest.mark.parametrize("case", having("spread"), ids=str)
def test_many_flows_or_targets_spread_over_all_paths_and_each_takes_one(case: Case) -> None:
    truth = case.truth()
    if "targets" in case.wanted:
        flows = [case.flow(target=str(target)) for target in ipaddress.ip_network(case.wanted["targets"])]
    else:
        flows = [case.flow(port) for port in PORTS]
    taken = [truth.paths(flow) for flow in flows]

    assert all(len(paths) == 1 for paths in taken)
    assert {paths[0] for paths in taken} == set(map(tuple, case.wanted["spread"]))


@pytest.mark.parametrize("case", having("spread_count"), ids=str)
def test_one_target_has_so_many_paths(case: Case) -> None:
    truth = case.truth()

    assert len({truth.paths(case.flow(port))[0] for port in PORTS}) == case.wanted["spread_count"]


@pytest.mark.parametrize("case", having("all_hops"), ids=str)
def test_all_flows_together_see_all_hops(case: Case) -> None:
    truth = case.truth()
    tables = [truth.hops(case.flow(port)) for port in PORTS]
    seen = [
        {address for table in tables if len(table) > ttl for address in table[ttl]}
        for ttl in range(max(map(len, tables)))
    ]

    assert seen == case.addresses(case.wanted["all_hops"])


@pytest.mark.parametrize("case", having("rtt_ms"), ids=str)
def test_the_round_trip_times_are_the_sums_of_the_delays(case: Case) -> None:
    assert [j.delay_ns / 10**6 for j in journeys(case)] == case.wanted["rtt_ms"]


@pytest.mark.parametrize("case", having("labels"), ids=str)
def test_scapy_reads_the_labels_of_the_file(case: Case) -> None:
    found = []
    for journey in journeys(case):
        packet = parsed(journey.answer)
        stack = packet[ICMPExtension_MPLS].stack if ICMPExtension_MPLS in packet else []
        found.append(
            [entry.label for top in stack for entry in top.iterpayloads() if isinstance(entry, MPLS)]
        )

    assert found == case.wanted["labels"]


@pytest.mark.parametrize("case", having("reply_ttls"), ids=str)
def test_answers_lose_one_of_their_ttl_at_each_router_on_their_way_back(case: Case) -> None:
    assert [parsed(j.answer).ttl for j in journeys(case)] == case.wanted["reply_ttls"]


@pytest.mark.parametrize("case", having("burst"), ids=str)
def test_the_rate_limit_lets_as_many_answers_through_as_its_bucket_holds(case: Case) -> None:
    internet, burst = case.internet(), case.wanted["burst"]
    found = [internet.carry(case.probe(burst["ttl"]), round(at_s * 10**9)) for at_s in burst["at_s"]]

    assert [journey.answer is not None for journey in found] == burst["answered"]
    assert {j.outcome for j in found} == {"answered", "rate-limited"}


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("case", having("sizes"), ids=str)
def test_what_is_too_big_is_answered_by_whom_the_file_says(case: Case, family: int) -> None:
    case.wanted["family"] = family
    for size in case.wanted["sizes"]:
        packet = case.probe(64, size=size["bytes"], dont_fragment=True)
        answer = case.internet().carry(packet, 0).answer

        assert len(packet) == size["bytes"]
        assert (parsed(answer).src if answer else None) == case.address(size["from"])
        if "says" in size:
            packet = parsed(answer)
            assert kind(answer) == "too-big"
            assert size["says"] == (packet[inet.ICMP].nexthopmtu if family == 4 else packet.payload.mtu)


@pytest.mark.parametrize("case", having("sizes"), ids=str)
def test_what_may_be_cut_arrives_and_later_routers_quote_its_first_fragment(case: Case) -> None:
    packet = case.probe(4, size=1500)
    answer = case.internet().carry(packet, 0).answer
    quoted = inet.IP(quote(answer))

    assert parsed(answer).src == case.address("r4")
    assert quoted.flags.MF
    assert quoted.len <= 1300
    assert kind(case.internet().carry(case.probe(64, size=1500), 0).answer) == "port-unreachable"


@pytest.mark.parametrize("case", having("quoted_bytes"), ids=str)
def test_quotes_are_as_long_as_the_file_says(case: Case) -> None:
    found = journeys(case, size=case.wanted["sent_bytes"])

    assert [len(quote(j.answer)) - 20 for j in found] == case.wanted["quoted_bytes"]


@pytest.mark.parametrize("case", having("quoted_tos"), ids=str)
def test_quotes_show_the_service_class_that_arrived(case: Case) -> None:
    found = journeys(case, tos=case.wanted["sent_tos"])

    assert [inet.IP(quote(j.answer)).tos for j in found] == case.wanted["quoted_tos"]


@pytest.mark.parametrize("case", having("quotes"), ids=str)
def test_quotes_have_been_through_the_nat_as_the_file_says(case: Case) -> None:
    for ttl, journey in enumerate(journeys(case), start=1):
        sent, error = parsed(case.probe(ttl)), journey.answer
        if kind(error) not in {"time-exceeded", "port-unreachable"}:
            continue
        quoted = parsed(quote(error))
        size = len(quoted.payload)
        translated = case.wanted["quotes"] if journey.answered_by != "home" else "restored"
        if translated == "kept":
            assert (quoted.src, quoted.sport) == ("192.0.2.1", sent.sport + 1000)
            continue
        assert quoted.src == sent.src
        if translated == "restored":
            assert bytes(quoted.payload) == bytes(sent.payload)[:size]
        else:
            assert quoted.sport == sent.sport
            assert quoted[inet.UDP].chksum != sent[inet.UDP].chksum


def test_a_tcp_host_that_permits_sack_says_which_bytes_came_early() -> None:
    case = next(case for case in having("end") if case.name == "hosts" and case.wanted.get("port") == 85)
    internet = case.internet()
    source, target = case.address("client"), case.address("web")
    ports = {"sport": 5000, "dport": 85}

    def send(**fields: object) -> object:
        data = fields.pop("data", b"")
        packet = inet.IP(src=source, dst=target) / inet.TCP(**ports, **fields) / data
        answer = internet.carry(bytes(packet), 0).answer
        return answer and inet.IP(answer)[inet.TCP]

    synack = send(seq=100, flags="S", options=[("SAckOK", b"")])
    assert ("SAckOK", b"") in synack.options
    assert synack.ack == 101
    assert send(seq=101, ack=synack.seq + 1, flags="A") is None
    early = send(seq=111, ack=synack.seq + 1, flags="A", data=b"x" * 5)
    assert (early.ack, early.options) == (101, [("NOP", None), ("NOP", None), ("SAck", (111, 116))])
    earlier = send(seq=131, ack=synack.seq + 1, flags="A", data=b"x")
    assert earlier.options[-1] == ("SAck", (131, 132, 111, 116))
    joined = send(seq=101, ack=synack.seq + 1, flags="A", data=b"x" * 10)
    assert (joined.ack, joined.options[-1]) == (116, ("SAck", (131, 132)))
    assert send(seq=200, flags="S").flags == "A"  # a challenge, for the connection is open
    assert send(seq=116, flags="R") is None
    assert send(seq=300, flags="S").flags == "SA"


def test_every_udp_answer_comes_back_with_the_payload() -> None:
    case = next(case for case in having("end") if case.wanted["end"] == "udp-reply")
    packet = inet.IP(src=case.address("client"), dst=case.address("web"))
    answer = case.internet().carry(bytes(packet / inet.UDP(sport=5, dport=53) / b"question"), 0).answer

    assert bytes(inet.IP(answer)[inet.UDP].payload) == b"question"


@pytest.mark.parametrize("family", [4, 6])
def test_an_echo_is_answered_with_what_it_asked(family: int) -> None:
    case = next(case for case in having("hops") if case.name == "chain")
    case.wanted["family"] = family
    case.wanted["protocol"] = "icmp"
    answer = parsed(case.internet().carry(case.probe(64, size=200), 0).answer)

    assert kind(bytes(answer)) == "echo-reply"
    assert (answer.payload.id, answer.payload.seq) == (77, 5)
    assert len(answer) == 200


def test_an_unknown_node_is_refused_with_the_nearest_name() -> None:
    truth = having("hops")[0].truth()

    with pytest.raises(ValueError, match="Did you mean 'client'"):
        truth.paths(Flow("clinet"))


def test_ipv6_answers_start_with_a_hop_limit_too() -> None:
    case = next(case for case in having("hops") if case.name == "asymmetric")
    case.wanted["family"] = 6

    assert isinstance(parsed(journeys(case)[1].answer), inet6.IPv6)
    assert [parsed(j.answer).hlim for j in journeys(case)] == case.wanted["reply_ttls"]
