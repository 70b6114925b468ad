"""MTU holes as evidence: behind which hop they are, and what is refused."""

from __future__ import annotations

from typing import Any

import networkx as nx
import pandas as pd
import pytest
from walked import WalkedChannel, path_mtu, trace

from netlab.errors import BadInput
from netlab.frames import concat, coverage
from netlab.path.verdicts import explain
from netlab.schemas import HOPS, PATH_MTU


def chain(hole_at: int, *, silent: bool = False, loss: float = 0.0) -> nx.Graph[str]:
    """Return a chain whose link behind the router with that number takes 1300 bytes and tells nobody."""
    nodes = ["client", "r1", "r2", "r3", "web"]
    graph: nx.Graph[str] = nx.path_graph(nodes)
    nx.set_edge_attributes(graph, 2, "delay_ms")
    graph.edges[nodes[hole_at], nodes[hole_at + 1]]["mtu_bytes"] = 1300
    graph.nodes[nodes[hole_at]]["silent"] = silent or ["fragmentation-needed", "packet-too-big"]
    graph.edges["client", "r1"]["loss"] = loss
    return graph


def probed(graph: nx.Graph[str], **how: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    channel = WalkedChannel(graph, seed=3)
    return trace(channel, **how), path_mtu(channel)


@pytest.mark.parametrize("place", [1, 2, 3])
def test_a_hole_is_behind_the_last_hop_that_large_packets_reach(place: int) -> None:
    hops, mtu = probed(chain(place))

    found = explain(hops, mtu=mtu)

    assert found["verdict"].tolist() == ["mtu-hole" if ttl == place else "ok" for ttl in range(1, 5)]
    assert found["mtu_bytes"].dropna().tolist() == [1300]
    assert "above 1300 bytes" in found.loc[place - 1, "why"]


@pytest.mark.parametrize("delay_ms", [2, 50, 100])
def test_a_target_that_answers_once_a_second_is_no_hole(delay_ms: float) -> None:
    graph: nx.Graph[str] = nx.path_graph(["client", "r1", "r2", "web"])
    nx.set_edge_attributes(graph, delay_ms / 3, "delay_ms")
    graph.nodes["web"].update(icmp_per_s=1, icmp_burst=6)  # as Linux does

    _, mtu = probed(graph, queries=1)

    assert mtu[["mtu_bytes", "told"]].to_numpy().tolist() == [[1500, "interface"]]


def test_without_path_mtus_nothing_is_said_of_holes() -> None:
    hops, _ = probed(chain(2))

    assert explain(hops)["verdict"].tolist() == ["ok"] * 4
    assert explain(hops)["mtu_bytes"].isna().all()


def test_a_verdict_of_lost_packets_stays_and_has_the_hole_besides() -> None:
    hops, _ = probed(chain(1, loss=0.3), runs=60, queries=1, every_s=1.0)
    _, mtu = probed(chain(1))

    first = explain(hops, mtu=mtu).iloc[0]

    assert (first["verdict"], first["mtu_bytes"]) == ("path-loss", 1300)
    assert "vanish behind it" in first["why"]


def test_a_hole_whose_place_is_not_known_is_in_the_coverage() -> None:
    hops, mtu = probed(chain(2, silent=True))

    found = explain(hops, mtu=mtu)

    assert "mtu-hole" not in set(found["verdict"])
    assert coverage(found)[["what", "count"]].to_numpy().tolist()[-1] == ["MTU hole", 1]


def test_a_hole_behind_a_hop_that_another_has_replaced_is_in_the_coverage() -> None:
    hops, mtu = probed(chain(2))

    found = explain(hops, mtu=mtu.assign(address=mtu["address"].replace(mtu["address"].iloc[-1], "10.9.9.9")))

    assert "mtu-hole" not in set(found["verdict"])
    assert coverage(found)["what"].tolist() == ["MTU hole"]


def test_of_several_measurements_the_latest_counts() -> None:
    hops, before = probed(chain(2))
    after = before.iloc[:1].assign(at=before["at"] + pd.Timedelta(1, "s"))
    after.attrs = before.attrs

    assert explain(hops, mtu=concat([before, after]))["verdict"].tolist() == ["ok"] * 4


@pytest.mark.parametrize("protocol", ["icmp", "udp"])
def test_only_large_answers_from_the_end_leave_the_direction_open(protocol: str) -> None:
    for place in (2, 3):
        hops, mtu = probed(chain(place))
        why = explain(hops, mtu=mtu.assign(protocol=protocol)).loc[place - 1, "why"]

        assert ("there or back" in why) == (protocol == "icmp" and place == 3)


@pytest.mark.parametrize(
    ("mtu", "problem"),
    [
        (HOPS.empty(), "mtu needs the column 'mtu_bytes'"),
        ("web", "mtu needs the column 'target'"),
        (PATH_MTU.empty(), "mtu is about nothing"),
        (PATH_MTU.frame({"target": ["other"]}), "mtu is about other"),
    ],
)
def test_what_is_not_about_the_path_mtu_of_the_target_is_refused(mtu: object, problem: str) -> None:
    hops, _ = probed(chain(2))

    with pytest.raises(BadInput, match=problem):
        explain(hops, mtu=mtu)
