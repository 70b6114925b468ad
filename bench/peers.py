"""A traceroute beside the other tracers of this world, on a chain of eight routers and on a slow internet.

netlab's time is that of a call, a peer's that of its process, scapy's that of its call: what a notebook waits
for either way. A peer that takes longer than `_PATIENCE_S` is stopped and counted with that; one that is not
installed, or ends with an error on this network, is named and not timed. fast-mda-traceroute is installed by
`pip install fast-mda-traceroute "click<8.2"` in an environment on the PATH.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import networkx as nx

from netlab import lab, traceroute
from netlab.kernel import netns

ROUNDS, ROUTERS, HOP_MS = 15, 8, 20
_PATIENCE_S = 30.0
_SLOW_S = 2.0  # who takes longer is run once only
_SILENT = (3, 5)
_SYSCTLS = (
    "net.ipv4.ip_forward=1",
    "net.ipv4.icmp_ratelimit=0",
    "net.ipv4.icmp_msgs_per_sec=1000000",
    "net.ipv4.icmp_msgs_burst=1000000",
)
_SILENCE = """
table ip netlab_bench {
    chain out {
        type filter hook output priority 0
        icmp type { time-exceeded, destination-unreachable } drop
    }
}
"""
_DEATH = """
table ip netlab_bench {
    chain in {
        type filter hook input priority 0
        drop
    }
}
"""
PEERS = {
    "traceroute": ["traceroute", "-n"],
    "traceroute -I": ["traceroute", "-n", "-I"],
    "traceroute -T": ["traceroute", "-n", "-T"],
    "tracepath": ["tracepath", "-n"],
    "mtr -c 1": ["mtr", "-n", "-r", "-c", "1"],
    "tcptraceroute": ["tcptraceroute", "-n"],
    "lft": ["lft", "-n", "-S"],
    "scamper": ["scamper", "-i"],
    "dublin-traceroute": ["dublin-traceroute", "-n", "1"],
    "fast-mda-traceroute": ["fast-mda-traceroute"],
}
_KINDS = ("udp", "tcp", "icmp")


@dataclass(frozen=True, slots=True)
class Way:
    """Where to trace from (a namespace), and to what."""

    netns: str
    target: str


def _run(*command: str, text: str | None = None) -> None:
    subprocess.run(command, input=text, text=True, check=True)


@contextlib.contextmanager
def _chain() -> Iterator[tuple[Way, list[str]]]:
    """Join a client, routers and a target; yield the way and the namespaces in order."""
    names = [f"netlab-bench{os.getpid()}-{number}" for number in range(ROUTERS + 2)]
    with contextlib.ExitStack() as made:
        for name in names:
            _run("ip", "netns", "add", name)
            made.callback(_run, "ip", "netns", "del", name)
            _run("ip", "-n", name, "link", "set", "lo", "up")
            _run("ip", "netns", "exec", name, "sysctl", "-qw", *_SYSCTLS)
        for number, (near, far) in enumerate(itertools.pairwise(names)):
            _run(
                "ip",
                "-n",
                near,
                "link",
                "add",
                "toward",
                "type",
                "veth",
                "peer",
                "name",
                "back",
                "netns",
                far,
            )
            for name, device, host in ((near, "toward", 1), (far, "back", 2)):
                _run("ip", "-n", name, "address", "add", f"10.98.{number}.{host}/24", "dev", device)
                _run("ip", "-n", name, "link", "set", device, "up")
            _run("ip", "-n", far, "route", "add", "10.98.0.0/16", "via", f"10.98.{number}.1")
        for number, name in enumerate(names[:-1]):
            _run("ip", "-n", name, "route", "add", f"10.98.{ROUTERS}.2/32", "via", f"10.98.{number}.2")
            if number:
                _run("ip", "-n", name, "route", "add", "default", "via", f"10.98.{number}.2")
        yield Way(names[0], f"10.98.{ROUTERS}.2"), names


@contextlib.contextmanager
def _rules(names: list[str], rules: str) -> Iterator[None]:
    for name in names:
        _run("ip", "netns", "exec", name, "nft", "-f", "-", text=rules)
    yield
    for name in names:
        _run("ip", "netns", "exec", name, "nft", "delete", "table", "ip", "netlab_bench")


def _seconds(work: Callable[[], object]) -> float:
    begin = time.monotonic()
    work()
    return time.monotonic() - begin


def missing() -> list[str]:
    """Return the peers that are not installed."""
    return [name for name, command in PEERS.items() if shutil.which(command[0]) is None]


def _call(command: list[str], way: Way) -> bool:
    """Let a peer trace; return whether it could."""
    with netns.entered(way.netns), tempfile.TemporaryDirectory() as place:  # some leave a file there
        try:
            done = subprocess.run(
                [*command, way.target], cwd=place, capture_output=True, check=False, timeout=_PATIENCE_S
            )
        except subprocess.TimeoutExpired:
            return True
    return done.returncode == 0


@contextlib.contextmanager
def _scapy(way: Way) -> Iterator[Callable[[], bool]]:
    """Yield a call of scapy's, which has read the interfaces and routes of the namespace before."""
    from scapy.config import conf
    from scapy.layers.inet import traceroute as scapy_traceroute

    def call() -> bool:
        with netns.entered(way.netns):
            scapy_traceroute(way.target, maxttl=ROUTERS + 4, timeout=2, verbose=False)
        return True

    try:
        with netns.entered(way.netns):
            conf.ifaces.reload()
            conf.route.resync()
        yield call
    finally:
        conf.ifaces.reload()
        conf.route.resync()


