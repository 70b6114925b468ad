"""Many targets at once, interruption, and tracers side by side, on simulated internets."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import networkx as nx
import pandas as pd
import pytest

from netlab import lab
from netlab.errors import BadInput
from netlab.frames import coverage
from netlab.path import trace_many
from netlab.path.trace import traceroute
from netlab.schemas import HOPS

pytestmark = pytest.mark.privileged
kinds = pytest.mark.parametrize("protocol", ["udp", "tcp", "icmp"])

HOSTS = 100


@pytest.fixture(scope="module")
def net() -> Any:
    """Return client - r1 - r2 - web, where web answers for a whole network, and a dead end."""
    graph = nx.path_graph(["client", "r1", "r2", "web"])
    graph.add_edge("r1", "dead")
    nx.set_edge_attributes(graph, 5, "delay_ms")
    graph.nodes["web"]["prefixes"] = ["203.0.113.0/24", "2001:db8:113::/64"]
    graph.nodes["web"]["tcp_ports"] = {443: "syn-ack"}
    graph.nodes["dead"].update(udp="silent", tcp="silent", echo="silent")
    with lab.simulated(graph) as internet:
        internet.client.run(["sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647"])
        yield internet


def ways(hops: pd.DataFrame) -> dict[str, list[set[str]]]:
    """Return who answered at each TTL by target."""
    return {
        target: [set(addresses.dropna()) for _, addresses in rows.groupby("ttl")["address"]]
        for target, rows in hops.groupby("target", sort=False)
    }


@kinds
def test_a_hundred_targets_of_both_families_have_their_own_rows(net: Any, protocol: str) -> None:
    targets = [f"203.0.113.{n}" for n in range(HOSTS // 2)] + [
        f"2001:db8:113::{n:x}" for n in range(1, 1 + HOSTS // 2)
    ]
    hops = trace_many(targets, protocol=protocol, netns=net.client.netns)

    routers = {family: [{net.address(node, family)} for node in ("r1", "r2")] for family in (4, 6)}
    assert ways(hops) == {t: [*routers[6 if ":" in t else 4], {end(net, t, protocol)}] for t in targets}
    assert hops["address"].notna().all()
    assert hops["target"].unique().tolist() == targets
    assert hops["source_port"].nunique() <= 2  # one for each IP version


def end(net: Any, target: str, protocol: str) -> str:
    """Return who answers for a target of the network: errors come from the host's own address."""
    return net.address("web", 6 if ":" in target else 4) if protocol == "udp" else target


def test_many_targets_take_little_longer_than_one(net: Any) -> None:
    one = clocked(lambda: traceroute("203.0.113.1", netns=net.client.netns))
    many = clocked(lambda: trace_many([f"203.0.113.{n}" for n in range(HOSTS)], netns=net.client.netns))

    assert many < HOSTS / 4 * one  # the figure itself is in bench/


def clocked(call: Any) -> float:
    begin = time.monotonic()
    call()
    return time.monotonic() - begin


def test_bad_targets_are_rows_that_say_why_and_the_good_ones_still_run(net: Any) -> None:
    targets = ["", "203.0.113.1", "no such host", "198.51.100.1%no", "203.0.113.2", "::1%", "224.0.0.1"]
    hops = trace_many(targets, netns=net.client.netns)
    failed = hops[hops["error"].notna()]

    assert set(ways(hops[hops["error"].isna()])) == {"203.0.113.1", "203.0.113.2"}
    assert failed["target"].tolist() == [t for t in targets if t not in {"203.0.113.1", "203.0.113.2"}]
    assert failed[["ttl", "run", "flow", "sent_at", "rtt_ms"]].isna().all(axis=None)
    assert failed["error"].str.contains("'").all()
    assert hops["target"].drop_duplicates().tolist() == targets
    assert [(c.name, c.kind.value) for c in HOPS.columns] == [
        (name, str(dtype)) for name, dtype in hops.dtypes.items()
    ]


def test_a_name_that_is_no_text_is_a_row_too(net: Any) -> None:
    hops = trace_many(["\ud800", None, "203.0.113.1"], netns=net.client.netns)  # type: ignore[list-item]

    assert hops["target"].drop_duplicates().tolist() == ["\\ud800", "None", "203.0.113.1"]
    assert hops["error"].notna().sum() == 2


