"""Traces by a process without any capability, over simulated internets and over real kernels."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest
from shapes import Case, having

from netlab import lab
from netlab.errors import BadInput, CapabilityError, ProbeError
from netlab.frames import coverage
from netlab.kernel import capabilities
from netlab.path.graph import path_graph
from netlab.path.trace import trace_many, traceroute
from netlab.schemas import HOPS
from netlab.wire import ip

Chain = Network = Any  # the fixtures' classes live in conftest.py

pytestmark = pytest.mark.privileged  # the networks are; the traces are not
both = pytest.mark.parametrize("family", [4, 6])
kinds = pytest.mark.parametrize("protocol", ["udp", "icmp", "tcp"])

IN_HEADERS = "reply_id, quoted_ttl, quoted_dscp, quoted_ecn, rewritten"
PINGS = "net.ipv4.ping_group_range=0 2147483647"
SINGLE = [
    case for case in having("hops") if all(len(hop) == 1 for hop in case.wanted["hops"]) and not case.at_s
]


def unprivileged(target: str, netns: str, **options: Any) -> pd.DataFrame:
    return traceroute(target, netns=netns, method="unprivileged", **options)


def path(hops: pd.DataFrame) -> list[set[str]]:
    """Return who answered at each TTL, from the first."""
    return [set(addresses.dropna()) for _, addresses in hops.groupby("ttl")["address"]]


TRACE = """
import json, sys
import netlab
from netlab.kernel import capabilities
assert not capabilities.effective()
hops = netlab.traceroute(sys.argv[1], **json.loads(sys.argv[2]))
print(hops[["ttl", "address", "reply", "method", "clock"]].to_json(orient="records"))
"""


def without_capabilities(netns: str, target: str, **options: Any) -> list[dict[str, Any]]:
    """Trace from a process that has no capability in any namespace."""
    inside = [
        "ip",
        "netns",
        "exec",
        netns,
        "setpriv",
        "--bounding-set=-all",
        "--inh-caps=-all",
        "--no-new-privs",
    ]
    text = subprocess.check_output([*inside, sys.executable, "-c", TRACE, target, json.dumps(options)])
    found: list[dict[str, Any]] = json.loads(text)
    return found


@pytest.fixture(autouse=True, scope="module")
def _pings(chain: Chain, diamond: Network) -> None:
    chain.run("client", "sysctl", "-qw", PINGS)
    diamond.run("client", "sysctl", "-qw", PINGS)


@both
@kinds
def test_a_process_without_capabilities_finds_every_hop_by_itself(
    chain: Chain, family: int, protocol: str
) -> None:
    hops = without_capabilities(chain.client, chain.target(family), protocol=protocol, queries=1)

    assert [hop["address"] for hop in hops] == chain.hops(family)
    assert {hop["method"] for hop in hops} == {"unprivileged"}
    assert hops[-1]["reply"] == {"udp": "port-unreachable", "icmp": "echo-reply", "tcp": "rst"}[protocol]
    assert {hop["clock"] for hop in hops[:-1]} == {"kernel-receive"}


def test_a_process_with_cap_net_raw_uses_it(chain: Chain) -> None:
    hops = traceroute(chain.target(4), netns=chain.client)

    assert set(hops["method"]) == {"raw"}


@both
@kinds
def test_every_query_is_answered_over_real_kernels(chain: Chain, family: int, protocol: str) -> None:
    hops = unprivileged(chain.target(family), chain.client, protocol=protocol, queries=5)

    assert path(hops) == [{address} for address in chain.hops(family)]
    assert len(hops) == 5 * len(chain.hops(family))
    assert hops["address"].notna().all()
    assert (hops["rtt_ms"] > 0).all()
    assert list(hops.columns) == HOPS.names
    assert hops.dtypes.astype(str).equals(traceroute("127.0.0.1").dtypes.astype(str))


@both
@kinds
def test_many_targets_are_traced_side_by_side(chain: Chain, family: int, protocol: str) -> None:
    targets = chain.hops(family)
    hops = trace_many(
        targets, protocol=protocol, netns=chain.client, method="unprivileged", queries=1, packets_per_s=1000
    )

    for number, target in enumerate(targets, 1):
        rows = hops[hops["target"] == target]
        assert rows["address"].tolist() == targets[:number]
        assert rows["reached"].tolist() == [False] * (number - 1) + [True]
    if protocol != "icmp":
        assert len(set(hops["source_port"])) == 1


@both
@kinds
def test_the_own_host_is_one_hop(chain: Chain, family: int, protocol: str) -> None:
    hops = unprivileged("127.0.0.1" if family == 4 else "::1", chain.client, protocol=protocol)

    assert hops["reached"].tolist() == [True] * 3
    assert set(hops["ttl"]) == {1}


@both
def test_an_open_port_answers_syn_ack_and_keeps_no_connection(chain: Chain, family: int) -> None:
    target = chain.target(family)

    with chain.listening("server", target, 8090):
        hops = unprivileged(target, chain.client, protocol="tcp", port=8090)
        left = chain.output("server", "ss", "-Htan", "sport = :8090")

    assert hops.loc[hops["reached"], "reply"].tolist() == ["syn-ack"] * 3
    assert path(hops) == [{address} for address in chain.hops(family)]
    assert [line.split()[0] for line in left.splitlines()] == ["LISTEN"]


@both
@kinds
def test_a_silent_router_is_rows_without_address_and_the_rest_is_found(
    chain: Chain, family: int, protocol: str
) -> None:
    expected = [{address} for address in chain.hops(family)]
    expected[1] = set()

    with chain.silent("r2"):
        hops = unprivileged(chain.target(family), chain.client, protocol=protocol)

    assert path(hops) == expected
    assert (hops["ttl"] == 2).sum() == 3
    assert coverage(hops)["what"].tolist() == ["late answers", IN_HEADERS]


@both
@kinds
def test_labels_are_those_that_raw_sockets_show(family: int, protocol: str) -> None:
    (case,) = having("labels")
    with lab.simulated(case.graph) as net:
        net.client.run(["sysctl", "-qw", PINGS])
        target = net.address("web", family)
        raw = traceroute(target, netns=net.client.netns, protocol=protocol)
        hops = unprivileged(target, net.client.netns, protocol=protocol)

    assert hops["mpls"].notna().any()
    assert hops["mpls"].equals(raw["mpls"])
    assert raw["quoted_ttl"].notna().any()
    assert hops[IN_HEADERS.split(", ")].isna().all(axis=None)
    assert IN_HEADERS in set(coverage(hops)["what"])


@both
def test_a_server_that_answers_over_udp_is_reached(chain: Chain, family: int) -> None:
    with chain.replying("server", chain.target(family), 5363):
        hops = unprivileged(chain.target(family), chain.client, port=5363)

    assert path(hops) == [{address} for address in chain.hops(family)]
    assert hops.loc[hops["reached"], "reply"].tolist() == ["udp-reply"] * 3


@kinds
def test_a_dead_target_is_not_reached(chain: Chain, protocol: str) -> None:
    drop = "type filter hook input priority 0\nmeta l4proto { tcp, udp, icmp } drop"
    with chain.rules("server", drop):
        hops = unprivileged(
            chain.target(4), chain.client, protocol=protocol, max_ttl=6, timeout_s=0.2, queries=2
        )

    assert path(hops) == [{address} for address in chain.hops(4)[:3]] + [set()] * 3
    assert not hops["reached"].any()


@kinds
def test_that_answers_from_another_address_are_not_heard_is_told(chain: Chain, protocol: str) -> None:
    chain.ip("server", "address add 10.99.4.77/24 dev to-r3")
    away = "type filter hook output priority -300\nip saddr 10.99.4.2 notrack ip saddr set 10.99.4.77"
    with chain.replying("server", "10.99.4.2", 33_434), chain.rules("server", away):
        hops = unprivileged("10.99.4.2", chain.client, protocol=protocol, max_ttl=5, timeout_s=0.2)
    chain.ip("server", "address delete 10.99.4.77/24 dev to-r3")

    told = coverage(hops)
    (detail,) = told.loc[told["what"] == "answers of the target", "detail"]
    assert not hops["reached"].any()
    assert ("came from 10.99.4.77" if protocol == "icmp" else "answers from another one") in detail


@both
@kinds
def test_no_link_is_false_behind_a_load_balancer_of_real_kernels(
    diamond: Network, family: int, protocol: str
) -> None:
    seen = set()
    for _ in range(8):
        hops = unprivileged(
            "10.99.2.2" if family == 4 else "fd99:2::2", diamond.netns("client"), protocol=protocol
        )
        upper, lower = path(hops)[1:3]
        assert len(upper) == len(lower) == 1
        branch = upper.pop().replace("::", ".0.").replace(":", ".").split(".")[-3 if family == 6 else 2]
        seen.add(branch)
    assert len(seen) > 1 or protocol == "icmp"


@pytest.mark.parametrize("case", SINGLE, ids=str)
def test_the_hops_are_those_of_the_shape(case: Case) -> None:
    flow = case.flow()
    options = {} if flow.protocol == "icmp" else {"port": flow.port, "source_port": flow.source_port}
    with lab.simulated(case.graph) as net:
        net.client.run(["sysctl", "-qw", PINGS])
        hops = unprivileged(
            case.address(flow.target) or "", net.client.netns, protocol=flow.protocol, max_ttl=9,
            timeout_s=0.3, **options,
        )  # fmt: skip

    wanted = case.addresses(case.wanted.get("traceroute") or case.wanted["hops"])
    if (
        case.wanted.get("end") == "rst"
    ):  # acknowledges nothing: the kernel drops it (RFC 9293 section 3.10.7.3)
        wanted[-1] = {None}
    found = path(hops)
    assert [hop or {None} for hop in found[: len(wanted)]] == wanted
    assert not any(found[len(wanted) :])


@pytest.fixture(scope="module")
def balanced() -> Iterator[lab.SimulatedInternet]:
    (graph,) = {id(case.graph): case.graph for case in having("all_hops") if case.name == "diamond"}.values()
    with lab.simulated(graph) as net:
        net.client.run(["sysctl", "-qw", PINGS])
        yield net


@both
@kinds
def test_no_link_is_false_behind_a_simulated_load_balancer(
    balanced: lab.SimulatedInternet, family: int, protocol: str
) -> None:
    links = {
        (balanced.address(near, family), balanced.address(far, family))  # type: ignore[arg-type]
        for near, far in balanced.topology.edges
    }
    seen = set()
    for _ in range(10):
        hops = unprivileged(
            balanced.address("web", family), balanced.client.netns, protocol=protocol, queries=2
        )  # type: ignore[arg-type]
        found = [hop for _, hop in path_graph(hops).edges]
        ways = [next(iter(hop)) for hop in path(hops)]
        assert set(itertools.pairwise(ways)) <= links | {(b, a) for a, b in links}
        assert found
        seen.add(ways[1])
    assert len(seen) > 1


@both
def test_the_same_ports_take_the_same_way_as_with_raw_sockets(
    balanced: lab.SimulatedInternet, family: int
) -> None:
    target, netns = balanced.address("web", family), balanced.client.netns  # type: ignore[arg-type]
    for protocol, first in (("udp", 41_000), ("tcp", 42_000)):
        for source_port in range(first, first + 4):
            ways = [
                path(
                    traceroute(
                        target,
                        netns=netns,
                        protocol=protocol,
                        source_port=source_port,
                        method=method,
                        queries=1,
                    )
                )
                for method in ("raw", "unprivileged")
            ]
            assert ways[0] == ways[1]


@both
@kinds
def test_packets_have_the_dscp_asked_for(balanced: lab.SimulatedInternet, family: int, protocol: str) -> None:
    before = len(balanced.truth.journeys())
    unprivileged(
        balanced.address("web", family),  # type: ignore[arg-type]
        balanced.client.netns,
        protocol=protocol,
        dscp=10,
        queries=1,
    )

    headers = [ip.decode(journey.packet)[0] for journey in balanced.truth.journeys()[before:]]
    sent = {h.tos if isinstance(h, ip.IPv4) else h.traffic_class for h in headers}
    assert sent == {10 << 2}


def test_what_only_raw_sockets_can_do_is_refused(chain: Chain) -> None:
    with pytest.raises(CapabilityError, match="tcp-sack"):
        unprivileged(chain.target(4), chain.client, protocol="tcp-sack")
    with pytest.raises(BadInput, match="ecn"):
        unprivileged(chain.target(4), chain.client, protocol="tcp", ecn=1)


def test_echo_requests_without_a_group_that_may_ping_are_refused_with_what_to_do(chain: Chain) -> None:
    chain.run("client", "sysctl", "-qw", "net.ipv4.ping_group_range=1 0")
    try:
        with pytest.raises(CapabilityError, match="ping_group_range"):
            unprivileged(chain.target(4), chain.client, protocol="icmp")
    finally:
        chain.run("client", "sysctl", "-qw", PINGS)


def test_tcp_on_a_kernel_that_does_not_tell_is_refused(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capabilities, "kernel_version", lambda: (6, 1))

    with pytest.raises(CapabilityError, match=r"older than 6\.2"):
        unprivileged(chain.target(4), chain.client, protocol="tcp")


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_a_source_port_that_is_taken_is_refused(chain: Chain, protocol: str) -> None:
    with (
        chain.listening("client", "10.99.1.1", 5999),
        chain.replying("client", "10.99.1.1", 5999),
        pytest.raises(ProbeError, match="cannot use source port 5999"),
    ):
        unprivileged(chain.target(4), chain.client, protocol=protocol, source_port=5999)


def test_a_probe_that_a_local_rule_drops_is_an_error(chain: Chain) -> None:
    drop = "type filter hook output priority 0\nudp dport 33434 drop"
    with chain.rules("client", drop), pytest.raises(ProbeError, match="cannot send a probe"):
        unprivileged(chain.target(4), chain.client)


def test_another_method_is_refused() -> None:
    with pytest.raises(BadInput, match="method"):
        traceroute("127.0.0.1", method="rwa")
