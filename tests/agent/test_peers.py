"""Who may use an agent, and what becomes of those who never say what they want."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

import netlab
from netlab.agent import gate
from tests.support.agents import running
from tests.support.programs import wait_until

pytestmark = pytest.mark.privileged
NOBODY = 65534
ASK = """
import sys, netlab
try:
    with netlab.connect(sys.argv[1]) as host:
        print(len(host.conntrack(netns=sys.argv[2])) >= 0, host.routes().attrs["schema"])
except netlab.NetlabError as error:
    print(type(error).__name__, error)
"""


def as_nobody(path: Path, *groups: str) -> str:
    command = [
        "setpriv",
        f"--reuid={NOBODY}",
        "--regid=1",
        f"--groups={','.join(groups)}" if groups else "--clear-groups",
    ]
    command += [
        "--bounding-set=-all",
        "--inh-caps=-all",
        sys.executable,
        "-c",
        ASK,
        str(path),
        str(os.getpid()),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stdout.strip()


def test_a_member_of_the_group_gets_what_only_root_can_read(reachable: Path) -> None:
    with running(reachable, "--group", "games") as (path, _):
        assert as_nobody(path, "60") == "True routes"


def test_others_are_told_which_group_it_takes(reachable: Path) -> None:
    with running(reachable, "--group", "games") as (path, _):
        told = as_nobody(path)

    assert told.startswith("CapabilityError only root and the group games may use the agent")
    assert "usermod --append --groups games" in told


def test_a_peer_that_was_let_in_by_the_file_but_is_in_no_group_is_refused(reachable: Path) -> None:
    with running(reachable, "--group", "games") as (path, _):
        path.chmod(0o666)
        told = as_nobody(path)

    assert "is not in the group that this agent serves" in told


def test_without_a_group_only_root_is_served(reachable: Path) -> None:
    with running(reachable) as (path, _):
        assert path.stat().st_mode & 0o777 == 0o600
        assert as_nobody(path, "60").startswith("CapabilityError only root")


def test_nobody_waits_for_ever_for_a_request_that_trickles_in(agent: Path) -> None:
    with socket.socket(socket.AF_UNIX) as slow:
        slow.connect(str(agent))
        slow.settimeout(1)
        slow.sendall(b"GET /health HTTP/1.1\r\n")
        ended = time.monotonic() + 30
        closed = False
        while not closed and time.monotonic() < ended:
            with contextlib.suppress(TimeoutError):
                try:
                    slow.sendall(b"A: b\r\n")
                    closed = slow.recv(4096) == b""
                except ConnectionError:
                    closed = True
    assert closed


def test_a_body_that_is_too_large_is_refused_before_it_is_all_there(agent: Path) -> None:
    size = 100 * gate.MOST_BODY_BYTES

    def blocks() -> object:
        for _ in range(size >> 16):
            yield bytes(1 << 16)

    with httpx.Client(transport=httpx.HTTPTransport(uds=str(agent)), base_url="http://agent") as web:
        try:
            status = web.post(
                "/captures", content=blocks(), headers={"Content-Length": str(size)}
            ).status_code
        except httpx.TransportError:
            status = 413  # it was sent, and the rest of the body found nobody
        assert status == 413
        assert web.get("/health").status_code == 200


def is_served(path: Path) -> bool:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as web:
        return web.get("http://agent/health").is_success


def test_more_connections_than_descriptors_leave_the_agent_at_work(tmp_path: Path) -> None:
    with (
        running(tmp_path, inside=["prlimit", "--nofile=768:768"]) as (path, _),
        contextlib.ExitStack() as flood,
    ):
        for _ in range(900):
            idle = flood.enter_context(socket.socket(socket.AF_UNIX))
            idle.connect(str(path))
        flood.close()
        wait_until(lambda: is_served(path))

    log = (tmp_path / "agent.log").read_text(encoding="utf-8")
    assert "Traceback" not in log
    assert "out of system resource" not in log


def test_half_a_request_and_a_closed_connection_leave_the_agent_as_it_was(agent: Path) -> None:
    for request in (
        b"",
        b"GET",
        b"GET /routes HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /captures HTTP/1.1\r\nContent-Length: 9\r\n\r\n{",
    ):
        with socket.socket(socket.AF_UNIX) as half:
            half.connect(str(agent))
            half.sendall(request)
            half.shutdown(socket.SHUT_WR)
    with netlab.connect(agent) as host:
        assert host.health()["status"] == "ok"


def test_hanging_up_ends_the_work_and_frees_its_place(agent: Path) -> None:
    with netlab.lab.practice() as net:
        options = f"protocol=tcp&port={net.ports.drops}&timeout_ms=60000&netns={net.client.netns}"
        dead = f"/traceroute/{net.db.address4}?{options}"
        waiting = []
        for _ in range(4):
            client = socket.socket(socket.AF_UNIX)
            client.connect(str(agent))
            client.sendall(f"GET {dead} HTTP/1.1\r\nHost: agent\r\n\r\n".encode())
            waiting.append(client)
        with httpx.Client(
            transport=httpx.HTTPTransport(uds=str(agent)), base_url="http://agent", timeout=60
        ) as web:
            wait_until(lambda: web.get("/traceroute/127.0.0.1").status_code == 429)
            refused = web.get("/traceroute/127.0.0.1")
            for client in waiting:
                client.close()
            wait_until(lambda: web.get("/traceroute/127.0.0.1").status_code == 200)

    assert refused.headers["retry-after"] == "1"