def test_targets_beyond_the_limit_of_open_files_are_rows_that_say_so() -> None:
    code = """if True:
        import resource
        from netlab.path import trace_many
        trace_many(["127.0.0.1"], method="unprivileged")  # imports what it needs
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
        hops = trace_many([f"127.0.0.{n}" for n in range(1, 61)], method="unprivileged")
        failed = hops[hops["error"].notna()]
        print(failed["target"].nunique(), failed["error"].str.contains("ulimit -n").all())
        print(hops.loc[hops["error"].isna(), "reached"].all())
    """
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stderr
    count, *said = run.stdout.split()
    assert 20 < int(count) < 60
    assert said == ["True", "True"]


def test_one_address_on_two_interfaces_is_probed_on_the_first_and_the_second_says_why(net: Any) -> None:
    net.client.run(["ip", "link", "add", "left", "type", "veth", "peer", "name", "right"])
    up = "link set {0} up\naddress add fe80::{1}/64 dev {0} nodad\n"  # the own is tentative
    try:
        net.client.run(["ip", "-batch", "-"], input=up.format("left", 1) + up.format("right", 2), text=True)
        hops = trace_many(["fe80::7%left", "fe80::7%right"], netns=net.client.netns, timeout_s=0.1, max_ttl=2)
    finally:
        net.client.run(["ip", "link", "del", "left"])

    assert hops["error"].notna().tolist() == [False] * (len(hops) - 1) + [True]
    assert "on one interface" in hops["error"].iloc[-1]


def test_only_bad_targets_are_only_errors(net: Any) -> None:
    hops = trace_many(["no such host", ""], netns=net.client.netns)

    assert hops["error"].notna().tolist() == [True, True]


def test_a_target_that_the_firewall_blocks_stops_no_other(net: Any) -> None:
    net.client.run(["nft", "add", "table", "ip", "t"])
    net.client.run(["nft", "add", "chain", "ip", "t", "c", "{ type filter hook output priority 0; }"])
    net.client.run(["nft", "add", "rule", "ip", "t", "c", "ip", "daddr", "203.0.113.7", "drop"])
    try:
        hops = trace_many(["203.0.113.6", "203.0.113.7", "203.0.113.8"], netns=net.client.netns)
    finally:
        net.client.run(["nft", "delete", "table", "ip", "t"])

    assert hops[hops["error"].notna()]["target"].tolist() == ["203.0.113.7"]
    assert hops[hops["reached"].fillna(value=False)]["target"].unique().tolist() == [
        "203.0.113.6",
        "203.0.113.8",
    ]


@kinds
@pytest.mark.parametrize("method", ["raw", "unprivileged"])
def test_targets_of_one_address_do_not_answer_for_each_other(net: Any, protocol: str, method: str) -> None:
    port = 443 if protocol == "tcp" else None
    hops = trace_many(
        ["203.0.113.1"] * 4, netns=net.client.netns, protocol=protocol, port=port, method=method
    )

    assert hops["ttl"].tolist() == [1, 1, 1, 2, 2, 2, 3, 3, 3] * 4
    assert hops["address"].notna().all()
    assert len(hops[["trace", "target"]].drop_duplicates()) == 4


@pytest.mark.parametrize(
    "wrong",
    [
        {"targets": []},
        {"targets": "web"},
        {"targets": b"web"},
        {"targets": 7},
        {"family": 5},
        {"family": [4]},
        {"packets_per_s": 0},
        {"stop": 1},
    ],
    ids=str,
)
def test_what_is_wrong_for_all_targets_is_refused(net: Any, wrong: dict[str, Any]) -> None:
    before = len(net.truth.journeys())
    with pytest.raises(BadInput):
        trace_many(**{"targets": ["203.0.113.1"], "netns": net.client.netns, **wrong})

    assert len(net.truth.journeys()) == before


