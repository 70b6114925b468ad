"""The search for all branches, on graphs of balancers: which branches, how many probes, how sure."""

from __future__ import annotations

import statistics

import balanced
import pytest
from balanced import World, balancers, certain_links, diamond, fan, joined, links, path, random_graph

from netlab.path.mda import AHEAD
from netlab.path.stopping import points

SHAPES = {
    "chain": path("r0", "r1", "r2", "r3"),
    "two": diamond(2),
    "four": diamond(4, tail=3),
    "long": diamond(4, 2),
    "ends at the target": diamond(4, tail=0),
    "begins at the source": {"source": ["a", "b"], "a": ["r"], "b": ["r"], "r": ["web"]},
    "nested": joined(
        path("r", "a", "c1", "d", "z"), path("r", "a", "c2", "d", "z"), path("r", "b", "e", "f", "z")
    ),
    "unequal": joined(path("r", "a", "z"), path("r", "b", "c", "z")),
    "meshed": joined(*(path("r", a, b, "z") for a in ("a1", "a2") for b in ("b1", "b2"))),
    "two in a row": joined(*(path("r", a, "m", b, "z") for a in ("a1", "a2") for b in ("b1", "b2", "b3"))),
}
RUNS = 100


@pytest.mark.parametrize("shape", SHAPES)
def test_every_link_is_found_at_the_stated_confidence_and_none_that_is_not_there(shape: str) -> None:
    graph, whole = SHAPES[shape], 0
    for seed in range(RUNS):
        found = World(graph, seed).found()
        assert certain_links(found) <= links(graph)
        assert all(link["certain"] for link in found["links"])
        assert found["reached_confidence"] == 0.95
        whole += certain_links(found) == links(graph)

    assert whole >= 95


@pytest.mark.parametrize("widths", [(4, 4)], ids=str)
def test_nested_diamonds_sixteen_wide_are_found_whole(widths: tuple[int, ...]) -> None:
    graph = fan(*widths)
    whole = sum(certain_links(World(graph, seed).found()) == links(graph) for seed in range(RUNS))

    assert whole >= 95


def test_random_graphs_are_found_whole_and_never_get_false_links() -> None:
    whole = 0
    for seed in range(RUNS):
        graph = random_graph(seed)
        found = World(graph, seed).found(confidence=0.99)
        assert certain_links(found) <= links(graph)
        whole += certain_links(found) == links(graph)

    assert whole >= 97


def test_a_lower_confidence_costs_fewer_probes() -> None:
    spent = [World(diamond(4), 1).found(confidence=c)["probes"] for c in (0.5, 0.9, 0.99, 0.999)]

    assert spent == sorted(set(spent))


def test_a_chain_costs_the_rules_probes_and_the_scouts() -> None:
    world = World(path("r0", "r1", "r2", "r3"), 0)
    found = world.found()

    assert found["rule_probes"] == 5 * points(0.95, 0, 0)(1)
    assert found["probes"] == sum(world.sent.values()) <= found["rule_probes"] + AHEAD


def test_a_four_way_balancer_costs_ninety_probes_at_most() -> None:
    spent = [World(diamond(4, tail=3), seed).found()["probes"] for seed in range(RUNS)]

    assert statistics.mean(spent) <= 90


def test_the_last_flow_of_a_branch_is_not_searched_for_one_by_one() -> None:
    worlds = [World(diamond(4, tail=3), seed) for seed in range(RUNS)]
    for world in worlds:
        world.found()

    assert max(world.rounds for world in worlds) <= 15  # one by one: 28


def test_balancers_are_told_from_routers_with_one_next_hop() -> None:
    assert balancers(World(SHAPES["nested"], 3).found()) == {"r": "flow", "a": "flow"}


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_per_packet_balancer_is_recognised_and_its_branches_are_no_links(length: int) -> None:
    graph, recognised = diamond(4, length), 0
    for seed in range(RUNS):
        found = World(graph, seed, by_packet=frozenset({"r0"})).found(confidence=0.99)
        assert certain_links(found) <= links(graph)
        recognised += balancers(found)["r0"] == "packet"

    assert recognised >= 97


