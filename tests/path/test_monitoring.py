"""Monitors over a real kernel: the truth is the log of the simulated internet behind it."""

from __future__ import annotations

import gc
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import networkx as nx
import pytest

import netlab
from netlab import lab
from netlab.errors import BadInput, CapabilityError, CaptureError, ProbeError
from netlab.path.monitoring import Monitor, monitor
from netlab.path.watching import Ledger
from netlab.schemas import HOP_STATS, HOPS, PATH_CHANGES, PATH_RUNS, VERDICTS

pytestmark = pytest.mark.privileged


def chain(**link: float) -> nx.Graph:
    graph = nx.path_graph(["client", "r1", "r2", "web"])
    nx.set_edge_attributes(graph, 2, "delay_ms")
    graph.edges["r1", "r2"].update(link)
    graph.nodes["web"].update(tcp_ports={80: "syn-ack"})
    return graph


@pytest.fixture(scope="module")
def net() -> Iterator[lab.SimulatedInternet]:
    with lab.simulated(chain(loss=0.1)) as network:
        yield network


def watching(net: lab.SimulatedInternet, **how: Any) -> Monitor:
    return monitor(net.address("web"), netns=net.client.netns, **{"every_s": 0.1} | how)


@contextmanager
def running(timer: threading.Timer) -> Iterator[None]:
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize(
    ("method", "protocol"),
    [("raw", "udp"), ("raw", "tcp"), ("raw", "icmp"), ("unprivileged", "udp"), ("unprivileged", "icmp")],
)
def test_loss_is_what_the_network_lost(net: lab.SimulatedInternet, method: str, protocol: str) -> None:
    net.client.run(["sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647"])
    before = len(net.truth.log())

    with watching(net, duration_s=4, protocol=protocol, method=method) as watched:
        pass

    log = net.truth.log().iloc[before:]
    probes = netlab.concat([watched.hops(), watched.end_to_end()])
    # TCP's end is left out: a reset that is lost has the next SYN answered by a bare acknowledgment.
    for ttl in (1, 2) if protocol == "tcp" else (1, 2, 64):
        heard = probes.loc[probes["ttl"] == ttl, "address"].notna().tolist()
        answered = (log.loc[log["ttl"] == ttl, "outcome"] == "answered").tolist()
        assert len(heard) >= 15
        assert heard == answered
    found = watched.stats().set_index("ttl").loc[[1, 2, 3], "address"]
    assert found.tolist() == [net.address(node) for node in ("r1", "r2", "web")]
    assert set(probes["method"]) == {method}


def test_every_look_has_its_schema(net: lab.SimulatedInternet) -> None:
    with watching(net, duration_s=0.5) as watched:
        pass

    assert watched.hops().columns.tolist() == HOPS.names
    assert watched.end_to_end().columns.tolist() == HOPS.names
    assert watched.stats().columns.tolist() == HOP_STATS.names
    assert watched.changes().columns.tolist() == PATH_CHANGES.names
    assert watched.runs().columns.tolist() == PATH_RUNS.names
    assert watched.explain().columns.tolist() == VERDICTS.names


def test_a_path_change_is_seen_while_it_runs() -> None:
    graph = nx.DiGraph(chain())
    nx.add_path(graph, ["r1", "b", "web"], delay_ms=2, metric=2)
    nx.add_path(graph, ["web", "b", "r1"], delay_ms=2, metric=2)
    graph.graph["changes"] = [{"at_s": 2, "between": ["r1", "r2"], "up": False}]
    with lab.simulated(graph) as net, watching(net) as watched:
        deadline = time.monotonic() + 30
        while watched.changes().empty and time.monotonic() < deadline:
            time.sleep(0.1)
        changes = watched.changes()
        names = {net.address(node): node for node in ("r1", "r2", "b", "web")}

    assert [names[hop] for hop in changes.loc[0, "hops_before"].split()] == ["r1", "r2", "web"]
    assert [names[hop] for hop in changes.loc[0, "hops_after"].split()] == ["r1", "b", "web"]
    assert (changes.loc[0, "first_ttl"], changes.loc[0, "last_ttl"]) == (2, 2)
    assert changes.loc[0, "last_at"] < changes.loc[0, "at"]


def test_a_rate_limit_that_the_monitor_provokes_is_called_one() -> None:
    graph = chain()
    graph.nodes["r1"].update(icmp_per_s=2, icmp_burst=3)
    with lab.simulated(graph) as net, watching(net, duration_s=6) as watched:
        pass

    assert watched.explain()["verdict"].tolist() == ["rate-limited", "ok", "ok"]


