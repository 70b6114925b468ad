"""What a process may not do itself, the agent does for it, and the frame says so."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agents import open_place, running

pytestmark = pytest.mark.privileged
AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=1", "--bounding-set=-all", "--inh-caps=-all"]
LIST = """
import netlab
frame = netlab.conntrack(family=4)
with netlab.conntrack_events() as listening:
    pass
for frame in (frame, listening.events(), netlab.conntrack_stats()):
    print(frame.attrs["schema"], netlab.coverage(frame)["detail"].str.contains("the agent at").any(), end=" ")
"""
PROBE = """
import netlab
hops = netlab.multipath("127.0.0.1")
said = netlab.coverage(hops)["detail"].str.contains("the agent at").any()
print(said, hops.attrs["multipath"]["confidence"], netlab.translate("tcp", "192.0.2.1", 1, "192.0.2.2", 2))
print(netlab.path.path_mtu("127.0.0.1")["told"].tolist())
"""
FOLLOW = """
import socket, netlab
with socket.socket() as reserved, netlab.capture(protocol="tcp") as cap:
    reserved.bind(("127.0.0.1", 0))
    with socket.socket() as client:
        client.connect_ex(reserved.getsockname())
    port = reserved.getsockname()[1]
failed = cap.failures()
said = netlab.coverage(failed)["detail"].str.contains("the agent at")
print(failed.loc[failed["remote_port"] == port, "error"].tolist(), said.any())
"""
FAIL = """
import asyncio, pathlib, socket, tempfile, netlab, netlab.panels
from netlab.magics.line import Calls
reserved = socket.socket()
reserved.bind(("127.0.0.1", 0))
port = reserved.getsockname()[1]
def fail():
    with socket.socket() as client:
        client.connect_ex(("127.0.0.1", port))
def errors(frame):
    return frame.loc[frame["remote_port"] == port, "error"].tolist()
"""
PANEL = f"""{FAIL}
async def main():
    panel = netlab.panels.LiveConnections(protocol="tcp").start()
    fail()
    for _ in range(300):
        panel.raise_if_failed()
        shown = panel.table._frame
        if len(shown) and errors(shown):
            break
        await asyncio.sleep(0.1)
    panel.stop()
    print(panel.state.value, errors(panel.table._frame))
    panel.close()
asyncio.run(main())
"""
TRACKED = """
import asyncio, netlab.panels
async def main():
    panel = netlab.panels.LiveConntrack(netns="all", translated=False).start()
    while not panel._head.value:
        panel.raise_if_failed()
        await asyncio.sleep(0.1)
    panel.stop()
    print(panel.state.value, " entries (" in panel._head.value)
    panel.close()
asyncio.run(main())
"""
RECORD = f"""{FAIL}
place = pathlib.Path(tempfile.mkdtemp())
calls = Calls()
calls("capture start --protocol tcp")
with netlab.record(place / "live.netlab", calls.capture):
    fail()
print(errors(calls("failures")), errors(calls("capture stop")), end=" ")
netlab.save(place / "saved.netlab", calls.capture)
live, saved = netlab.load(place / "live.netlab"), netlab.load(place / "saved.netlab")
print(errors(live["connections"]), errors(saved["connections"]), len(saved["cost"]) > 0)
"""
DURATION = f"""{FAIL}
with netlab.capture(duration_s=0.5) as cap:
    fail()
print(cap.state, errors(cap.failures()))
"""
ACCOUNT = """
import socket, netlab
with socket.socket() as reserved:
    reserved.bind(("127.0.0.1", 0))
    with netlab.capture(protocol="tcp", port=reserved.getsockname()[1], client_expiry_s=600) as cap:
        cap.register("one")
        with socket.socket() as client:
            client.connect_ex(reserved.getsockname())
        print([len(cap.delta("one")), len(cap.delta("one", again=True)), len(cap.delta("one"))])
"""


def told(place: Path, script: str, *, group: int = 60) -> str:
    """Return what *script* prints as a member of a group, games if no other is given."""
    environment = {**os.environ, "NETLAB_AGENT": str(place / "agent.sock")}
    command = [*AS_NOBODY, f"--groups={group}", sys.executable, "-c", script]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    return run.stdout.strip() or run.stderr.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def shared() -> Iterator[Path]:
    """Yield where an agent of the group games has its socket, for everybody to see."""
    with open_place() as place, running(place, "--group", "games"):
        yield place


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (LIST, "conntrack True conntrack_events True conntrack_stats True"),
        (PROBE, "True 0.95 None\n['interface']"),
        (FOLLOW, "['ECONNREFUSED'] True"),
        (ACCOUNT, "[1, 1, 0]"),
        (DURATION, "stopped ['ECONNREFUSED']"),
        (PANEL, "stopped ['ECONNREFUSED']"),
        (TRACKED, "stopped True"),
        (RECORD, " ".join([*4 * ["['ECONNREFUSED']"], "True"])),
    ],
    ids=[
        "list",
        "probe",
        "follow",
        "account",
        "for a while",
        "panel",
        "panel of conntrack",
        "%netlab, recording and save",
    ],
)
def test_without_the_capability_the_agent_answers(shared: Path, script: str, expected: str) -> None:
    assert told(shared, script) == expected


def test_outside_of_the_group_the_error_says_who_may_and_how(shared: Path) -> None:
    said = told(shared, FOLLOW, group=2)

    assert "without CAP_BPF" in said
    assert "only root and the group games may use the agent" in said
    assert "usermod --append --groups games" in said


def test_without_an_agent_the_error_is_the_functions_own(reachable: Path) -> None:
    assert "CAP_NET_ADMIN" in told(reachable, LIST)
