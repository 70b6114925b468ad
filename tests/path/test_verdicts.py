"""What hops' losses mean: the truth is the fault that each shape of tests/data/faults has."""

from __future__ import annotations

import random

import networkx as nx
import pandas as pd
import pytest
from faults import Fault, faults
from walked import WalkedChannel, trace, watched

from netlab.errors import BadInput
from netlab.frames import Gap, Missing, concat
from netlab.path.bucket import longest
from netlab.path.verdicts import Verdict, explain
from netlab.schemas import HOPS, VERDICTS

LOSSES = {Verdict.FORWARD_LOSS, Verdict.PATH_LOSS, Verdict.RETURN_LOSS}
SEEDS = 4  # `python -m bench verdicts` has a hundred


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("fault", faults(), ids=str)
def test_every_hop_of_a_simulated_fault_gets_its_verdict(fault: Fault, seed: int) -> None:
    assert fault.explained(seed)["verdict"].tolist() == fault.verdicts


@pytest.mark.parametrize("number", range(40))
def test_no_rate_limit_is_ever_called_a_loss(number: int) -> None:
    chosen = random.Random(number)
    graph = nx.path_graph(["client", "r1", "r2", "r3", "web"])
    nx.set_edge_attributes(graph, chosen.choice([1, 5, 20]), "delay_ms")
    nx.set_edge_attributes(graph, chosen.choice([0, 0.5, 5]), "jitter_ms")
    limited = chosen.sample(["r1", "r2", "r3", "web"], chosen.randint(1, 4))
    for node in limited:
        graph.nodes[node]["icmp_per_s"] = chosen.choice([0.1, 0.5, 1, 1.7, 3, 10])
        graph.nodes[node]["icmp_burst"] = chosen.choice([1, 2, 6, 10])
    channel = WalkedChannel(graph, seed=number)
    if chosen.random() < 0.5:
        hops = watched(
            channel, every_s=chosen.choice([0.1, 0.25, 0.5, 1.0]), duration_s=chosen.choice([10, 60])
        )
    else:
        hops = trace(channel, runs=chosen.choice([1, 3, 6, 20]), every_s=chosen.choice([0.0, 0.3, 5.0]))

    assert not set(explain(hops)["verdict"]) & LOSSES


def test_hops_behind_a_dead_end_are_one_finding_said_once() -> None:
    graph = nx.path_graph(["client", "r1", "r2", "web"])
    graph.edges["r1", "r2"]["loss"] = 1.0

    why = explain(trace(WalkedChannel(graph), max_ttl=6)).set_index("ttl")["why"]

    assert why[2].startswith("nothing answers from here on")
    assert why.loc[3:].tolist() == ["as at TTL 2"] * 4


def chain(**link: float) -> nx.Graph:
    graph = nx.path_graph(["client", "r1", "r2", "web"])
    nx.set_edge_attributes(graph, 2, "delay_ms")
    graph.edges["r1", "r2"].update(link)
    return graph


def test_the_numbers_behind_a_verdict_are_those_of_the_probes() -> None:
    hops = trace(WalkedChannel(chain(loss=0.3), seed=1), runs=100, queries=1, every_s=1.0)

    second = explain(hops).set_index("ttl").loc[2]

    lost = hops.loc[hops["ttl"] == 2, "address"].isna()
    later = hops.loc[hops["ttl"] == 3, "address"].isna()
    assert (second["probes"], second["answers"]) == (100, 100 - lost.sum())
    assert second["loss"] == pytest.approx(lost.mean())
    assert second["loss_low"] < lost.mean() < second["loss_high"]
    assert (second["later_ttl"], second["later_loss"]) == (3, pytest.approx(later.mean()))
    assert second["end_loss"] == pytest.approx(later.mean())
    assert second["longest_loss"] == longest(lost.to_numpy())
    assert second["spacing_s"] == pytest.approx(1.0, abs=0.01)
    assert second["span_s"] == pytest.approx(99, abs=1)


def test_a_fitted_bucket_is_among_the_numbers() -> None:
    graph = chain()
    graph.nodes["r1"].update(icmp_per_s=1, icmp_burst=6)

    first = explain(watched(WalkedChannel(graph), every_s=0.25, duration_s=30)).iloc[0]

    assert (first["verdict"], first["bucket_rate"], first["bucket_burst"]) == ("rate-limited", 1.0, 6)
    assert first["bucket_misfit"] == 0.0
    assert first["bucket_evidence"] > 3


def test_loss_that_is_too_rare_to_judge_is_not_judged() -> None:
    found = explain(trace(WalkedChannel(chain(loss=0.2), seed=6), runs=2, queries=2))

    assert set(found["verdict"]) <= {"ok", "not-enough-data"}
    assert "not-enough-data" in set(found["verdict"])


