"""Traces over real kernels: the truth is how the fixtures wired the namespaces."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from netlab.errors import BadInput, ProbeError
from netlab.frames import coverage
from netlab.kernel.netns import entered
from netlab.path.graph import path_graph
from netlab.path.trace import traceroute
from netlab.schemas import HOPS

Chain = Network = Any  # the fixtures' classes live in conftest.py

pytestmark = pytest.mark.privileged
both = pytest.mark.parametrize("family", [4, 6])
with_ports = pytest.mark.parametrize("protocol", ["udp", "tcp"])
kinds = pytest.mark.parametrize("protocol", ["udp", "tcp", "icmp"])


def path(hops: pd.DataFrame) -> list[set[str]]:
    """Return who answered at each TTL, from the first."""
    return [set(addresses.dropna()) for _, addresses in hops.groupby("ttl")["address"]]


def replies(hops: pd.DataFrame) -> list[str]:
    """Return the kinds of answer at the last TTL."""
    return hops.loc[hops["ttl"] == hops["ttl"].max(), "reply"].tolist()


@both
@kinds
def test_every_hop_is_found_in_order_up_to_a_closed_port(chain: Chain, family: int, protocol: str) -> None:
    hops = traceroute(chain.target(family), protocol=protocol, netns=chain.client)

    assert path(hops) == [{address} for address in chain.hops(family)]
    assert replies(hops) == [{"udp": "port-unreachable", "tcp": "rst", "icmp": "echo-reply"}[protocol]] * 3
    assert hops["reached"].tolist() == [False] * 9 + [True] * 3


@both
def test_an_open_tcp_port_answers_every_query_with_syn_ack(chain: Chain, family: int) -> None:
    target = chain.target(family)

    with chain.listening("server", target, 8080):
        hops = traceroute(target, protocol="tcp", port=8080, netns=chain.client, queries=5)

    assert path(hops) == [{address} for address in chain.hops(family)]
    assert replies(hops) == ["syn-ack"] * 5


@both
def test_a_tcp_trace_leaves_no_half_open_connection_on_the_server(chain: Chain, family: int) -> None:
    target = chain.target(family)

    with chain.listening("server", target, 8081):
        traceroute(target, protocol="tcp", port=8081, netns=chain.client)
        left = chain.output("server", "ss", "-Htan", "sport = :8081")

    assert [line.split()[0] for line in left.splitlines()] == ["LISTEN"]


@both
def test_a_udp_server_that_echoes_is_reached(chain: Chain, family: int) -> None:
    target = chain.target(family)

    with chain.replying("server", target, 5353):
        hops = traceroute(target, port=5353, netns=chain.client)

    assert path(hops) == [{address} for address in chain.hops(family)]
    assert replies(hops) == ["udp-reply"] * 3


@both
def test_a_udp_server_that_answers_without_repeating_anything_is_found(chain: Chain, family: int) -> None:
    target = chain.target(family)

    with chain.replying("server", target, 5354, word=b"\xff\xffhello"):
        hops = traceroute(target, port=5354, netns=chain.client)

    gaps = coverage(hops).set_index("what")
    assert path(hops) == [{address} for address in chain.hops(family)]
    assert replies(hops) == ["udp-reply"] * 3
    assert gaps.loc["answers of the target", ["kind", "count"]].tolist() == ["approximate", 3]


@both
@kinds
def test_a_silent_router_is_rows_without_address_and_the_rest_is_found(
    chain: Chain, family: int, protocol: str
) -> None:
    expected = [{address} for address in chain.hops(family)]
    expected[1] = set()

    with chain.silent("r2"):
        hops = traceroute(chain.target(family), protocol=protocol, netns=chain.client)

    silent, gaps = hops[hops["ttl"] == 2], coverage(hops)
    assert path(hops) == expected
    assert len(silent) == 3
    assert silent[["rtt_ms", "reply", "reached", "reply_ttl", "clock"]].isna().all(axis=None)
    assert list(zip(gaps["what"], gaps["count"], strict=True)) == [("late answers", 3)]


@both
@kinds
def test_a_dead_target_gives_rows_up_to_max_ttl_and_is_not_reached(
    chain: Chain, family: int, protocol: str
) -> None:
    with chain.dead("server"):
        hops = traceroute(
            chain.target(family), protocol=protocol, netns=chain.client, max_ttl=7, timeout_s=0.2
        )

    assert path(hops) == [{address} for address in chain.hops(family)[:3]] + [set()] * 4
    assert hops["ttl"].value_counts().to_dict() == dict.fromkeys(range(1, 8), 3)
    assert not hops["reached"].any()


@kinds
@pytest.mark.parametrize(
    ("family", "word", "rule"),
    [
        (4, "host-unreachable", "reject with icmp type host-unreachable"),
        (4, "admin-prohibited", "reject with icmp type admin-prohibited"),
        (6, "admin-prohibited", "reject with icmpv6 type admin-prohibited"),
        (6, "net-unreachable", "reject with icmpv6 type no-route"),
    ],
)
def test_a_router_that_refuses_ends_the_trace_unreached(
    chain: Chain, protocol: str, family: int, word: str, rule: str
) -> None:
    kinds_of = "meta l4proto { udp, tcp, icmp, ipv6-icmp }"
    refuse = f"type filter hook forward priority 0\n{kinds_of} ip6 hoplimit > 0 {rule}"
    if family == 4:
        refuse = refuse.replace("ip6 hoplimit", "ip ttl")

    with chain.rules("r2", refuse):
        hops = traceroute(chain.target(family), protocol=protocol, netns=chain.client)

    assert path(hops)[-1] == {chain.hops(family)[1]}
    assert set(replies(hops)) == {word}
    assert not hops["reached"].any()


@both
@pytest.mark.parametrize("method", ["raw", "unprivileged"])
@pytest.mark.parametrize("protocol", ["tcp", "icmp"])
def test_port_unreachable_from_a_firewall_on_the_way_is_a_rejection(
    chain: Chain, family: int, protocol: str, method: str
) -> None:
    chain.run("client", "sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647")
    kinds_of = "meta l4proto { tcp, icmp, ipv6-icmp } ip6 hoplimit > 0"
    rule = f"{kinds_of if family == 6 else kinds_of.replace('ip6 hoplimit', 'ip ttl')} reject"

    with chain.rules("r2", f"type filter hook forward priority 0\n{rule}"):
        hops = traceroute(chain.target(family), protocol=protocol, method=method, netns=chain.client)

    assert path(hops)[-1] == {chain.hops(family)[1]}
    assert set(replies(hops)) == {"port-unreachable"}
    assert not hops["reached"].any()


@both
def test_port_unreachable_to_a_datagram_from_another_address_is_said_to_be(chain: Chain, family: int) -> None:
    with chain.rules("r2", "type filter hook forward priority 0\nudp dport 33434 reject"):
        hops = traceroute(chain.target(family), netns=chain.client)

    told = coverage(hops)
    assert told.loc[told["what"] == "reached", ["kind", "count"]].to_numpy().tolist() == [["approximate", 3]]


@kinds
def test_answers_from_another_address_than_was_asked_are_told_of(chain: Chain, protocol: str) -> None:
    chain.ip("server", "address add 10.99.4.77/24 dev to-r3")
    # No address is put back on the way: netfilter does not follow these packets.
    away = "type filter hook output priority -300\nip saddr 10.99.4.2 notrack ip saddr set 10.99.4.77"
    with chain.replying("server", "10.99.4.2", 33_434), chain.rules("server", away):
        hops = traceroute("10.99.4.2", protocol=protocol, netns=chain.client, max_ttl=5, timeout_s=0.3)
    chain.ip("server", "address delete 10.99.4.77/24 dev to-r3")

    told = coverage(hops)
    lost = told[(told["what"] == "answers of the target") & (told["kind"] == "unseen")]
    assert lost["count"].tolist() == [6]
    assert lost["detail"].str.contains("came from 10.99.4.77").all()
    assert not hops["reached"].any()


@both
@kinds
def test_the_path_is_found_through_a_masquerading_router(chain: Chain, family: int, protocol: str) -> None:
    masquerade = "type nat hook postrouting priority 100\noifname to-r2 masquerade"

    with chain.rules("r1", masquerade):
        hops = traceroute(chain.target(family), protocol=protocol, netns=chain.client)

    assert path(hops) == [{address} for address in chain.hops(family)]
    assert hops["reached"].tolist() == [False] * 9 + [True] * 3


@both
@with_ports
def test_one_flow_never_shows_a_false_link(diamond: Network, family: int, protocol: str) -> None:
    target = "10.99.2.2" if family == 4 else "fd99:2::2"
    wired = diamond_links(family)

    hops = [traceroute(target, protocol=protocol, netns=diamond.netns("client")) for _ in range(30)]

    seen = {edge for trace in hops for edge in path_graph(trace).edges}
    assert seen <= wired
    assert len({edge for edge in seen if edge[1].startswith(branch_prefixes(family))}) > 1  # it does balance


def diamond_links(family: int) -> set[tuple[str, str]]:
    address = "10.99.{}.{}" if family == 4 else "fd99:{}::{}"
    links = {("source", address.format(1, 2))}
    for branch in range(4):
        upper, lower = address.format(10 + branch, 2), address.format(20 + branch, 2)
        join = address.format(30 + branch, 2)
        links |= {(address.format(1, 2), upper), (upper, lower), (lower, join), (join, address.format(2, 2))}
    return links


def branch_prefixes(family: int) -> tuple[str, ...]:
    return tuple(f"10.99.{10 + b}." if family == 4 else f"fd99:{10 + b}:" for b in range(4))


@with_ports
def test_the_same_ports_take_the_same_way_again(diamond: Network, protocol: str) -> None:
    seen = [
        path(traceroute("10.99.2.2", protocol=protocol, netns=diamond.netns("client"), source_port=40_000))
        for _ in range(5)
    ]

    assert all(other == seen[0] for other in seen)


@kinds
def test_parallel_traces_to_one_target_do_not_mix(chain: Chain, protocol: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        traces = list(
            pool.map(
                lambda _: traceroute(chain.target(4), protocol=protocol, netns=chain.client, runs=5), range(4)
            )
        )

    assert len({trace["source_port"].iloc[0] for trace in traces}) == (1 if protocol == "icmp" else 4)
    for trace in traces:
        assert path(trace) == [{address} for address in chain.hops(4)]
        assert trace["address"].notna().all()


def test_runs_repeat_the_flow(chain: Chain) -> None:
    hops = traceroute(chain.target(6), netns=chain.client, runs=3, queries=2)

    assert hops.groupby("run").size().tolist() == [8, 8, 8]
    assert hops[["flow", "source_port", "port"]].drop_duplicates().shape[0] == 1
    assert (
        hops["sent_at"].is_monotonic_increasing or hops.sort_values("sent_at")["run"].is_monotonic_increasing
    )


def test_a_trace_may_begin_further_away(chain: Chain) -> None:
    hops = traceroute(chain.target(4), netns=chain.client, first_ttl=3)

    assert path(hops) == [{address} for address in chain.hops(4)[2:]]


def test_the_frame_has_the_schema_and_kernel_times(chain: Chain) -> None:
    hops = traceroute(chain.target(4), netns=chain.client)

    assert hops.columns.tolist() == HOPS.names
    assert {name: str(dtype) for name, dtype in hops.dtypes.items()} == {
        column.name: column.kind.value for column in HOPS.columns
    }
    assert hops["clock"].value_counts()["kernel"] >= 10
    assert (hops["rtt_ms"] > 0).all()
    # each router starts from TTL 64 and every router on the way back takes one
    assert hops.groupby("ttl")["reply_ttl"].first().tolist() == [64, 63, 62, 61]


def test_no_route_is_said(chain: Chain) -> None:
    with pytest.raises(ProbeError, match=r"no route to 192\.0\.2\.1.*Network is unreachable"):
        traceroute("192.0.2.1", netns=chain.client)


def test_a_taken_source_port_is_said(chain: Chain) -> None:
    with entered(chain.client), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind(("0.0.0.0", 41_000))

        with pytest.raises(ProbeError, match=r"source port 41000.*in use"):
            traceroute(chain.target(4), source_port=41_000, netns=chain.client)


def test_a_local_firewall_that_drops_the_probes_is_said(chain: Chain) -> None:
    rules = chain.rules("client", "type filter hook output priority 0\nudp dport 33434 drop")

    with rules, pytest.raises(ProbeError, match=r"cannot send a probe.*firewall"):
        traceroute(chain.target(4), netns=chain.client)


@pytest.mark.parametrize("outcome", ["answer", "no route", "interrupt"])
def test_no_descriptor_is_left_open(chain: Chain, outcome: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = descriptors()
    target, error = {
        "answer": (chain.target(4), None),
        "no route": ("192.0.2.1", ProbeError),
        "interrupt": (chain.target(4), None),
    }[outcome]
    if outcome == "interrupt":
        monkeypatch.setattr("netlab.path.station.Station.receive", interrupt)

    for _ in range(3):
        expected: AbstractContextManager[Any] = pytest.raises(error) if error else nullcontext()
        with expected:
            traceroute(target, protocol="tcp", netns=chain.client)

    assert descriptors() == before


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def descriptors() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir() if entry.exists()}


def test_names_are_looked_up_only_when_asked(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netlab.path.names._name", lambda address: f"name-of-{address}")

    named = traceroute(chain.target(4), netns=chain.client, resolve=True)
    plain = traceroute(chain.target(4), netns=chain.client)

    assert (named["name"] == "name-of-" + named["address"]).all()
    assert plain["name"].isna().all()


def test_progress_counts_the_runs(chain: Chain, capsys: pytest.CaptureFixture[str]) -> None:
    traceroute(chain.target(4), netns=chain.client, runs=3, progress=True)

    assert "3/3" in capsys.readouterr().err


@kinds
@pytest.mark.parametrize("method", ["raw", "unprivileged"])
def test_a_link_local_target_is_on_the_interface_of_the_namespace_probed_from(
    chain: Chain, protocol: str, method: str
) -> None:
    address = link_local(chain)
    chain.run("client", "sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647")
    try:
        hops = traceroute(f"{address}%to-r1", netns=chain.client, protocol=protocol, method=method)
    finally:
        chain.run("client", "sysctl", "-qw", "net.ipv4.ping_group_range=1 0")

    assert hops[["ttl", "address", "reached"]].to_numpy().tolist() == [[1, address, True]] * 3


def link_local(chain: Chain) -> str:
    """Return the address of the first router on its link to the client, once it answers there."""
    deadline = time.monotonic() + 30
    while True:
        said = chain.output("r1", "ip", "-j", "-6", "address", "show", "dev", "to-client")
        (found,) = [known for known in json.loads(said)[0]["addr_info"] if known["scope"] == "link"]
        if not found.get("tentative"):
            return str(found["local"])
        assert time.monotonic() < deadline, said
        time.sleep(0.1)


@pytest.fixture
def silence(chain: Chain) -> Iterator[None]:
    """Fail the test if a probe leaves the client."""
    counter = "type filter hook output priority 0\nmeta l4proto { udp, tcp, icmp, ipv6-icmp } counter"
    with chain.rules("client", counter):
        yield
        assert "counter packets 0 " in chain.output("client", "nft", "list", "ruleset")


@pytest.mark.usefixtures("silence")
@pytest.mark.parametrize(
    "wrong",
    [
        {"protocol": "tpc"},
        {"protocol": "icmp6"},
        {"port": 70_000},
        {"port": 0},
        {"protocol": "icmp", "port": 80},
        {"protocol": "icmp", "source_port": 40_000},
        {"max_ttl": 0},
        {"max_ttl": 256},
        {"first_ttl": 9, "max_ttl": 8},
        {"queries": 0},
        {"queries": 2.5},
        {"runs": 0},
        {"timeout_s": 0},
        {"timeout_s": -1},
        {"timeout_s": float("nan")},
        {"family": 5},
        {"family": 6},
        {"source_port": 65_536},
        {"netns": "no-such-namespace"},
        {"target": ""},
        {"target": " "},
        {"target": "a" * 300},
        {"target": "two words"},
        {"target": "fa\u00df.example"},
        {"target": "10.99.1.255"},
        {"target": "0.0.0.0"},
        {"target": "224.0.0.1"},
        {"target": "ff02::1"},
        {"target": "nul\0"},
        {"target": None},
        {"max_tll": 9},
        {"stop": "now"},
        {"stop": True},
        {"resolve": "no"},
        {"progress": 1},
        {"family": [4]},
        {"family": True},
        {"family": 4.0},
    ],
    ids=str,
)
def test_bad_input_is_refused_before_a_packet_leaves(chain: Chain, wrong: dict[str, Any]) -> None:
    given = {"target": chain.target(4), "netns": chain.client, **wrong}

    with pytest.raises((BadInput, ProbeError)) as refusal:
        traceroute(given.pop("target"), **given)

    assert refusal.value.problem


@pytest.mark.parametrize(
    ("target", "fix"),
    [
        ("https://shop.example/cart", "'shop.example', with port=443"),
        ("192.0.2.1:8080", "'192.0.2.1', with port=8080"),
        ("[2001:db8::1]:53", "'2001:db8::1', with port=53"),
        ("ssh://db1", "Give the host alone: 'db1'"),
        ("a:b:c", "Give the host alone, and its port as port="),
    ],
)
def test_what_was_copied_from_a_url_is_told_how_to_be_asked_for(target: str, fix: str) -> None:
    with pytest.raises(BadInput) as refusal:
        traceroute(target)

    assert fix in str(refusal.value)


@pytest.mark.parametrize("method", ["raw", "unprivileged"])
def test_what_was_heard_before_the_host_refused_to_send_is_kept(chain: Chain, method: str) -> None:
    too_many = "udp dport 33434 limit rate over 1/hour burst 20 packets"
    drop = f"type filter hook output priority 0\n{too_many} drop"

    with chain.rules("client", drop):
        hops = traceroute(chain.target(4), netns=chain.client, runs=5, method=method)

    assert path(hops) == [{address} for address in chain.hops(4)]
    assert hops["address"].notna().sum() >= 12
    assert hops["error"].dropna().str.contains("cannot send a probe").tolist() == [True]
    assert "interrupted runs" in coverage(hops)["what"].tolist()


@pytest.mark.parametrize(("max_ttl", "gaps"), [(3, ["hops"]), (4, [])])
@pytest.mark.parametrize("method", ["raw", "unprivileged"])
def test_a_path_that_goes_on_past_the_last_ttl_is_said_to(
    chain: Chain, method: str, max_ttl: int, gaps: list[str]
) -> None:
    hops = traceroute(chain.target(4), netns=chain.client, method=method, max_ttl=max_ttl)

    told = coverage(hops)
    assert told.loc[told["kind"] == "incomplete", "what"].tolist() == gaps
