"""How far the round-trip times of `netlab.traceroute` are from the truth, idle and with every core busy."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import statistics
from collections.abc import Iterator

import networkx as nx
import pandas as pd

import netlab
from netlab import lab

RUNS, QUERIES, ROUTERS = 100, 20, 4  # 10,000 probes with the target's
_MEDIAN_MS, _P99_MS = 0.1, 1.0


def _spin() -> None:
    while True:
        pass


@contextlib.contextmanager
def _busy(processes: int) -> Iterator[None]:
    spinners = [multiprocessing.Process(target=_spin, daemon=True) for _ in range(processes)]
    for spinner in spinners:
        spinner.start()
    try:
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.join()


def _errors(protocol: str) -> tuple[pd.Series, pd.Series]:
    """Trace; return by how much each answered probe's time is off, in ms, and the clocks that were used."""
    graph = nx.path_graph(["client", *(f"r{number}" for number in range(ROUTERS)), "web"])
    nx.set_edge_attributes(graph, 1, "delay_ms")
    with lab.simulated(graph) as net:
        hops = netlab.traceroute(
            net.address("web"),
            protocol=protocol,
            netns=net.client.netns,
            runs=RUNS,
            queries=QUERIES,
            max_ttl=ROUTERS + 1,
            packets_per_s=5000,
        )
        log = net.truth.log()
    log = log[log["ttl"] <= ROUTERS + 1][["ttl", "entered_at", "rtt_ms"]].rename(
        columns={"rtt_ms": "true_ms"}
    )
    found = (
        hops[["ttl", "sent_at", "rtt_ms", "clock"]].astype({"ttl": log["ttl"].dtype}).sort_values("sent_at")
    )
    both = pd.merge_asof(
        found, log, left_on="sent_at", right_on="entered_at", by="ttl", direction="forward"
    ).dropna(subset=["rtt_ms", "true_ms"])
    return (both["rtt_ms"] - both["true_ms"]).abs().astype(float), both["clock"].astype(str)


def measure() -> Iterator[tuple[str, float, str]]:
    """Yield the median and the 99th percentile of the error against what they may be."""
    cores = os.cpu_count() or 1
    for what, spinners in (("idle", 0), (f"{cores} cores busy", cores)):
        with _busy(spinners):
            errors, clocks = _errors("udp")
        values = errors.tolist()
        median, p99 = statistics.median(values), statistics.quantiles(values, n=100)[98]
        by_clock = ", ".join(f"{count} {clock}" for clock, count in clocks.value_counts().items())
        most = f"p99 {p99:.4f}, most {max(values):.2f}"
        detail = f"{len(values)} probes ({by_clock}): median {median:.4f} ms, {most}"
        yield f"rtt, {what}: median error over {_MEDIAN_MS:g} ms", median / _MEDIAN_MS, detail
        yield f"rtt, {what}: p99 of the error over {_P99_MS:g} ms", p99 / _P99_MS, detail