def test_each_target_is_judged_by_itself() -> None:
    graph = chain(loss=0.3)
    far, near = (trace(WalkedChannel(graph, name), runs=60, queries=1, every_s=1.0) for name in ("web", "r1"))

    found = explain(pd.concat([far, near]))

    assert found[["target", "ttl"]].to_numpy().tolist() == [["r1", 1], ["web", 1], ["web", 2], ["web", 3]]
    assert found["verdict"].tolist() == ["ok", "ok", "path-loss", "earlier-loss"]


def test_a_target_that_could_not_be_probed_has_no_verdict() -> None:
    failed = HOPS.frame({"target": ["gone"], "error": ["no such name"]})

    assert explain(failed).empty
    both = explain(concat([trace(WalkedChannel(chain())), failed]))
    assert both["target"].unique().tolist() == ["web"]


def test_what_the_hops_lack_the_verdicts_lack() -> None:
    hops = HOPS.empty([Missing("probes", Gap.LOST, 3, "for a test")])

    found = explain(hops)

    assert found.attrs["coverage"] == hops.attrs["coverage"]
    assert found.columns.tolist() == VERDICTS.names
    assert found.empty


def test_what_is_no_frame_of_hops_is_refused() -> None:
    with pytest.raises(BadInput, match=r"explain\(\) needs the column 'target'"):
        explain(pd.DataFrame())


@pytest.mark.parametrize("numbered", [False, True])
def test_a_limit_that_others_use_up_in_front_of_a_silent_target_is_no_loss(*, numbered: bool) -> None:
    graph = chain()
    graph.nodes["web"]["udp"] = "silent"
    graph.nodes["r2"]["counts_answers"] = numbered
    hops = watched(WalkedChannel(graph), every_s=0.1, duration_s=20, max_ttl=4)
    chosen = random.Random(1)
    own = hops.index[hops["ttl"] == 2]
    unanswered = [place for place in own if chosen.random() < 0.4]  # as a bucket in others' hands has it
    answers = ["address", "rtt_ms", "reply", "reached", "reply_ttl", "reply_id"]
    hops.loc[unanswered, answers] = pd.NA
    answered = own.difference(unanswered)
    hops.loc[answered, "reply_id"] = range(1, len(answered) + 1) if numbered else pd.NA

    second = explain(hops).set_index("ttl").loc[2]

    assert second["verdict"] == Verdict.NOT_ENOUGH_DATA
    assert "no later hop answers" in second["why"]


def test_loss_at_the_end_is_not_said_to_be_at_later_hops() -> None:
    graph = chain().to_directed()
    graph.edges["r2", "web"]["loss"] = 0.25

    last = explain(watched(WalkedChannel(graph), every_s=0.5, duration_s=120)).iloc[-1]

    assert last["verdict"] == Verdict.PATH_LOSS
    assert "later hop" not in last["why"]


@pytest.mark.parametrize("seed", range(3))
def test_what_a_later_limited_hop_did_not_send_does_not_tell_the_way_of_the_loss(seed: int) -> None:
    graph = nx.path_graph(["client", "r1", "r2", "r3", "web"]).to_directed()
    nx.set_edge_attributes(graph, 2, "delay_ms")
    graph.edges["r2", "r1"]["loss"] = 0.15
    graph.nodes["r3"].update(icmp_per_s=2, icmp_burst=30, counts_answers=True)
    graph.nodes["web"]["udp"] = "reply"

    found = explain(watched(WalkedChannel(graph, seed=seed), every_s=0.1, duration_s=40))

    assert Verdict.FORWARD_LOSS not in set(found["verdict"])


def test_nobody_is_blamed_for_the_loss_of_a_hop_that_is_gone() -> None:
    links = [("client", "r1"), ("r1", "bad"), ("bad", "r3"), ("r1", "good"), ("good", "r3"), ("r3", "web")]
    graph = nx.Graph(links)
    nx.set_edge_attributes(graph, 2, "delay_ms")
    graph.edges["r1", "good"]["metric"] = 5
    graph.edges["r1", "bad"].update(metric=2, loss=0.25)
    graph.graph["changes"] = [{"at_s": 11, "between": ["r1", "good"], "metric": 1}]
    graph.nodes["web"]["udp"] = "reply"

    found = explain(watched(WalkedChannel(graph), every_s=0.1, duration_s=20)).set_index("ttl")

    assert found["verdict"].tolist()[1:] == ["path-changed", "ok", "ok"]
    assert found.loc[3, "why"].endswith("since the path last changed before it")
