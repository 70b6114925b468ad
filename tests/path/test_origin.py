"""Where traces say that they come from; the truth is how the fixtures wired the namespaces."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from netlab.frames import concat, coverage
from netlab.path import path_metrics, to_network_path
from netlab.path.graph import path_graph
from netlab.path.trace import trace_many, traceroute

Chain = Network = Any  # the fixtures' classes live in conftest.py

pytestmark = pytest.mark.privileged
both = pytest.mark.parametrize("family", [4, 6])


@both
def test_every_row_names_the_host_the_namespace_and_the_way_out(chain: Chain, family: int) -> None:
    hops = traceroute(chain.target(family), netns=chain.client)
    wired = "10.99.1.1" if family == 4 else "fd99:1::1"

    columns = ["host", "netns", "source_address", "gateway", "interface"]
    assert hops[columns].drop_duplicates().to_numpy().tolist() == [
        [
            socket.gethostname(),
            Path("/run/netns", chain.client).stat().st_ino,
            wired,
            chain.hops(family)[0],
            "to-r1",
        ]
    ]


def test_a_target_on_the_link_has_an_interface_and_no_gateway(chain: Chain) -> None:
    hops = traceroute(chain.hops(4)[0], netns=chain.client)

    assert hops["gateway"].isna().all()
    assert set(hops["interface"]) == {"to-r1"}


def test_several_next_hops_are_said_to_be_uncertain(diamond: Network) -> None:
    gaps = coverage(traceroute("10.99.2.2", netns=diamond.netns("r1")))

    assert gaps["what"].tolist() == ["gateway, interface"]
    assert gaps["kind"].tolist() == ["approximate"]


def test_traces_from_two_namespaces_are_one_graph_with_two_sources(chain: Chain) -> None:
    client, router = (
        traceroute(chain.target(4), netns=chain.client),
        traceroute(chain.target(4), netns=chain.netns("r1")),
    )
    graph = path_graph(concat([client, router]))
    sources = [node for node, source in graph.nodes(data="source") if source]

    hops = chain.hops(4)
    assert set(graph.edges) == {
        (sources[0], hops[0]),
        (hops[0], hops[1]),
        (sources[1], hops[1]),
        (hops[1], hops[2]),
        (hops[2], hops[3]),
    }
    assert graph.edges[sources[1], hops[1]]["gateway"] == hops[1]


def test_targets_of_one_call_have_a_way_and_an_id_each(chain: Chain) -> None:
    hops = trace_many([chain.hops(4)[0], "no such host", chain.target(6)], netns=chain.client)
    first = hops.groupby("target", sort=False)[["gateway", "interface", "source_address", "trace"]].first()

    assert first["gateway"].fillna("-").tolist() == ["-", "-", chain.hops(6)[0]]
    assert first["interface"].fillna("-").tolist() == ["to-r1", "-", "to-r1"]
    assert first["source_address"].fillna("-").tolist() == ["10.99.1.1", "-", "fd99:1::1"]
    assert first["trace"].nunique() == 2


def test_a_target_that_could_not_be_probed_is_no_part_of_the_graph_and_has_no_metrics(chain: Chain) -> None:
    hops = trace_many(["no such host", chain.hops(4)[0]], netns=chain.client)

    assert list(path_graph(hops)) == ["source", chain.hops(4)[0]]
    assert set(path_metrics(hops)["target"]) == {chain.hops(4)[0]}
    assert to_network_path(hops)["destination"]["hostname"] == chain.hops(4)[0]


def test_calls_by_the_same_flow_have_ids_of_their_own(chain: Chain) -> None:
    traces = [traceroute(chain.target(4), netns=chain.client, source_port=40_001) for _ in range(2)]

    assert concat(traces)["trace"].nunique() == 2
