"""The practice network is what its plan says, and goes whole."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator

import pytest

import netlab
from netlab.lab import PracticeNetwork

pytestmark = pytest.mark.privileged
FAMILIES = pytest.mark.parametrize("family", [4, 6])


@pytest.fixture(scope="module")
def net() -> Iterator[PracticeNetwork]:
    with netlab.lab.practice() as built:
        yield built


def address(net: PracticeNetwork, host: str, family: int) -> str:
    return str(getattr(net.hosts[host], f"address{family}"))


def curl(net: PracticeNetwork, url: str, *options: str) -> subprocess.CompletedProcess[str]:
    return net.client.run(["curl", "-q", "-sS", "-m", "10", *options, url])


def named(prefix: str) -> list[str]:
    run = subprocess.run(["ip", "-j", "netns", "list"], capture_output=True, text=True, check=True)
    names = [entry["name"] for entry in json.loads(run.stdout or "[]")]
    return [name for name in names if name.startswith(prefix)]


def wait_until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)


@FAMILIES
def test_the_web_server_sees_the_gateway_instead_of_the_client(net: PracticeNetwork, family: int) -> None:
    host = address(net, "web", family)

    answer = curl(net, f"http://[{host}]/peer" if family == 6 else f"http://{host}/peer")

    assert answer.stdout.strip() == (net.nat_address6 if family == 6 else net.nat_address4)


@FAMILIES
def test_a_page_has_the_size_asked_for(net: PracticeNetwork, family: int) -> None:
    host = address(net, "web", family)
    url = f"http://[{host}]/bytes/12345" if family == 6 else f"http://{host}/bytes/12345"

    answer = curl(net, url, "-o", "/dev/null", "-w", "%{size_download}")

    assert answer.stdout == "12345"


@FAMILIES
def test_the_refusing_port_refuses(net: PracticeNetwork, family: int) -> None:
    with net.client.entered(), pytest.raises(ConnectionRefusedError):
        socket.create_connection((address(net, "db", family), net.ports.refuses), timeout=10)


@FAMILIES
def test_the_dropping_port_times_out(net: PracticeNetwork, family: int) -> None:
    with net.client.entered(), pytest.raises(TimeoutError, match="timed out"):
        socket.create_connection((address(net, "db", family), net.ports.drops), timeout=30)


def test_the_echo_servers_echo(net: PracticeNetwork) -> None:
    with net.client.entered():
        stream = socket.create_connection((net.db.address4, net.ports.tcp_echo), timeout=10)
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with stream, datagrams:
        datagrams.settimeout(10)
        stream.sendall(b"over tcp")
        datagrams.sendto(b"over udp", (net.web.address4, net.ports.udp_echo))

        assert stream.recv(100) == b"over tcp"
        assert datagrams.recv(100) == b"over udp"


def test_the_gateway_forwards_a_port_to_the_web_server(net: PracticeNetwork) -> None:
    answer = curl(
        net, f"http://{net.gateway.address4}:{net.ports.forwarded}/bytes/7", "-w", "%{size_download}"
    )

    entries = netlab.nat(netns=net.gateway.netns, port=net.ports.forwarded)
    assert answer.returncode == 0
    assert entries["reply_src"].tolist() == [net.web.address4]
    assert entries["nat"].tolist() == ["both"]


@pytest.mark.parametrize("server", ["web", "db"])
@FAMILIES
def test_traceroute_of_the_host_sees_the_planned_path(net: PracticeNetwork, server: str, family: int) -> None:
    true_path = net.path4(server) if family == 4 else net.path6(server)

    run = net.client.run(["traceroute", "-n", "-q", "1", f"-{family}", address(net, server, family)])

    assert [line.split()[1] for line in run.stdout.splitlines()[1:]] == true_path


def test_the_topology_is_connected_and_names_every_host(net: PracticeNetwork) -> None:
    assert set(net.topology.nodes) == set(net.hosts)
    assert net.topology.number_of_edges() == len(net.hosts) - 1


def test_two_networks_live_side_by_side_and_go_whole() -> None:
    with netlab.lab.practice() as one, netlab.lab.practice() as other:
        names = (one.name, other.name)
        assert len(named(one.name)) == len(named(other.name)) == 7
        assert curl(one, f"http://{one.web.address4}/").returncode == 0
        assert curl(other, f"http://{other.web.address4}/").returncode == 0

    assert [namespace for name in names for namespace in named(f"{name}-")] == []


def test_closing_twice_is_fine_and_a_closed_network_says_so() -> None:
    net = netlab.lab.practice()
    net.close()
    net.close()

    assert "closed" in repr(net)
    with pytest.raises(netlab.LabError):
        net.client.run(["true"])


def test_no_process_is_left_inside() -> None:
    with netlab.lab.practice() as net:
        sleeper = net.client.popen(["sleep", "1000"])

    assert sleeper.wait(10) == -signal.SIGKILL


def test_clean_removes_what_a_killed_owner_and_its_warden_left_and_nothing_else() -> None:
    script = textwrap.dedent("""
        import netlab, os, signal, time
        net = netlab.lab.practice()
        os.kill(net._warden.pid, signal.SIGKILL)
        print("ready", flush=True)
        time.sleep(60)
    """)
    with netlab.lab.practice() as living:
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as owner:
            assert owner.stdout is not None
            assert owner.stdout.readline() == "ready\n"
            owner.kill()
        left = named(f"netlab-{owner.pid}-")
        removed = netlab.lab.clean()

        assert len(left) == 7
        assert {f"namespace {name}" for name in left} <= set(removed)
        assert len(named(living.name)) == 7

    assert named(f"netlab-{owner.pid}-") == []


def test_a_step_that_fails_names_itself_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    broken = f"{tmp_path}/nft"
    with open(broken, "w", encoding="utf-8") as tool:  # noqa: PTH123
        tool.write("#!/bin/sh\necho no such table >&2\nexit 1\n")
    os.chmod(broken, 0o755)  # noqa: PTH101, S103
    before = set(named(f"netlab-{os.getpid()}-"))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    with pytest.raises(netlab.LabError, match=r"firewall of gateway.*no such table"):
        netlab.lab.practice()

    assert set(named(f"netlab-{os.getpid()}-")) == before


def test_without_privileges_it_is_refused_at_once_with_the_fix() -> None:
    script = textwrap.dedent("""
        import netlab
        try:
            netlab.lab.practice()
        except netlab.CapabilityError as error:
            print(error)
    """)

    run = subprocess.run(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert "CAP_SYS_ADMIN" in run.stdout
    assert "Run Python as root" in run.stdout


def test_the_clients_tell_of_every_request() -> None:
    with netlab.lab.practice() as net:
        requests = [request for request in netlab.lab.shop(net) if request.port != net.ports.drops]
        said = netlab.lab.drive(net, requests)

    assert len(said) == len(requests)
    assert said["exit_code"][said["remote_port"] == net.ports.refuses].tolist() == [7, 7]
    assert (said["exit_code"][said["remote_port"] != net.ports.refuses] == 0).all()