@pytest.mark.parametrize("rate", [50, 400])
def test_all_targets_together_send_no_more_than_the_stated_packets(net: Any, rate: int) -> None:
    before = len(net.truth.journeys())
    targets = [f"203.0.113.{n}" for n in range(20)]
    trace_many(targets, netns=net.client.netns, queries=1, max_ttl=4, packets_per_s=rate)
    sent = [journey.at_ns for journey in net.truth.journeys()[before:]]

    assert len(sent) >= 60
    # the simulated internet's clock sees a packet when it left, which this process may do a moment late
    assert all(later - first > 0.98e9 for first, later in zip(sent, sent[rate:], strict=False))


@pytest.mark.parametrize("how", ["ctrl-c", "event"])
def test_an_interrupted_trace_keeps_what_was_heard_and_says_so(net: Any, how: str) -> None:
    target, stop = net.address("dead"), threading.Event()
    interrupt = (lambda: signal.raise_signal(signal.SIGINT)) if how == "ctrl-c" else stop.set
    timer = threading.Timer(0.3, interrupt)
    timer.start()
    took = clocked(lambda: kept.append(traceroute(target, netns=net.client.netns, timeout_s=50, stop=stop)))
    timer.join()

    (hops,) = kept
    gaps = coverage(hops)
    assert took < 40
    assert hops["address"].tolist() == [net.address("r1")] * 3
    interrupted = gaps[gaps["what"] == "interrupted runs"]
    assert interrupted[["kind", "count"]].to_numpy().tolist() == [["incomplete", 1]]


kept: list[pd.DataFrame] = []


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    kept.clear()


def test_a_stop_before_the_start_sends_nothing(net: Any) -> None:
    before = len(net.truth.journeys())
    stop = threading.Event()
    stop.set()
    hops = trace_many(["203.0.113.1", "203.0.113.2"], netns=net.client.netns, stop=stop, runs=3)

    assert len(hops) == 0
    assert coverage(hops)["count"].tolist() == [6]
    assert len(net.truth.journeys()) == before


def test_it_works_inside_a_running_event_loop(net: Any) -> None:
    import asyncio

    async def cell() -> pd.DataFrame:
        return traceroute("203.0.113.1", netns=net.client.netns)

    assert asyncio.run(cell())["reached"].sum() == 3


@kinds
def test_tracers_side_by_side_to_one_target_never_mix_their_rows(net: Any, protocol: str) -> None:
    """Every row's time is that of its own TTL: 10 ms further for each hop."""
    with ThreadPoolExecutor(4) as pool:
        traces = list(
            pool.map(
                lambda _: traceroute("203.0.113.9", protocol=protocol, netns=net.client.netns, runs=20),
                range(4),
            )
        )

    for hops in traces:
        assert ways(hops)["203.0.113.9"] == [
            {net.address("r1")},
            {net.address("r2")},
            {end(net, "203.0.113.9", protocol)},
        ]
        assert len(hops) == 180
        early = hops[hops["rtt_ms"] <= hops["ttl"] * 10 - 5]
        assert early.empty, early.T.to_string()


def test_mtr_beside_a_trace_changes_nothing(net: Any) -> None:
    command = ["mtr", "-n", "-r", "-c", "30", "-i", "0.05", "-G", "1", "203.0.113.9"]
    mtr = net.client.popen(command, stdout=subprocess.DEVNULL)
    try:
        hops = [traceroute("203.0.113.9", protocol="icmp", netns=net.client.netns) for _ in range(20)]
    finally:
        mtr.kill()
        mtr.wait()

    expected = [{net.address("r1")}, {net.address("r2")}, {"203.0.113.9"}]
    assert all(ways(trace)["203.0.113.9"] == expected for trace in hops)
    assert all(len(trace) == 9 and (trace["rtt_ms"] > trace["ttl"] * 10 - 5).all() for trace in hops)


def test_progress_counts_the_runs_of_all(net: Any, capsys: pytest.CaptureFixture[str]) -> None:
    trace_many(["203.0.113.1", "203.0.113.2"], netns=net.client.netns, runs=2, progress=True)

    assert "4/4" in capsys.readouterr().err


def test_the_public_name_is_there_without_importing_it() -> None:
    code = "import netlab.path; print(netlab.path.trace_many.__name__, *netlab.path.__all__)"
    out = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=Path(__file__).parents[2])

    assert out.split()[0] == "trace_many"
    assert "trace_many" in out.split()[1:]
