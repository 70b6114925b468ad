"""A 4-way load balancer and the tools: links that they draw and are not there, next hops that they miss.

Each branch is two routers long, and takes no time. A tool that is not installed, or that finds nothing here,
is named as such.
"""

from __future__ import annotations

import functools
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import netlab
from bench.multipath import CONFIDENCE, KINDS, diamond, drawn, links_both_ways
from netlab import lab
from netlab.kernel import netns

RUNS, RUNS_OF_ALL = 100, 3
_OURS = "netlab.multipath"
_PATIENCE_S = 60.0
_FAILED = f"does not trace here within {_PATIENCE_S:g} s"
# Each prints a line per hop. One probe per hop is the kindest setting: with more there are more false links.
ONE_PATH = {
    "traceroute": ["traceroute", "-n", "-q", "1"],
    "traceroute -I": ["traceroute", "-n", "-q", "1", "-I"],
    "traceroute -T": ["traceroute", "-n", "-q", "1", "-T"],
    "tracepath": ["tracepath", "-n"],
    "lft": ["lft", "-n", "-S"],
    "scamper (Paris)": ["scamper", "-c", "trace -P udp-paris", "-i"],
}
ALL_PATHS = {
    "scamper tracelb": ["scamper", "-c", "tracelb", "-i"],
    "fast-mda-traceroute": ["fast-mda-traceroute"],
    "dublin-traceroute": ["dublin-traceroute"],
}
_HOP = re.compile(r"^\s*(\d+)[:\s][^\n]*?(\d+\.\d+\.\d+\.\d+)", re.MULTILINE)


def measure() -> Iterator[tuple[str, float, str]]:
    """Yield the share of runs with a false link, and of next hops that are missed."""
    graph = diamond(length=2, tail=1)
    with lab.simulated(graph) as net:
        yield from _false_links(net, links_both_ways(net, graph))
        yield from _next_hops(net)


def _false_links(net: Any, links: set[tuple[str, str]]) -> Iterator[tuple[str, float, str]]:
    for kind in KINDS:
        wrong = sum(
            bool(drawn(netlab.traceroute(net.address("web"), protocol=kind, netns=net.client.netns)) - links)
            for _ in range(RUNS)
        )
        yield f"balancer: netlab {kind}, runs with a false link", wrong / RUNS, f"{wrong} of {RUNS}"
    for name, command in ONE_PATH.items():
        if shutil.which(command[0]) is None:
            yield f"balancer: {name}", float("nan"), "not available here"
            continue
        said = [_said(command, net) for _ in range(RUNS)]
        if None in said:
            yield f"balancer: {name}", float("nan"), _FAILED
            continue
        wrong = sum(bool(_path(text or "") - links) for text in said)
        yield f"balancer: {name}, runs with a false link", wrong / RUNS, f"{wrong} of {RUNS}"


def _next_hops(net: Any) -> Iterator[tuple[str, float, str]]:
    wanted = {net.address(f"b{branch}0") for branch in range(4)}

    def ours() -> str | None:
        hops = netlab.multipath(net.address("web"), netns=net.client.netns, confidence=CONFIDENCE)
        return " ".join(hops["address"].dropna())

    yield _missed(_OURS, wanted, ours)
    for name, command in ALL_PATHS.items():
        if shutil.which(command[0]) is None:
            yield f"balancer: {name}", float("nan"), "not available here"
        else:
            yield _missed(name, wanted, functools.partial(_said, command, net))


def _missed(name: str, wanted: set[str], call: Callable[[], str | None]) -> tuple[str, float, str]:
    took_s, missed = [], 0
    for _ in range(RUNS_OF_ALL):
        begin = time.monotonic()
        said = call()
        if said is None:
            return f"balancer: {name}", float("nan"), _FAILED
        missed += len(wanted - set(re.findall(r"[\d.]{7,}", said)))
        took_s.append(time.monotonic() - begin)
    of_all = len(wanted) * RUNS_OF_ALL
    detail = f"{missed} of {of_all}; median {statistics.median(took_s):.2f} s"
    if name == _OURS:
        detail += f"; up to {1 - CONFIDENCE:.0%} of runs may miss some, as bench multipath counts"
    return f"balancer: {name}, next hops missed", missed / of_all, detail


def _said(command: list[str], net: Any) -> str | None:
    """Return what a tool printed, or None if it ended with an error or not at all."""
    with netns.entered(net.client.netns), tempfile.TemporaryDirectory() as place:
        try:
            done = subprocess.run(
                [*command, net.address("web")],
                cwd=place,
                capture_output=True,
                text=True,
                check=False,
                timeout=_PATIENCE_S,
            )
        except subprocess.TimeoutExpired:
            return None
    return None if done.returncode else done.stdout


def _path(said: str) -> set[tuple[str, str]]:
    """Return the links between hops that follow each other in what a tool printed."""
    hops = {int(ttl): address for ttl, address in _HOP.findall(said)}
    return {(hops[ttl], hops[after]) for ttl, after in pairwise(sorted(hops)) if after == ttl + 1}
