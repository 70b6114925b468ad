"""How late the simulated internet's answers are, beside a process that only sleeps at the same priority."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import select
import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import suppress

import networkx as nx

from netlab import lab

ROUNDS, PROBES, GAP_NS = 3, 3000, 10**6
_PORT = 53
_SPIN_NS = 60_000


def _late_answers_ms() -> list[float]:
    """Send datagrams over nine links of 1 ms; return how much later than due each answer was given back."""
    graph = nx.path_graph(["client", *(f"r{number}" for number in range(1, 9)), "web"])
    nx.set_edge_attributes(graph, 1, "delay_ms")
    graph.nodes["web"]["udp"] = "reply"
    with lab.simulated(graph) as net:
        with net.client.entered():
            probes = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with probes:
            probes.connect((net.address("web"), _PORT))
            probes.settimeout(0)
            due = time.monotonic_ns()
            for _ in range(PROBES):
                due += GAP_NS
                probes.send(b"probe")
                with suppress(BlockingIOError):
                    probes.recv(10)
                time.sleep(max(due - time.monotonic_ns(), 0) / 10**9)
            time.sleep(0.1)  # twice what the last answer takes, and more
        return [float(late) for late in net.truth.log().late_ms.dropna()]


def _sleep(sink: multiprocessing.connection.Connection) -> None:
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    late, due = [], time.monotonic_ns()
    for _ in range(PROBES):
        due += GAP_NS
        while (left := due - time.monotonic_ns()) > 0:
            select.select([], [], [], max(left - _SPIN_NS, 0) / 10**9)
        late.append(-left / 10**6)
    sink.send(late)


def _late_sleeper_ms() -> list[float]:
    ours, theirs = multiprocessing.Pipe()
    sleeper = multiprocessing.get_context("spawn").Process(target=_sleep, args=(theirs,))
    sleeper.start()
    late: list[float] = ours.recv()
    sleeper.join()
    return late


def measure() -> Iterator[tuple[str, float, str]]:
    """Take turns, so that both meet the same machine."""
    answers: list[float] = []
    sleeper: list[float] = []
    for _ in range(ROUNDS):
        answers += _late_answers_ms()
        sleeper += _late_sleeper_ms()
    middle, last = statistics.median(answers), _p99(answers)
    detail = f"{len(answers)} answers: median {middle:.4f} ms, p99 {last:.3f}, most {max(answers):.1f}"
    yield "simulated: median lateness of answers over 0.1 ms", middle / 0.1, detail
    detail = f"sleeper {_p99(sleeper):.3f} ms, most {max(sleeper):.1f}"
    yield "simulated: p99 lateness of answers over that of a mere sleeper", last / _p99(sleeper), detail


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]