def test_a_per_packet_balancer_in_one_branch_leaves_the_other_certain() -> None:
    graph = joined(path("r", "a", "b1", "z"), path("r", "a", "b2", "z"), path("r", "c", "d", "z"))
    found = World(graph, 5, by_packet=frozenset({"a"})).found()

    assert certain_links(found) == links(graph)
    assert balancers(found) == {"r": "flow", "a": "packet"}


@pytest.mark.parametrize("loss", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("shape", ["chain", "four", "long", "ends at the target"])
def test_loss_is_not_taken_for_silent_branches(shape: str, loss: float) -> None:
    graph, whole = SHAPES[shape], 0
    for seed in range(RUNS):
        found = World(graph, seed, loss=loss).found()
        assert certain_links(found) <= links(graph)
        whole += certain_links(found) == links(graph) and not silent_places(found)

    assert whole >= 93  # the stated 95, and one silence in a hundred hops that is loss


def silent_places(found: balanced.Account) -> list[str]:
    return [node["address"] for node in found["nodes"] if node["silent_next"]]


@pytest.mark.parametrize("loss", [0, 0.1])
def test_a_silent_router_in_a_diamond_is_a_branch(loss: float) -> None:
    graph = diamond(4)
    found = World(graph, 2, silent=frozenset({"b1.0"}), loss=loss).found()

    assert silent_places(found) == ["r0"]
    assert certain_links(found) == {link for link in links(graph) if "b1.0" not in link}
    assert balancers(found) == {"r0": "flow"}


@pytest.mark.parametrize("loss", [0.2, 0.3, 0.4])
@pytest.mark.parametrize("width", [2, 4])
def test_a_silent_branch_that_loss_hides_is_not_stated_to_be_missing_with_confidence(
    width: int, loss: float
) -> None:
    silent = frozenset({"b1.0"})
    runs = [World(diamond(width), seed, silent=silent, loss=loss).found() for seed in range(RUNS)]
    hidden = [found for found in runs if not silent_places(found)]

    assert sum(found["reached_confidence"] >= 0.95 for found in hidden) <= 3
    assert len(hidden) <= 30


def test_a_silent_hop_that_all_flows_pass_is_no_branch() -> None:
    found = World(path("r0", "r1", "r2"), 0, silent=frozenset({"r1"})).found()

    assert balancers(found) == {}
    assert silent_places(found) == ["r0"]
    assert certain_links(found) == {("source", "r0"), ("r2", "web")}


def test_a_dead_target_ends_the_search() -> None:
    world = World(path("r0", "r1", "r2"), 0, silent=frozenset({"web"}))

    assert certain_links(world.found()) == {("source", "r0"), ("r0", "r1"), ("r1", "r2")}


def test_limited_rates_lower_the_confidence_and_make_no_branches() -> None:
    graph = diamond(4)
    for seed in range(RUNS):
        found = World(graph, seed, burst=6).found()
        assert certain_links(found) <= links(graph)
        assert not silent_places(found)
        assert found["reached_confidence"] < 0.95


def test_a_search_that_runs_out_of_flows_says_so() -> None:
    found = World(diamond(8), 0).found(flows=12)

    assert found["flows"] == 12
    assert found["flows_exhausted"]
    assert found["reached_confidence"] < 0.95


def test_the_first_ttl_need_not_be_one() -> None:
    graph = diamond(2)
    found = World(graph, 0).found(first_ttl=2)

    assert {node["address"] for node in found["nodes"]} == {"source", "b0.0", "b1.0", "t0", "web"}


def test_an_answer_after_a_probe_was_given_up_counts() -> None:
    search = World(path("r0"), 0).search()
    search.sightings.sent(0, 1)
    search.unanswered(0, 1)
    before = search.sightings.cells[1][0].heard["r0"]
    search.answered(0, 1, "r0", ends=False, late=True)

    assert search.sightings.cells[1][0].heard["r0"] == before + 1
    assert search.sightings.cells[1][0].lost == 0
