"""The unit's sandbox leaves the agent what it needs: it is tried under the unit's system call filter."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import netlab
import netlab.agent
from tests.support import sandbox
from tests.support.agents import running

UNIT = Path(netlab.agent.__file__).parent / "netlab-agent.service"
FORBIDDEN = ("ptrace", "init_module", "kexec_load", "mount", "reboot", "swapon", "settimeofday")
INSIDE = [sys.executable, sandbox.__file__, str(UNIT)]


@pytest.fixture
def other() -> Iterator[int]:
    """Yield the process id of one in another network namespace."""
    with subprocess.Popen(["unshare", "--net", "sleep", "infinity"]) as process:
        yield process.pid
        process.kill()


def test_systemd_understands_the_units(tmp_path: Path) -> None:
    for unit in (UNIT, UNIT.with_suffix(".socket")):
        text = unit.read_text(encoding="utf-8").replace("/opt/netlab/bin/netlab", sys.executable)
        (tmp_path / unit.name).write_text(text, encoding="utf-8")
    command = ["systemd-analyze", "verify", tmp_path / UNIT.name, tmp_path / UNIT.with_suffix(".socket").name]
    verified = subprocess.run(command, capture_output=True, text=True, check=False)

    assert verified.returncode == 0
    assert "netlab-agent" not in verified.stderr  # others' units may have faults of their own


@pytest.mark.privileged
def test_what_an_agent_never_does_it_cannot_do() -> None:
    assert sandbox.allowed(UNIT).isdisjoint(FORBIDDEN)
    assert subprocess.run([*INSIDE, "true"], check=False).returncode == 0
    assert subprocess.run([*INSIDE, "umount", "/nowhere"], check=False).returncode == -signal.SIGSYS


@pytest.mark.privileged
def test_everything_works_under_the_system_call_filter(tmp_path: Path, other: int) -> None:
    with running(tmp_path, inside=INSIDE) as (path, process), netlab.connect(path) as host:
        host.register("me")
        host.delta("me")
        with host.capture(events=True, drops=True, cost=True, protocols="http") as cap:
            cap.drops()
        for protocol in ("udp", "tcp", "icmp"):
            host.traceroute("127.0.0.1", protocol=protocol, timeout_s=0.2)
        for netns in (None, other):
            host.connections(netns=netns, nat=True)
            host.conntrack(netns=netns)
            host.routes(netns=netns)
            host.gateway("127.0.0.1", netns=netns)
            with host.conntrack_events(netns=netns) as events:
                events.table()
        host.dns()
        for place in ("/metrics", "/debug/maps", "/debug/processes", "/conntrack/cached"):
            host.ask("GET", place)

        status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
        assert "Seccomp:\t2" in status
        assert process.poll() is None
