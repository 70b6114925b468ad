"""A client, a router that tracks and translates, and a server, each in a network namespace of its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

_LAID = """
link add c netns {router} type veth peer name r netns {client}
link add s netns {router} type veth peer name r netns {server}
"""
_FORWARDING = ("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")


def run(*command: str, text: str | None = None) -> str:
    return subprocess.run(command, input=text, text=True, check=True, capture_output=True).stdout


def inside(space: str, *command: str, text: str | None = None) -> str:
    return run("ip", "netns", "exec", space, *command, text=text)


@dataclass(frozen=True)
class Between:
    """The names of the namespaces. The client's network is 10.NUMBER.1.0/24 and fdNUMBER:1::/64, the server's
    10.NUMBER.2.0/24 and fdNUMBER:2::/64; the router is 1 in both, and they are 2."""

    number: int

    @property
    def client(self) -> str:
        return self._named("c")

    @property
    def router(self) -> str:
        return self._named("r")

    @property
    def server(self) -> str:
        return self._named("s")

    @property
    def all(self) -> tuple[str, str, str]:
        return self.client, self.router, self.server

    def _named(self, role: str) -> str:
        return f"netlab-{self.number}-{os.getpid()}{role}"

    def build(self) -> None:
        for space in self.all:
            run("ip", "netns", "add", space)
            run("ip", "-n", space, "link", "set", "lo", "up")
            inside(space, "sysctl", "-qw", "net.ipv4.ping_group_range=0 0")
        run("ip", "-b", "-", text=_LAID.format(router=self.router, client=self.client, server=self.server))
        for network, device, space in ((1, "c", self.client), (2, "s", self.server)):
            self._address(self.router, device, network, 1)
            self._address(space, "r", network, 2)
            for gateway in (f"10.{self.number}.{network}.1", f"fd{self.number}:{network}::1"):
                run("ip", "-n", space, "route", "add", "default", "via", gateway)
        inside(self.router, "sysctl", "-qw", *_FORWARDING)

    def _address(self, space: str, device: str, network: int, host: int) -> None:
        run("ip", "-n", space, "addr", "add", f"10.{self.number}.{network}.{host}/24", "dev", device)
        run("ip", "-n", space, "addr", "add", f"fd{self.number}:{network}::{host}/64", "dev", device, "nodad")
        run("ip", "-n", space, "link", "set", device, "up")


@contextmanager
def between(number: int) -> Iterator[Between]:
    """Build the three namespaces, and remove them."""
    net = Between(number)
    with ExitStack() as made:
        for space in net.all:
            made.callback(subprocess.run, ["ip", "netns", "del", space], check=False, capture_output=True)
        net.build()
        yield net