def test_two_monitors_of_one_target_do_not_mix(net: lab.SimulatedInternet) -> None:
    with watching(net, duration_s=2) as one, watching(net, duration_s=2) as other:
        pass

    for watched in (one, other):
        assert watched.stats()["addresses"].tolist() == [1, 1, 1, 1]
    assert set(one.hops()["source_port"]).isdisjoint(other.hops()["source_port"])


def test_stopping_is_quick_and_final_and_may_be_repeated(net: lab.SimulatedInternet) -> None:
    watched = watching(net, every_s=60).start()
    assert watched.running

    began = time.monotonic()
    watched.stop()
    watched.stop()

    assert time.monotonic() - began < 30  # half of the time to the next round
    assert not watched.running
    assert repr(watched) == f"<netlab monitor of {net.address('web')}: stopped>"
    with pytest.raises(CaptureError, match="was started before"):
        watched.start()


def test_what_was_sent_last_before_a_stop_is_counted_and_left_out(net: lab.SimulatedInternet) -> None:
    before = len(net.truth.log())
    watched = watching(net, timeout_s=60).start()
    assert not watched.wait(0.5)
    watched.stop()

    assert watched.hops().empty
    left_out = netlab.coverage(watched.hops()).set_index("what").loc["probes", "count"]
    assert left_out == len(net.truth.log()) - before


def test_an_error_in_the_block_ends_it_at_once(net: lab.SimulatedInternet) -> None:
    with pytest.raises(ZeroDivisionError), watching(net, duration_s=60) as watched:
        raise ZeroDivisionError

    assert not watched.running


def test_ctrl_c_ends_the_wait_and_keeps_what_was_found(net: lab.SimulatedInternet) -> None:
    watched = watching(net, duration_s=60, timeout_s=0.1)
    main = threading.main_thread().ident or 0
    timer = threading.Timer(0.5, lambda: signal.pthread_kill(main, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt), watched, running(timer):
        watched.wait()

    assert not watched.running
    assert len(watched.hops()) > 0


def test_a_signal_handler_that_stops_it_in_the_middle_of_a_look_waits_for_that(
    net: lab.SimulatedInternet, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, before = Ledger.copy, threads()

    def copy_and_signal(ledger: Ledger) -> tuple[list[Any], list[Any]]:
        signal.raise_signal(signal.SIGUSR1)
        return copy(ledger)

    watched = watching(net, every_s=0.1).start()
    usual = signal.signal(signal.SIGUSR1, lambda *_: watched.stop())
    try:
        with monkeypatch.context() as patch:
            patch.setattr(Ledger, "copy", copy_and_signal)
            watched.hops()
    finally:
        signal.signal(signal.SIGUSR1, usual)

    assert not watched.running
    assert threads() == before


def test_a_monitor_that_nobody_has_any_more_ends(net: lab.SimulatedInternet) -> None:
    watched = watching(net).start()
    assert "netlab-monitor" in threads()

    del watched
    gc.collect()

    deadline = time.monotonic() + 30
    while "netlab-monitor" in threads() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "netlab-monitor" not in threads()


def test_an_error_inside_is_told_to_whoever_asks(net: lab.SimulatedInternet) -> None:
    watched = watching(net).start()
    watched._watch._rounds.send_due = lambda: 1 // 0
    assert watched.wait(10)

    with pytest.raises(ProbeError, match="the monitor ended with ZeroDivisionError"):
        watched.hops()


def test_without_privileges_syns_of_one_flow_cannot_be_under_way_together() -> None:
    with pytest.raises(CapabilityError, match="only one attempt can be under way"):
        monitor("127.0.0.1", protocol="tcp", method="unprivileged")


def test_looking_before_the_start_is_refused(net: lab.SimulatedInternet) -> None:
    with pytest.raises(CaptureError, match="was not started"):
        watching(net).hops()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"every_s": 0.05}, "from 0.1 to 3600 seconds"),
        ({"every_s": 1e9}, "from 0.1 to 3600 seconds"),
        ({"duration_s": 0}, "above 0"),
        ({"protocol": "sctp"}, "protocol 'sctp' is not known"),
        ({"protocol": "icmp", "port": 7}, "icmp has no ports"),
        ({"port": 0}, "port 0"),
        ({"flows": 0}, "flows 0"),
        ({"max_ttl": 256}, "max_ttl 256"),
        ({"timeout_s": 61}, "at most 60"),
        ({"max_probes": 5}, "max_probes 5"),
        ({"method": "rwa"}, "Did you mean 'raw'"),
        ({"evry_s": 1}, "Did you mean 'every_s'"),
    ],
)
def test_options_that_cannot_be_right_are_refused_before_anything_is_sent(
    option: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        monitor("127.0.0.1", **option)
