"""A live path over the simulated internet: loss, a route that changes, and what is left afterwards."""

from __future__ import annotations

import asyncio
from typing import Any

import networkx as nx
import pandas as pd
import pytest
from loops import run, until
from pictures import trace

import netlab
from netlab import lab
from netlab.errors import BadInput, ProbeError
from netlab.panels import LivePath
from netlab.panels.live import State
from netlab.panels.path import Watched
from netlab.schemas import HOPS

pytestmark = pytest.mark.privileged


def chain() -> nx.Graph:
    graph = nx.path_graph(["client", "r1", "r2", "web"])
    nx.set_edge_attributes(graph, 2, "delay_ms")
    return graph


def test_each_hop_is_a_row_with_its_times_and_the_graph_is_drawn() -> None:
    async def work(net: lab.SimulatedInternet) -> None:
        panel = LivePath(net.address("web"), netns=net.client.netns, every_s=0.1, timeout_s=0.3).start()
        await until(lambda: "<svg" in panel._picture.value and "end to end" in panel._hops.value)
        for node in ("r1", "r2", "web"):
            assert f"<td>{net.address(node)}</td>" in panel._hops.value
        assert "1 path ·" in panel._courses.value
        panel.close()

    with lab.simulated(chain()) as net:
        run(work(net))


def test_the_end_to_end_probe_is_named_whatever_ttl_it_has() -> None:
    async def work(net: lab.SimulatedInternet) -> None:
        panel = LivePath(net.address("web"), netns=net.client.netns, every_s=0.1, max_ttl=100).start()
        await until(lambda: "<td>end to end</td>" in panel._hops.value)
        assert "<td>100</td>" not in panel._hops.value
        panel.close()

    with lab.simulated(chain()) as net:
        run(work(net))


def test_a_silent_router_stays_and_a_lost_answer_does_not_make_one() -> None:
    graph = chain()
    graph.nodes["r1"]["silent"] = True
    graph.edges["r2", "web"]["loss"] = 0.3

    async def work(net: lab.SimulatedInternet) -> None:
        panel = LivePath(net.address("web"), netns=net.client.netns, every_s=0.1, timeout_s=0.3).start()
        await until(lambda: panel.feed and panel.feed.last and len(panel.feed.last.runs) > 30)
        assert panel.feed is not None
        assert panel.feed.last is not None
        nodes = [node for node, silent in panel.feed.last.graph.nodes(data="silent") if silent]
        assert nodes == ["* ttl 1"]
        panel.close()

    with lab.simulated(graph) as net:
        run(work(net))


def test_while_paused_the_picture_stays_and_probing_goes_on() -> None:
    async def work(net: lab.SimulatedInternet) -> None:
        panel = LivePath(net.address("web"), netns=net.client.netns, every_s=0.1, timeout_s=0.2).start()
        await until(lambda: "rounds" in panel._courses.value)
        panel.pause()
        await asyncio.sleep(0.5)
        before = panel._courses.value
        await asyncio.sleep(0.5)
        assert panel._courses.value == before
        panel.resume()
        await until(lambda: panel._courses.value != before)
        panel.stop()
        assert panel.state is State.STOPPED
        panel.close()

    with lab.simulated(chain()) as net:
        run(work(net))


def test_a_monitor_can_be_followed_and_goes_on_after_the_panel() -> None:
    async def work() -> None:
        with netlab.path.monitor("127.0.0.1", every_s=0.1, timeout_s=0.2) as watched:
            panel = LivePath(watched).start()
            await until(lambda: "127.0.0.1" in panel._hops.value)
            panel.close()
            assert watched.running

    run(work())


class Window:
    """A feed of a constant number of probes: as many old rounds are let go as new ones come."""

    started = running = True

    def __init__(self) -> None:
        self.first = 0

    def start(self) -> None:
        pass

    def stop(self) -> None:
        self.running = False

    def hops(self) -> pd.DataFrame:
        frame = trace([["10.0.0.1"], ["192.0.2.9"]], runs=10)
        frame["run"] += self.first
        return frame

    def end_to_end(self) -> pd.DataFrame:
        return HOPS.empty()


def test_new_rounds_are_shown_also_when_as_many_old_ones_were_let_go() -> None:
    window = Window()
    watched = Watched(window)
    before = watched.read()

    assert watched.read() is before
    window.first = 1
    assert watched.read().runs["run"].max() == 10


def test_options_beside_a_monitor_are_refused() -> None:
    with pytest.raises(BadInput, match="port"):
        LivePath(netlab.path.monitor("127.0.0.1"), port=443)


@pytest.mark.parametrize("options", [{"every_s": 0}, {"protocol": "sctp"}, {"evry_s": 1}])
def test_bad_options_are_refused_when_the_panel_is_made(options: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        LivePath("127.0.0.1", **options)


def test_a_target_that_nobody_knows_is_refused_at_once() -> None:
    with pytest.raises(ProbeError):
        LivePath("no-such-host.invalid")
