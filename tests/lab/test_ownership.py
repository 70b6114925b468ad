"""A practice network goes with its owner, by the warden or by clean(), and no other one does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netlab import lab
from netlab.kernel import netns
from netlab.lab import ownership, plan

pytestmark = [pytest.mark.privileged, pytest.mark.alone]  # every warden cleans up after all that died

OWNER = """
import sys, netlab.lab
net = netlab.lab.practice()
sleeper = net.client.popen(["sleep", "1000"], stdout=-3)
print(net.name, sleeper.pid, net._claim.warden.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def owner() -> Iterator[subprocess.Popen[str]]:
    """Start another process that owns a network with a process of its own in it."""
    with subprocess.Popen(
        [sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()
    lab.clean()


def announced(owner: subprocess.Popen[str]) -> tuple[str, int, int]:
    """Return the network's name, the pid of the process in it, and that of its warden."""
    assert owner.stdout is not None
    name, sleeper, warden = owner.stdout.readline().split()
    return name, int(sleeper), int(warden)


def named(network: str) -> list[str]:
    return [name for name in netns.names() if name.startswith(f"{network}-")]


def pids_in(namespace: str) -> list[int]:
    return [
        int(pid) for pid in subprocess.check_output(["ip", "netns", "pids", namespace], text=True).split()
    ]


def running() -> set[int]:
    """Return the processes that are in some network namespace, which a zombie is not."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and os.access(entry / "ns/net", os.F_OK):
            found.add(int(entry.name))
    return found


def becomes_true(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 30
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_the_warden_removes_the_network_of_an_owner_that_was_killed(owner: subprocess.Popen[str]) -> None:
    network, sleeper, _ = announced(owner)

    owner.kill()

    assert becomes_true(lambda: not Path(f"/run/netlab/{network}.lock").exists())
    assert not named(network)
    assert sleeper not in running()


def test_the_servers_end_with_an_owner_that_was_killed_with_its_warden(owner: subprocess.Popen[str]) -> None:
    network, _, warden = announced(owner)
    assert pids_in(f"{network}-web")

    os.kill(warden, signal.SIGKILL)
    owner.kill()

    assert becomes_true(lambda: not pids_in(f"{network}-web"))


def test_clean_removes_and_tells_what_an_owner_killed_with_its_warden_left(
    owner: subprocess.Popen[str],
) -> None:
    network, sleeper, warden = announced(owner)
    os.kill(warden, signal.SIGKILL)
    owner.kill()
    owner.wait()

    removed = lab.clean()

    assert f"process {sleeper} (sleep)" in removed
    assert {f"namespace {network}-{host}" for host in plan.HOSTS} <= set(removed)
    assert not named(network)
    assert not Path(f"/run/netlab/{network}.lock").exists()
    assert lab.clean() == []


def test_the_network_of_a_living_owner_is_left_alone(owner: subprocess.Popen[str]) -> None:
    network, sleeper, _ = announced(owner)

    with lab.practice() as own:
        assert lab.clean() == []
        assert len(named(own.name)) == len(plan.HOSTS)
        assert len(named(network)) == len(plan.HOSTS)
        assert sleeper in pids_in(f"{network}-client")


def test_a_process_that_ends_without_closing_closes(owner: subprocess.Popen[str]) -> None:
    network, _, _ = announced(owner)
    assert owner.stdin is not None

    owner.stdin.close()
    owner.wait(timeout=30)

    assert not named(network)


def test_a_forked_child_does_not_close_its_parents_network() -> None:
    script = (
        "import os, netlab.lab\n"
        "with netlab.lab.practice() as net:\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        net.close()\n"
        "        os._exit(0)\n"
        "    os.waitpid(child, 0)\n"
        "    print(net.web.inode > 0, net.client.run(['true']).returncode)\n"
    )

    assert subprocess.check_output([sys.executable, "-c", script], text=True, timeout=60) == "True 0\n"


def test_namespaces_of_other_names_are_left_alone() -> None:
    name = f"netlab-{os.getpid()}-1-customer"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        lab.clean()

        assert name in netns.names()
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def test_a_namespace_half_made_is_removed() -> None:
    # What attaching leaves when it dies between making the file and mounting the namespace on it.
    half = Path("/run/netns/netlab-1-1-client")
    half.touch()

    assert lab.clean() == ["namespace netlab-1-1-client"]
    assert not half.exists()


def test_a_name_is_not_claimed_while_a_namespace_has_it() -> None:
    taken = f"netlab-{os.getpid()}-1-r1"
    subprocess.run(["ip", "netns", "add", taken], check=True)
    try:
        claim = ownership.claim()
        claim.release()

        assert claim.name != f"netlab-{os.getpid()}-1"
    finally:
        subprocess.run(["ip", "netns", "del", taken], check=True)


def test_two_claims_have_two_names() -> None:
    one, other = ownership.claim(), ownership.claim()
    one.release()
    other.release()

    assert one.name != other.name