@dataclass(slots=True)
class _Times:
    """Medians in seconds: netlab's by kind, and those of the peers that `failed` does not name."""

    ours: dict[str, float]
    theirs: dict[str, float]
    failed: list[str]

    def __str__(self) -> str:
        parts = [_said(self.ours), _said(self.theirs)]
        if self.failed:
            parts.append(f"cannot trace here: {', '.join(self.failed)}")
        if missing():
            parts.append(f"not available here: {', '.join(missing())}")
        return "; ".join(parts)


def _times(way: Way) -> _Times:
    """Return the medians of all, taken in turn."""
    with _scapy(way) as scapy:
        calls: dict[str, Callable[[], object]] = {
            kind: functools.partial(traceroute, way.target, protocol=kind, netns=way.netns) for kind in _KINDS
        }
        peers: dict[str, Callable[[], bool]] = {"scapy": scapy} | {
            name: functools.partial(_call, command, way)
            for name, command in PEERS.items()
            if name not in missing()
        }
        first = {}  # to warm up; who is slow is slow at once
        failed = []
        for name, peer in peers.items():
            begin = time.monotonic()
            if not peer():
                failed.append(name)
            first[name] = time.monotonic() - begin
        timed = {name: peer for name, peer in peers.items() if name not in failed}
        for ours in calls.values():
            ours()
        taken: dict[str, list[float]] = {name: [] for name in [*calls, *timed]}
        turns = list((calls | timed).items())
        for _ in range(ROUNDS):
            random.shuffle(turns)  # who runs before has filled the caches, for better or worse
            for name, call in turns:
                slow = first.get(name, 0.0)
                taken[name].append(slow if slow >= _SLOW_S else _seconds(call))
    medians = {name: statistics.median(values) for name, values in taken.items()}
    return _Times({name: medians[name] for name in calls}, {name: medians[name] for name in timed}, failed)


def _said(times: dict[str, float]) -> str:
    ordered = sorted(times.items(), key=lambda item: item[1])
    return ", ".join(f"{name} {1000 * taken:.1f}" for name, taken in ordered) + " ms"


def _beside(what: str, way: Way, peer: str | None = None) -> Iterator[tuple[str, float, str]]:
    """Yield netlab's slowest kind over the fastest peer, or over *peer*."""
    times = _times(way)
    known = times.theirs[peer] if peer else min(times.theirs.values())
    against = peer or "the fastest peer"
    yield f"peers: {what} / {against}", max(times.ours.values()) / known, str(times)


def measure() -> Iterator[tuple[str, float, str]]:
    """Take turns, so that all meet the same machine."""
    with _chain() as (way, names):
        yield from _beside("all hops answer", way)
        with _rules([names[number] for number in _SILENT], _SILENCE):
            yield from _beside("two silent hops", way, "traceroute")
        with _rules(names[-1:], _DEATH):
            times = _times(way)
            yield "peers: dead target, in units of the stated second", max(times.ours.values()), str(times)
    graph = nx.path_graph(["client", *(f"r{number}" for number in range(1, ROUTERS + 1)), "web"])
    nx.set_edge_attributes(graph, HOP_MS / 2, "delay_ms")
    with lab.simulated(graph) as net:
        slow = Way(net.client.netns, net.address("web"))
        yield from _beside(f"all hops answer, {HOP_MS} ms each", slow)
    for number in _SILENT:
        graph.nodes[f"r{number}"]["silent"] = True
    with lab.simulated(graph) as net:
        slow = Way(net.client.netns, net.address("web"))
        yield from _beside(f"two silent hops, {HOP_MS} ms each", slow, "traceroute")
