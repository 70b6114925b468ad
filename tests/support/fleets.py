"""Eight hosts around three routers, each a network namespace, and a dask cluster with a worker on each host.

The workers reach the scheduler over a bridge of their own, which no route of the plan uses. Run as a script
this is the cluster: it imports once and forks.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import networkx as nx

from netlab.kernel import netns

ROUTERS = ("r1", "r2", "r3")
HOSTS = {"h1": "r1", "h2": "r1", "h3": "r1", "h4": "r2", "h5": "r2", "h6": "r3", "h7": "r3", "h8": "r3"}
SPARE = "spare"  # the name of one worker more
LINKS = [("r1", "r2"), ("r2", "r3"), *((router, host) for host, router in HOSTS.items())]
SCHEDULER, PORT = "192.0.2.1", 8786
SILENT, LOST = "203.0.113.1", "h8"  # an address that the routers say nothing about; who has no route to it


def link_address(near: str, far: str) -> str:
    """Return the address of *near* on its link to *far*."""
    number = next(n for n, link in enumerate(LINKS) if set(link) == {near, far})
    return f"198.18.{number}.{1 if LINKS[number][0] == near else 2}"


def address(host: str) -> str:
    return link_address(host, HOSTS[host])


def topology() -> nx.Graph:
    return nx.Graph(LINKS)


def path(near: str, far: str) -> list[str]:
    """Return the addresses that answer a trace: each router's on the link to the hop before."""
    return [link_address(b, a) for a, b in itertools.pairwise(nx.shortest_path(topology(), near, far))]


@dataclass
class Rig:
    """The running thing: namespaces by node, and the pids of the workers by host."""

    prefix: str
    scheduler: str
    cluster: subprocess.Popen[str]

    def netns(self, node: str) -> str:
        return f"{self.prefix}-{node}"

    def entered(self, node: str) -> contextlib.AbstractContextManager[None]:
        return netns.entered(self.netns(node))

    def worker(self, name: str, node: str) -> int:
        """Start a worker of this name on the host *node*, and return its process id."""
        return int(self.ask(f"{name} {node}"))

    def ask(self, order: str) -> str:
        self.cluster.stdin.write(f"{order}\n")
        self.cluster.stdin.flush()
        return self.cluster.stdout.readline()


@contextlib.contextmanager
def fleet(directory: str) -> Iterator[Rig]:
    """Build the hosts and start their cluster; *directory* is for the workers' files."""
    prefix = f"netlab-fl{os.getpid()}"
    nodes = [*HOSTS, *ROUTERS]
    with contextlib.ExitStack() as made:
        for node in ["hub", *nodes]:
            _run("ip", "netns", "add", f"{prefix}-{node}")
            made.callback(_run, "ip", "netns", "del", f"{prefix}-{node}")
        _wire(prefix, nodes)
        cluster = subprocess.Popen(
            [sys.executable, __file__, prefix, directory],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        made.callback(cluster.communicate)  # the end of its input ends it
        rig = Rig(prefix, f"tcp://{SCHEDULER}:{PORT}", cluster)
        for host in HOSTS:
            rig.worker(host, host)
        yield rig


def _run(*command: str, text: str | None = None) -> None:
    subprocess.run(command, input=text, text=True, check=True, capture_output=True)


def _wire(prefix: str, nodes: list[str]) -> None:
    batches: dict[str, list[str]] = {node: ["link set lo up"] for node in ["hub", *nodes]}
    batches["hub"] += ["link add workers type bridge", f"addr add {SCHEDULER}/24 dev workers"]
    for number, host in enumerate(HOSTS, start=11):
        batches["hub"] += [f"link add {host} type veth peer name cluster netns {prefix}-{host}"]
        batches["hub"] += [f"link set {host} master workers up"]
        batches[host] += [f"addr add 192.0.2.{number}/24 dev cluster", "link set cluster up"]
    batches["hub"] += ["link set workers up"]
    for near, far in LINKS:
        batches[near].insert(0, f"link add {far} type veth peer name {near} netns {prefix}-{far}")
        for one, other in ((near, far), (far, near)):
            batches[one] += [f"addr add {link_address(one, other)}/24 dev {other}", f"link set {other} up"]
    for node in set(nodes) - {LOST}:
        way = (
            f"{SILENT}/32 via {link_address(HOSTS[node], node)}"
            if node in HOSTS
            else f"blackhole {SILENT}/32"
        )
        batches[node] += [f"route add {way}"]
    graph = topology()
    for node, (near, far) in itertools.product(nodes, LINKS):
        if node not in {near, far}:
            following = min((nx.shortest_path(graph, node, end) for end in (near, far)), key=len)[1]
            prefix24 = link_address(near, far).rpartition(".")[0] + ".0/24"
            batches[node] += [f"route add {prefix24} via {link_address(following, node)}"]
    for node in ["hub", *ROUTERS, *HOSTS]:  # who makes a link comes before who is given its other end
        _run("ip", "-n", f"{prefix}-{node}", "-batch", "-", text="\n".join(batches[node]))
    sysctls = [
        "net.ipv4.icmp_ratelimit=0",
        "net.ipv4.icmp_msgs_per_sec=1000000",
        "net.ipv4.icmp_msgs_burst=1000000",
    ]
    for node in nodes:
        forward = ["net.ipv4.ip_forward=1"] if node in ROUTERS else []
        _run("ip", "netns", "exec", f"{prefix}-{node}", "sysctl", "-qw", *sysctls, *forward)


async def _schedule() -> None:
    from distributed import Scheduler

    async with Scheduler(host=SCHEDULER, port=PORT, dashboard=False) as scheduler:
        await scheduler.finished()


async def _work(name: str, directory: str) -> None:
    from distributed import Worker

    async with Worker(
        f"tcp://{SCHEDULER}:{PORT}", name=name, nthreads=2, local_directory=directory, dashboard=False,
        memory_limit=0,
    ) as worker:  # fmt: skip
        await worker.finished()


def _forked(node: str, prefix: str, work: Any, *given: str) -> int:
    pid = os.fork()
    if pid:
        return pid
    with netns.entered(f"{prefix}-{node}"):
        asyncio.run(work(*given))
    os._exit(0)


def main(prefix: str, directory: str) -> None:
    import dask.dataframe  # noqa: F401 - imported before forking, as is all else that workers use
    import distributed
    import pandas  # noqa: F401, ICN001

    import netlab
    import netlab.fleet.here

    _ = netlab.capture, netlab.path.trace_many, netlab.connections, distributed.Worker, distributed.Scheduler
    logging.getLogger("distributed").setLevel(logging.WARNING)
    pids = [_forked("hub", prefix, _schedule)]
    for line in sys.stdin:
        name, node = line.split()
        pids.append(_forked(node, prefix, _work, name, directory))
        sys.stdout.write(f"{pids[-1]}\n")
        sys.stdout.flush()
    for pid in reversed(pids):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
