"""The practice network is what its plan says, and goes whole."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import netlab
from netlab import lab
from netlab.errors import CapabilityError, LabError
from netlab.kernel import capabilities
from netlab.lab import plan

pytestmark = pytest.mark.privileged


@pytest.fixture(scope="module")
def net() -> Iterator[lab.PracticeNetwork]:
    with lab.practice() as network:
        yield network


OWN = f"netlab-{os.getpid()}-"  # others may come and go


def namespaces() -> set[str]:
    listed = subprocess.check_output(["ip", "netns", "list"], text=True, timeout=10)
    return {line.split()[0] for line in listed.splitlines() if line.startswith(OWN)}


def locks() -> set[str]:
    return {file.name for file in Path("/run/netlab").glob(f"{OWN}*")}


def url(address: str, port: int, path: str = "") -> str:
    return f"http://[{address}]:{port}/{path}" if ":" in address else f"http://{address}:{port}/{path}"


def get(net: lab.PracticeNetwork, address: str, port: int, path: str = "") -> str:
    answer = net.client.run(
        ["curl", "-sS", "-m", "10", "-w", "\n%{http_code}", url(address, port, path)], check=True
    )
    return str(answer.stdout)


def fake_nft(directory: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put an nft in front that does what *script* says."""
    file = directory / "nft"
    file.write_text(f"#!/bin/sh\n{script}\n", encoding="ascii")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")


@pytest.mark.parametrize("family", plan.FAMILIES)
def test_the_web_server_answers(net: lab.PracticeNetwork, family: plan.Family) -> None:
    assert get(net, plan.address("web", family), net.ports.http).endswith("\n200")


@pytest.mark.parametrize("family", plan.FAMILIES)
def test_the_web_server_gives_as_many_bytes_as_asked(net: lab.PracticeNetwork, family: plan.Family) -> None:
    address = url(plan.address("web", family), net.ports.http, "bytes/1234567")
    answer = net.client.run(
        ["curl", "-sS", "-m", "10", "-o", "/dev/null", "-w", "%{size_download}", address], check=True
    )

    assert answer.stdout == "1234567"


@pytest.mark.parametrize("status", [204, 404, 503])
def test_the_web_server_answers_with_the_status_asked_for(net: lab.PracticeNetwork, status: int) -> None:
    assert get(net, net.web.address4, net.ports.http, f"status/{status}").endswith(f"\n{status}")


@pytest.mark.parametrize("path", ["bytes/-1", "bytes/x", "bytes/99999999999", "status/999", "status/", "%ff"])
def test_the_web_server_greets_on_other_paths(net: lab.PracticeNetwork, path: str) -> None:
    assert get(net, net.web.address4, net.ports.http, path).startswith("the practice network")


def test_the_slow_web_server_takes_longer_than_the_fast_one(net: lab.PracticeNetwork) -> None:
    def seconds(port: int) -> float:
        taken = net.client.run(
            ["curl", "-sS", "-m", "10", "-o", "/dev/null", "-w", "%{time_total}", url(net.web.address4, port)]
        )
        return float(taken.stdout)

    assert seconds(net.ports.slow_http) > seconds(net.ports.http)


@pytest.mark.parametrize("family", plan.FAMILIES)
def test_the_database_echoes(net: lab.PracticeNetwork, family: plan.Family) -> None:
    with (
        net.client.entered(),
        socket.create_connection((plan.address("db", family), net.ports.tcp_echo), timeout=10) as database,
    ):
        database.sendall(b"select 1")

        assert database.recv(100) == b"select 1"


@pytest.mark.parametrize("family", plan.FAMILIES)
def test_the_udp_service_echoes(net: lab.PracticeNetwork, family: plan.Family) -> None:
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    with net.client.entered(), socket.socket(kind, socket.SOCK_DGRAM) as udp:
        udp.settimeout(10)
        udp.connect((plan.address("web", family), net.ports.udp_echo))
        udp.send(b"who is there")

        assert udp.recv(100) == b"who is there"


