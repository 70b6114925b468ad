"""The chain of namespaces of tests/data/chain.toml, with real rules and real servers."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

from netlab.kernel import netns

DATA = tomllib.loads((Path(__file__).parents[1] / "data" / "chain.toml").read_text(encoding="utf-8"))
ROLES = ("client", "host", "gateway", "server")


def run(*command: str, text: str | None = None) -> str:
    return subprocess.run(command, input=text, text=True, check=True, stdout=subprocess.PIPE).stdout


def name(role: str) -> str:
    """Return the namespace's name: one for each test process."""
    return f"netlab-ex{os.getpid()}{role}"


def ip(role: str, *arguments: str) -> str:
    return run("ip", "-n", name(role), *arguments)


def inode(role: str) -> int:
    return netns.inode(name(role))


def entered(role: str) -> contextlib.AbstractContextManager[None]:
    return netns.entered(name(role))


@contextlib.contextmanager
def chain() -> Iterator[None]:
    """Build the chain, and remove it."""
    with contextlib.ExitStack() as made:
        for role in ROLES:
            run("ip", "netns", "add", name(role))
            made.callback(run, "ip", "netns", "del", name(role))
            ip(role, "link", "set", "lo", "up")
        for link in DATA["link"]:
            _link(link)
        bridge = DATA["bridge"]
        ip(bridge["in"], "link", "add", bridge["name"], "type", "bridge")
        ip(bridge["in"], "link", "set", bridge["port"], "master", bridge["name"])
        _up(bridge["in"], bridge["name"], bridge["addresses"])
        for role, gateways in DATA["routes"].items():
            for gateway in gateways:
                ip(role, "route", "add", "default", "via", gateway)
        for role, routes in DATA["back"].items():
            for network, gateway in routes:
                ip(role, "route", "add", network, "via", gateway)
        for role in ("host", "gateway"):
            _sysctl(role, "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        for role, rules in DATA["rules"].items():
            run("ip", "netns", "exec", name(role), "nft", "-f", "-", text=rules)
        yield


def _sysctl(role: str, *settings: str) -> None:
    run("ip", "netns", "exec", name(role), "sysctl", "-qw", *settings)


def _link(link: dict[str, list[str]]) -> None:
    (role, device), (other, its_device) = link["ends"]
    ip(
        role, "link", "add", device, "type", "veth", "peer", "name", its_device, "netns", name(other)
    )  # fmt: skip
    _up(role, device, link["addresses"])
    _up(other, its_device, link.get("other_addresses", []))


def _up(role: str, device: str, addresses: list[str]) -> None:
    for address in addresses:
        ip(role, "address", "add", address, "dev", device, *(["nodad"] if ":" in address else []))
    ip(role, "link", "set", device, "up")
