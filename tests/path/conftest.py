"""Networks of namespaces that the path tests probe, built once and removed whole."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

import pytest

from netlab.kernel.netns import entered

_serial = itertools.count()

# Every namespace answers every probe: what is tested is the tracer, not Linux' ICMP rate limits.
_SYSCTLS = (
    "net.ipv4.ip_forward=1",
    "net.ipv6.conf.all.forwarding=1",
    "net.ipv4.icmp_ratelimit=0",
    "net.ipv4.icmp_msgs_per_sec=1000000",
    "net.ipv4.icmp_msgs_burst=1000000",
    "net.ipv6.icmp.ratelimit=0",
    # A router with several links answers from the one the probe came in by, as most routers do.
    "net.ipv4.icmp_errors_use_inbound_ifaddr=1",
)

N = TypeVar("N", bound="Network")


@dataclass
class Network:
    """Namespaces joined by veth links; nodes have short names, namespaces unique ones."""

    prefix: str = field(default_factory=lambda: f"nlp{os.getpid()}{next(_serial)}")
    nodes: list[str] = field(default_factory=list)
    links: list[tuple[str, str, int]] = field(default_factory=list)

    def netns(self, node: str) -> str:
        return f"{self.prefix}-{node}"

    def add(self, *nodes: str) -> None:
        for node in nodes:
            subprocess.run(["ip", "netns", "add", self.netns(node)], check=True)
            self.nodes.append(node)
            self.ip(node, "link set lo up")
            self.run(node, "sysctl", "-qw", *_SYSCTLS)

    def remove(self) -> None:
        for node in self.nodes:
            subprocess.run(["ip", "netns", "del", self.netns(node)], check=True)

    def run(self, node: str, *command: str, stdin: str | None = None) -> None:
        within = ["ip", "netns", "exec", self.netns(node)]
        subprocess.run([*within, *command], check=True, input=stdin, text=True)

    def output(self, node: str, *command: str) -> str:
        return subprocess.check_output(["ip", "netns", "exec", self.netns(node), *command], text=True)

    def ip(self, node: str, *lines: str) -> None:
        batch = "\n".join(lines) + "\n"
        subprocess.run(["ip", "-n", self.netns(node), "-batch", "-"], check=True, input=batch, text=True)

    def link(self, near: str, far: str, number: int) -> None:
        """Join two nodes by 10.99.N.0/24 and fd99:N::/64; near has .1, far has .2."""
        ends = [(near, f"to-{far}", 1), (far, f"to-{near}", 2)]
        self.ip(near, f"link add to-{far} type veth peer name to-{near} netns {self.netns(far)}")
        for node, device, host in ends:
            self.ip(
                node,
                f"address add 10.99.{number}.{host}/24 dev {device}",
                f"address add fd99:{number}::{host}/64 dev {device} nodad",
                f"link set {device} up",
            )
        self.links.append((near, far, number))

    def warm(self) -> None:
        """Make all neighbours know each other: the first IPv6 packets of a link may wait a second."""
        ways = [(near, f"10.99.{n}.2") for near, _, n in self.links]
        ways += [(near, f"fd99:{n}::2") for near, _, n in self.links]
        ways += [(far, f"fd99:{n}::1") for _, far, n in self.links]
        with ThreadPoolExecutor(len(ways)) as pool:
            list(pool.map(self._meet, ways))

    def _meet(self, way: tuple[str, str]) -> None:
        node, address = way
        with self._socket(node, address, socket.SOCK_STREAM) as sock:
            assert sock.connect_ex((address, 9)) == errno.ECONNREFUSED

    @contextlib.contextmanager
    def rules(self, node: str, chain: str) -> Iterator[None]:
        """Run the block with an nft chain (its body) in a node."""
        self.run(node, "nft", "-f", "-", stdin=f"table inet test {{\n chain c {{\n{chain}\n }}\n}}\n")
        try:
            yield
        finally:
            self.run(node, "nft", "delete", "table", "inet", "test")

    def silent(self, node: str) -> contextlib.AbstractContextManager[None]:
        """Run the block with a router that drops expired packets without a word."""
        return self.rules(
            node,
            "type filter hook output priority 0\n"
            "icmp type time-exceeded drop\n"
            "icmpv6 type time-exceeded drop",
        )

    def dead(self, node: str) -> contextlib.AbstractContextManager[None]:
        """Run the block with a host that drops every probe it gets."""
        return self.rules(
            node,
            "type filter hook input priority 0\n"
            "meta l4proto { tcp, udp } drop\n"
            "icmp type echo-request drop\n"
            "icmpv6 type echo-request drop",
        )

    @contextlib.contextmanager
    def listening(self, node: str, address: str, port: int) -> Iterator[None]:
        """Run the block with a TCP server; its backlog completes handshakes without accept()."""
        with self._socket(node, address, socket.SOCK_STREAM) as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind((address, port))
            server.listen(64)
            yield

    @contextlib.contextmanager
    def replying(self, node: str, address: str, port: int, *, word: bytes = b"") -> Iterator[None]:
        """Run the block with a UDP server that sends *word*, or what it got."""
        stop = threading.Event()
        with self._socket(node, address, socket.SOCK_DGRAM) as server:
            server.bind((address, port))
            server.settimeout(0.02)
            thread = threading.Thread(target=_reply, args=(server, word, stop))
            thread.start()
            try:
                yield
            finally:
                stop.set()
                thread.join()

    def _socket(self, node: str, address: str, kind: socket.SocketKind) -> socket.socket:
        with entered(self.netns(node)):
            return socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)


def _reply(server: socket.socket, word: bytes, stop: threading.Event) -> None:
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            data, sender = server.recvfrom(2048)
            server.sendto(word or data, sender)


class Chain(Network):
    """client - r1 - r2 - r3 - server."""

    PATH = ("client", "r1", "r2", "r3", "server")

    def build(self) -> None:
        self.add(*self.PATH)
        for number, (near, far) in enumerate(itertools.pairwise(self.PATH), 1):
            self.link(near, far, number)
        for at, node in enumerate(self.PATH, 1):
            for number in range(1, len(self.PATH)):
                self._route(node, at, number)

    def _route(self, node: str, at: int, number: int) -> None:
        if number > at:
            gateway = f"10.99.{at}.2", f"fd99:{at}::2"
        elif number < at - 1:
            gateway = f"10.99.{at - 1}.1", f"fd99:{at - 1}::1"
        else:
            return
        self.ip(
            node,
            f"route add 10.99.{number}.0/24 via {gateway[0]}",
            f"route add fd99:{number}::/64 via {gateway[1]}",
        )

    @property
    def client(self) -> str:
        return self.netns("client")

    def hops(self, family: int) -> list[str]:
        """Return the addresses that a trace from the client to the server must show, in order."""
        return [f"10.99.{n}.2" if family == 4 else f"fd99:{n}::2" for n in range(1, len(self.PATH))]

    def target(self, family: int) -> str:
        return self.hops(family)[-1]


def _built(network: N) -> Iterator[N]:
    """Build a network, and remove it whatever becomes of that and of the tests."""
    try:
        network.build()
        network.warm()
        yield network
    finally:
        network.remove()


@pytest.fixture(scope="session")
def chain() -> Iterator[Chain]:
    yield from _built(Chain())


@pytest.fixture(scope="session")
def diamond() -> Iterator[Network]:
    """client - r1 - {a0 a1 a2 a3} - {b0 b1 b2 b3} - r2 - server, balanced by r1 per flow."""
    network = Network()
    try:
        build_diamond(network)
        network.warm()
        yield network
    finally:
        network.remove()


def build_diamond(network: Network) -> None:
    network.add("client", "r1", "r2", "server")
    network.link("client", "r1", 1)
    network.link("r2", "server", 2)
    for branch in range(4):
        upper, lower = f"a{branch}", f"b{branch}"
        network.add(upper, lower)
        network.link("r1", upper, 10 + branch)
        network.link(upper, lower, 20 + branch)
        network.link(lower, "r2", 30 + branch)
        for net, hop in (("10.99.{}.0/24", "10.99.{}.{}"), ("fd99:{}::/64", "fd99:{}::{}")):
            ahead, back = net.format(2), net.format(1)
            network.ip(upper, f"route add {ahead} via {hop.format(20 + branch, 2)}")
            network.ip(upper, f"route add {back} via {hop.format(10 + branch, 1)}")
            network.ip(lower, f"route add {ahead} via {hop.format(30 + branch, 2)}")
            network.ip(lower, f"route add {back} via {hop.format(20 + branch, 1)}")
    # Policy 3 over addresses, protocol and ports: policy 1 would reuse the sending socket's hash over veth.
    for family in ("ipv4", "ipv6"):
        policy = f"net.{family}.fib_multipath_hash_policy=3", f"net.{family}.fib_multipath_hash_fields=0x37"
        network.run("r1", "sysctl", "-qw", *policy)
    for hop in ("10.99.{}.{}", "fd99:{}::{}"):
        ways = " ".join(f"nexthop via {hop.format(10 + branch, 2)}" for branch in range(4))
        network.ip("r1", f"route add default {ways}")
        network.ip("r2", f"route add default via {hop.format(30, 1)}")
        network.ip("client", f"route add default via {hop.format(1, 2)}")
        network.ip("server", f"route add default via {hop.format(2, 1)}")


class Fork(Network):
    """client - {a, b} - server; both ends have an address of no link, and go by one of the routers."""

    SERVER: ClassVar = {4: "10.99.9.9", 6: "fd99:9::9"}
    CLIENT: ClassVar = {4: "10.99.8.8", 6: "fd99:8::8"}
    ROUTERS: ClassVar = {"a": 1, "b": 2}

    def build(self) -> None:
        self.add("client", "a", "b", "server")
        for router, number in self.ROUTERS.items():
            self.link("client", router, number)
            self.link(router, "server", number + 2)
            for family in (4, 6):
                self.ip(
                    router,
                    f"route add {self.CLIENT[family]} via {self.near(number, family)}",
                    f"route add {self.SERVER[family]} via {self.far(number + 2, family)}",
                )
        for family in (4, 6):
            self.ip("server", f"address add {self.SERVER[family]} dev lo")
        self.go_by("a")

    def go_by(self, router: str) -> None:
        number = self.ROUTERS[router]
        for family in (4, 6):
            client, server = self.CLIENT[family], self.SERVER[family]
            gateway, at_once = self.far(number, family), "nodad" if family == 6 else ""
            self.ip(
                "client",
                f"address replace {client} dev lo {at_once}",
                f"route replace {server} via {gateway} src {client}",
            )
            self.ip("server", f"route replace {client} via {self.near(number + 2, family)}")

    @staticmethod
    def near(number: int, family: int) -> str:
        return f"10.99.{number}.1" if family == 4 else f"fd99:{number}::1"

    @staticmethod
    def far(number: int, family: int) -> str:
        return f"10.99.{number}.2" if family == 4 else f"fd99:{number}::2"


@pytest.fixture(scope="module")
def wired_fork() -> Iterator[Fork]:
    yield from _built(Fork())


@pytest.fixture
def fork(wired_fork: Fork) -> Fork:
    """Return the fork with both ends going by router a, whatever the test before has done."""
    wired_fork.go_by("a")
    return wired_fork
