"""What a client says of itself, such as /proc/self, is not what the agent would find there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import netlab
from netlab.agent.client import Host
from netlab.kernel import netns

pytestmark = pytest.mark.privileged

SELF = "/proc/self/ns/net"
ASK = """
import json, os, sys, netlab
def way(netns): return host.gateway("127.0.0.1", netns=netns)["netns"].unique().tolist()
def listened(netns):
    with host.conntrack_events(netns=netns) as events:
        found = list(events.namespaces)
    host.ask("DELETE", events._place)
    return found
def followed(**options):
    told = host.ask("POST", "/captures", body=options).json()
    host.ask("DELETE", "/captures/" + told["name"])
    (place,) = (told["options"][name] for name in options)
    return [os.stat(f"/proc/{one}/ns/net").st_ino for one in ([place] if isinstance(place, int) else place)]
mine = os.stat("/proc/self/ns/net").st_ino
with netlab.connect(sys.argv[1]) as host:
    try:
        print(json.dumps([mine, eval(sys.argv[2])]))
    except netlab.NetlabError as error:
        print(json.dumps([mine, str(error)]))
"""


def asked(agent: Path, question: str, *apart: str) -> tuple[int, Any]:
    """Ask from a network namespace that is not the agent's; return its inode, and the answer."""
    command = ["unshare", "--net", *apart, sys.executable, "-c", ASK, str(agent), question]
    mine, answer = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)
    return int(mine), answer


@pytest.mark.parametrize(
    "question",
    [
        f"way({SELF!r})",
        "way('/proc/thread-self/ns/net')",
        "way('//proc/./self/ns/net')",
        f"listened({SELF!r})",
        f"listened([{SELF!r}])",
        f"followed(netns={SELF!r})",
        f"followed(netns=[{SELF!r}, {SELF!r}])[:1]",
        f"followed(nat={SELF!r})",
    ],
)
def test_a_processs_own_namespace_is_that_of_who_asks(agent: Path, question: str) -> None:
    mine, found = asked(agent, question)

    assert mine != netns.inode()
    assert found == [mine]


def test_in_the_agents_own_namespace_that_is_none_to_enter(host: Host) -> None:
    assert set(host.routes(netns=SELF)["netns"]) == {netns.inode()}
    with host.conntrack_events(netns=[SELF]) as events:
        assert events.namespaces == {netns.inode()}
    host.ask("DELETE", events._place)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("/proc/self/task/1/ns/net", "is another file for the agent"),
        ("/proc/self/fd/3", "is another file for the agent"),
        ("/dev/fd/3", "is another file for the agent"),
        ("../proc/self/ns/net", "is relative"),
        (["/proc/self/fd/3"], "is another file for the agent"),
    ],
)
def test_what_each_process_finds_something_else_at_is_refused(host: Host, place: Any, message: str) -> None:
    with pytest.raises(netlab.BadInput, match=message):
        host.conntrack_events(netns=place)


@pytest.mark.parametrize("place", ["os.getpid()", "[os.getpid()]", "f'/proc/{os.getpid()}/ns/net'"])
def test_a_number_in_another_pid_namespace_is_refused(agent: Path, place: str) -> None:
    question = f"listened({place})"

    _, told = asked(agent, question, "--pid", "--fork", "--mount-proc")

    assert "in your PID namespace, and the agent has another" in told


def test_from_another_pid_namespace_the_own_network_namespace_is_found(agent: Path) -> None:
    mine, found = asked(agent, f"way({SELF!r})", "--pid", "--fork", "--mount-proc")

    assert found == [mine]


def test_a_process_is_found_by_its_number(host: Host) -> None:
    assert set(host.routes(netns=os.getpid())["netns"]) == {netns.inode()}


@pytest.mark.parametrize("target", ["", "a/b", None])
def test_what_no_request_can_name_is_refused_as_here(host: Host, target: Any) -> None:
    with pytest.raises(netlab.BadInput, match=r"target .* is not a host name"):
        host.traceroute(target)
    with pytest.raises(netlab.BadInput, match=r"destination .* is not an IP address"):
        host.gateway(target)


def test_of_no_destination_there_is_no_way(host: Host) -> None:
    assert host.gateway([]).columns.tolist() == netlab.gateway([]).columns.tolist()