@pytest.mark.parametrize("host", plan.SERVERS)
@pytest.mark.parametrize("family", plan.FAMILIES)
def test_the_refusing_port_refuses(net: lab.PracticeNetwork, host: str, family: plan.Family) -> None:
    with net.client.entered(), pytest.raises(ConnectionRefusedError):
        socket.create_connection((plan.address(host, family), net.ports.refuses), timeout=10)


def test_the_dropping_port_lets_the_kernel_time_out(net: lab.PracticeNetwork) -> None:
    with ExitStack() as sockets, net.client.entered():
        waiting = []
        for host in plan.SERVERS:
            for family in plan.FAMILIES:
                kind = socket.AF_INET if family == 4 else socket.AF_INET6
                attempt = sockets.enter_context(
                    socket.socket(kind, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
                )
                attempt.connect_ex((plan.address(host, family), net.ports.drops))
                waiting.append(attempt)
        for attempt in waiting:
            poll = select.poll()
            poll.register(attempt, select.POLLOUT)

            assert poll.poll(60_000)
            assert attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ETIMEDOUT


def test_an_address_that_is_not_in_the_plan_is_unreachable_at_once(net: lab.PracticeNetwork) -> None:
    with net.client.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as resolver:
        assert resolver.connect_ex(("192.0.2.53", 53)) == errno.ENETUNREACH


@pytest.mark.parametrize("family", plan.FAMILIES)
def test_the_web_server_sees_the_gateway_instead_of_the_client(
    net: lab.PracticeNetwork, family: plan.Family
) -> None:
    seen = net.nat_address4 if family == 4 else net.nat_address6

    assert get(net, plan.address("web", family), net.ports.http, "peer") == f"{seen}\n\n200"


@pytest.mark.parametrize("family", plan.FAMILIES)
def test_the_gateway_forwards_a_port_to_the_web_server(net: lab.PracticeNetwork, family: plan.Family) -> None:
    inside = plan.INSIDE.address(plan.GATEWAY, family)

    answer = get(net, inside, net.ports.forwarded)

    entries = netlab.nat(netns=net.gateway.netns, port=net.ports.forwarded, address=inside)
    assert answer.startswith("the practice network")
    assert set(entries["reply_src"]) == {plan.address("web", family)}
    assert set(entries["nat"]) == {"both"}


def test_the_gateway_counts_and_dates_what_it_translates(net: lab.PracticeNetwork) -> None:
    get(net, net.web.address4, net.ports.http)

    listed = net.gateway.run(
        ["conntrack", "-L", "-o", "extended,timestamp", "-p", "tcp", "-d", net.web.address4]
    )

    assert f"dst={net.nat_address4}" in listed.stdout
    assert "bytes=" in listed.stdout
    assert "delta-time=" in listed.stdout


def test_the_clients_tell_of_every_request(net: lab.PracticeNetwork) -> None:
    requests = [request for request in lab.shop(net) if request.port != net.ports.drops]

    said = lab.drive(net, requests)

    assert said["exit_code"].tolist() == [
        7 if request.port == net.ports.refuses else 0 for request in requests
    ]


@pytest.mark.parametrize("server", plan.SERVERS)
@pytest.mark.parametrize("family", plan.FAMILIES)
def test_traceroute_sees_exactly_the_path(net: lab.PracticeNetwork, server: str, family: plan.Family) -> None:
    tool = ["traceroute", f"-{family}", "-n", "-q", "1", "-w", "5", plan.address(server, family)]
    hops = net.client.run(tool, check=True).stdout.splitlines()[1:]

    assert [hop.split()[1] for hop in hops] == (net.path4(server) if family == 4 else net.path6(server))


def test_no_icmp_error_is_held_back(net: lab.PracticeNetwork) -> None:
    tool = ["traceroute", "-n", "-q", "10", "-N", "50", "-w", "5", net.web.address4]
    hops = net.client.run(tool, check=True).stdout.splitlines()[1:]

    assert [hop.count(" ms") for hop in hops] == [10] * len(net.path4("web"))


def test_the_topology_is_that_of_the_links_inside(net: lab.PracticeNetwork) -> None:
    for name, host in net.hosts.items():
        links = host.run(["ip", "-o", "link", "show", "type", "veth"], check=True).stdout.splitlines()
        interfaces = {line.split()[1].split("@")[0] for line in links}

        assert interfaces == set(net.topology[name])


def test_the_inode_is_the_one_the_host_lists(net: lab.PracticeNetwork) -> None:
    listed = subprocess.check_output(["stat", "-Lc", "%i", f"/run/netns/{net.db.netns}"], text=True)

    assert net.db.inode == int(listed)


def test_nothing_of_it_is_in_the_namespace_of_the_host(net: lab.PracticeNetwork) -> None:
    links = subprocess.check_output(["ip", "-o", "link", "show"], text=True)

    assert not {line.split()[1].split("@")[0].rstrip(":") for line in links.splitlines()} & set(net.hosts)


def test_two_networks_live_side_by_side(net: lab.PracticeNetwork) -> None:
    with lab.practice() as other:
        assert not {host.netns for host in net.hosts.values()} & {host.netns for host in other.hosts.values()}
        assert get(other, other.web.address4, other.ports.http).endswith("\n200")

    assert get(net, net.web.address4, net.ports.http).endswith("\n200")


def test_closing_removes_namespaces_processes_descriptors_and_threads() -> None:
    before = namespaces(), locks(), descriptors(), threading.active_count()
    with lab.practice() as net:
        inside = {host.inode for host in net.hosts.values()}
        with net.client.popen(["sleep", "1000"]) as sleeper:
            net.close()

    assert sleeper.returncode == -signal.SIGKILL
    assert (namespaces(), locks(), descriptors(), threading.active_count()) == before
    assert not inside & {inode for _, inode in processes()}


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def processes() -> Iterator[tuple[int, int]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                yield int(entry.name), (entry / "ns/net").stat().st_ino
            except OSError:
                continue


def test_closing_twice_is_closing_once() -> None:
    net = lab.practice()
    net.close()
    net.close()

    assert "closed" in repr(net)


def test_a_host_of_a_closed_network_says_so() -> None:
    with lab.practice() as net:
        pass

    with pytest.raises(LabError, match="client of the practice network does not exist any more"):
        net.client.run(["true"])


def test_an_error_in_the_block_removes_it_too() -> None:
    before = namespaces()
    with pytest.raises(ZeroDivisionError), lab.practice():
        _ = 1 / 0

    assert namespaces() == before


def test_it_is_built_where_an_event_loop_runs_as_in_a_notebook() -> None:
    async def cell() -> str:
        with lab.practice() as net:
            return get(net, net.web.address6, net.ports.http)

    assert asyncio.run(cell()).endswith("\n200")


def test_a_step_that_fails_is_named_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_nft(tmp_path, "echo table full >&2; exit 1", monkeypatch)
    before = namespaces(), locks(), descriptors()

    with pytest.raises(LabError, match="the firewall of gateway could not be set: table full"):
        lab.practice()

    assert (namespaces(), locks(), descriptors()) == before


def test_an_interrupt_while_building_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not at once: an interrupt in the middle of Popen() leaves a process that nobody knows of, as anywhere.
    fake_nft(tmp_path, "sleep 0.5; kill -INT $PPID; sleep 0.1; exit 1", monkeypatch)
    before = namespaces(), locks(), descriptors()

    with pytest.raises(KeyboardInterrupt):
        lab.practice()

    assert (namespaces(), locks(), descriptors()) == before


def test_servers_that_do_not_start_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    before = namespaces()

    with pytest.raises(LabError, match="the servers of web did not start"):
        lab.practice()

    assert namespaces() == before


def test_without_nft_it_is_refused_with_the_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(capabilities, "_SYSTEM_PATH", "/nonexistent")

    with pytest.raises(CapabilityError, match="apt-get install nftables"):
        lab.practice()


@pytest.mark.parametrize("call", ["practice", "clean"])
def test_without_privileges_it_is_refused_with_the_way_to_get_them(call: str) -> None:
    script = f"import netlab.lab; netlab.lab.{call}()"

    run = subprocess.run(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert "CapabilityError" in run.stderr
    assert "without CAP_NET_ADMIN, CAP_SYS_ADMIN. Run Python as root" in run.stderr
