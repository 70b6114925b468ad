"""A router with two neighbours in network namespaces, and what iproute2 says of it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from netlab.kernel import netns

DATA = tomllib.loads(
    (Path(__file__).parent.parent / "data" / "kernel" / "routing.toml").read_text(encoding="utf-8")
)


def run(*command: str, text: str | None = None) -> str:
    return subprocess.run(command, input=text, text=True, check=True, capture_output=True).stdout


class Router:
    """The namespace in the middle; `ip` runs in it."""

    def __init__(self, name: str) -> None:
        self.netns = name

    def entered(self) -> contextlib.AbstractContextManager[None]:
        """Run a block with the calling thread inside."""
        return netns.entered(self.netns)

    def ip(self, *arguments: str) -> str:
        return run("ip", "-n", self.netns, *arguments)

    def told(self, *arguments: str) -> list[dict[str, Any]]:
        """Return what `ip -j` prints."""
        found: list[dict[str, Any]] = json.loads(self.ip("-j", *arguments) or "[]")
        return found

    def way(self, *arguments: str) -> dict[str, Any]:
        """Return what `ip route get` says, or its complaint as `error`."""
        command = ("ip", "-n", self.netns, "-j", "route", "get", *arguments)
        answer = subprocess.run(command, text=True, check=False, capture_output=True)
        if answer.returncode:
            return {"error": answer.stderr.strip().rpartition("answers: ")[2]}
        found: dict[str, Any] = json.loads(answer.stdout)[0]
        return found


@contextlib.contextmanager
def router() -> Iterator[Router]:
    """Build the router of the data file, and remove it."""
    middle, east, west = (f"netlab-rt{os.getpid()}{role}" for role in "mew")
    with contextlib.ExitStack() as made:
        for name in (middle, east, west):
            run("ip", "netns", "add", name)
            made.callback(run, "ip", "netns", "del", name)
        with netns.entered(middle):  # an address that is looked for elsewhere first is no source (RFC 4862)
            Path("/proc/sys/net/ipv6/conf/default/accept_dad").write_text("0")
        for side, other in (("east", east), ("west", west)):
            peer = ("peer", "name", "middle", "netns", other)
            run("ip", "-n", middle, "link", "add", side, "type", "veth", *peer)
            run("ip", "-n", other, "link", "set", "middle", "up")
        run("ip", "-n", middle, "-batch", "-", text="\n".join(DATA["middle"]))
        run("ip", "-n", middle, "-6", "-batch", "-", text="\n".join(DATA["middle6"]))
        yield Router(middle)
