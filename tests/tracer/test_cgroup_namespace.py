"""A capture in a container that has control groups of its own, as Docker makes them by default."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from netlab.kernel import capabilities

WITHIN = """
import json, sys, netlab
with netlab.capture(protocols="dns") as cap:
    print("ready", flush=True)
    sys.stdin.readline()
frames = {"connections": cap.connections(), "dns": cap.dns()}
gaps = ["what", "kind", "detail"]
told = {name: netlab.coverage(frame)[gaps].values.tolist() for name, frame in frames.items()}
udp = frames["connections"].query("protocol == 'udp'")["remote_port"].dropna().astype(int).tolist()
works = netlab.doctor().fillna("").set_index("capability").loc["follow connection attempts (eBPF)"].tolist()
print(json.dumps([told, udp, works]))
"""


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Path]:
    root = capabilities.cgroup2_mount()
    assert root
    place = root / f"netlab-test-{tmp_path.name}"
    place.mkdir()
    yield place
    place.rmdir()


@pytest.mark.privileged
def test_what_goes_on_outside_of_the_containers_control_group_is_said_to_be_unseen(group: Path) -> None:
    mount = group.parent
    inside = f'umount {mount}; mount -t cgroup2 none {mount}; exec "$@"'
    script = f"echo $$ > {group}/cgroup.procs; exec unshare --cgroup --mount sh -c '{inside}' sh \"$@\""
    with subprocess.Popen(
        ["sh", "-c", script, "sh", sys.executable, "-c", WITHIN],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as within:
        assert within.stdin
        assert within.stdout
        assert within.stdout.readline() == "ready\n"
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
        ):
            server.bind(("127.0.0.1", 0))
            client.sendto(b"from outside", server.getsockname())
            said, _ = within.communicate("\n", timeout=60)
            port = server.getsockname()[1]
    told, udp, works = json.loads(said)

    assert port not in udp
    assert {("UDP flows", "unseen"), ("connections", "unseen")} <= {tuple(g[:2]) for g in told["connections"]}
    assert any("control group" in detail for _, _, detail in told["dns"])
    assert (works[0], "control group" in works[1], "--cgroupns=host" in works[2]) == ("yes", True, True)
