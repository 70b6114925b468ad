"""The simulated internet behind a real kernel, as traceroute, ping, tracepath, mtr and sockets see it."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import networkx as nx
import pytest
from shapes import Case, having, parsed

import netlab
from netlab import lab
from netlab.errors import BadInput, CapabilityError, LabError
from netlab.kernel import netns

pytestmark = pytest.mark.privileged

NOW = [c for c in having("hops") if all(len(hop) == 1 for hop in c.wanted["hops"]) and not c.at_s]
_PROTOCOL = {"udp": 17, "tcp": 6}


def chain(*, delay_ms: float = 2, **web: object) -> nx.Graph:
    graph = nx.path_graph(["client", "r1", "r2", "r3", "web"])
    nx.set_edge_attributes(graph, delay_ms, "delay_ms")
    graph.nodes["web"].update(web)
    return graph


@pytest.fixture(scope="module")
def net() -> Iterator[lab.SimulatedInternet]:
    with lab.simulated(chain(tcp_ports={80: "syn-ack"}, udp_ports={53: "reply"})) as network:
        yield network


def addresses(net: lab.SimulatedInternet, family: int) -> list[str]:
    return [net.address(node, family) for node in ("r1", "r2", "r3", "web")]


def output(net: lab.SimulatedInternet, *command: str) -> str:
    run = net.client.run(command)
    assert run.returncode == 0, run.stderr
    return str(run.stdout)


def hops_of_traceroute(text: str) -> list[str]:
    """Return the first word behind each hop's number."""
    return [line.split()[1] for line in text.splitlines()[1:]]


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("kind_of_probe", ["-U", "-I", "-T"])
def test_traceroute_sees_the_routers_in_order(
    net: lab.SimulatedInternet, family: int, kind_of_probe: str
) -> None:
    text = output(net, "traceroute", "-n", kind_of_probe, net.address("web", family))

    assert hops_of_traceroute(text) == addresses(net, family)


@pytest.mark.parametrize("family", [4, 6])
def test_ping_gets_all_answers_none_before_its_time(net: lab.SimulatedInternet, family: int) -> None:
    text = output(net, "ping", "-n", "-c", "5", "-i", "0.01", net.address("web", family))
    times = [float(found) for found in re.findall(r"time=([\d.]+) ms", text)]

    assert " 0% packet loss" in text
    assert len(times) == 5
    assert min(times) >= 16


@pytest.mark.parametrize("family", [4, 6])
def test_a_ping_that_needs_three_fragments_is_answered(net: lab.SimulatedInternet, family: int) -> None:
    before = len(net.truth.journeys())
    text = output(net, "ping", "-n", "-c", "1", "-s", "4000", net.address("web", family))

    assert " 0% packet loss" in text
    assert [str(journey.outcome) for journey in net.truth.journeys()[before:]] == [
        "fragment",
        "fragment",
        "answered",
    ]


def test_a_flood_does_not_keep_it_from_closing() -> None:
    with lab.simulated(chain(udp="silent")) as net:
        script = (
            "import socket\n"
            "with socket.socket(type=socket.SOCK_DGRAM) as sender:\n"
            f"    while True: sender.sendto(b'', ('{net.address('web')}', 9))"
        )
        flood = net.client.popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
        assert becomes_true(lambda: len(net.truth.journeys()) > 1000)
    flood.wait(timeout=30)

    assert net.client.netns not in netns.names()
    assert len(net.truth.journeys()) > 1000


@pytest.mark.parametrize("family", [4, 6])
def test_mtr_sees_the_routers_in_order(net: lab.SimulatedInternet, family: int) -> None:
    text = output(net, "mtr", "-n", "-r", "-c", "1", "-i", "0.1", "-G", "1", net.address("web", family))

    assert re.findall(r"^ *\d+\.\|-- (\S+)", text, re.MULTILINE) == addresses(net, family)


@pytest.mark.parametrize("family", [4, 6])
def test_tracepath_finds_the_narrow_link_and_its_router(family: int) -> None:
    graph = chain()
    graph.edges["r2", "r3"]["mtu_bytes"] = 1400
    with lab.simulated(graph) as net:
        text = output(net, "tracepath", "-n", net.address("web", family))

    assert re.search(rf"{re.escape(net.address('r2', family))} .*pmtu 1400", text)
    assert "Resume: pmtu 1400 hops 4 back 4" in text


def test_traceroute_reads_the_mpls_labels() -> None:
    graph = chain()
    graph.nodes["r2"]["mpls"] = [16001, {"label": 24005, "traffic_class": 5}]
    with lab.simulated(graph) as net:
        hops = output(net, "traceroute", "-n", "-e", net.address("web"))

    assert "<MPLS:L=16001,E=0,S=0,T=1/L=24005,E=5,S=1,T=1>" in hops


@pytest.mark.parametrize("family", [4, 6])
def test_a_connection_opens_and_closes(net: lab.SimulatedInternet, family: int) -> None:
    with net.client.entered(), socket.create_connection((net.address("web", family), 80), timeout=10) as tcp:
        tcp.sendall(bytes(100_000))
        tcp.shutdown(socket.SHUT_WR)

        assert tcp.recv(1) == b""


@pytest.mark.parametrize("family", [4, 6])
def test_a_closed_port_refuses(net: lab.SimulatedInternet, family: int) -> None:
    with net.client.entered(), pytest.raises(ConnectionRefusedError):
        socket.create_connection((net.address("web", family), 81), timeout=10)


@pytest.mark.parametrize("family", [4, 6])
def test_datagrams_come_back_from_a_port_that_replies(net: lab.SimulatedInternet, family: int) -> None:
    kind_of_address = socket.AF_INET if family == 4 else socket.AF_INET6
    with net.client.entered(), socket.socket(kind_of_address, socket.SOCK_DGRAM) as udp:
        udp.settimeout(10)
        udp.connect((net.address("web", family), 53))
        udp.send(b"who is there")

        assert udp.recv(100) == b"who is there"


def test_a_prohibited_destination_is_unreachable() -> None:
    with (
        lab.simulated(chain(tcp="prohibited")) as net,
        net.client.entered(),
        pytest.raises(OSError, match=os.strerror(errno.EHOSTUNREACH)),
    ):
        socket.create_connection((net.address("web"), 80), timeout=10)


def traceroute(net: lab.SimulatedInternet, case: Case) -> list[str]:
    flow, wanted = case.flow(), case.wanted.get("traceroute", case.wanted["hops"])
    probe = {"udp": ["-U", "-p", str(flow.port)], "tcp": ["-T", "-p", str(flow.port)], "icmp": ["-I"]}
    limits = ["-q", "1", "-N", "1", "-w", "0.3", "-m", str(len(wanted))]
    text = output(net, "traceroute", "-n", *probe[flow.protocol], *limits, str(case.address(flow.target)))
    return hops_of_traceroute(text)


@pytest.mark.parametrize("name", sorted({case.name for case in NOW}))
def test_traceroute_sees_what_the_file_says(name: str) -> None:
    of_file = [case for case in NOW if case.name == name]
    with lab.simulated(of_file[0].graph) as net:
        found = [traceroute(net, case) for case in of_file]

    assert found == [
        [address or "*" for (address,) in case.addresses(case.wanted.get("traceroute", case.wanted["hops"]))]
        for case in of_file
    ]


@pytest.mark.parametrize("name", ["chain", "interfaces", "mpls", "nat", "per_packet", "silent_hops"])
def test_netlab_sees_what_the_log_says(name: str) -> None:
    graph = next(case for case in having("target") if case.name == name).graph
    with lab.simulated(graph) as net:
        traces = [
            netlab.traceroute(
                net.address("web", family), protocol=protocol, netns=net.client.netns, timeout_s=0.5
            )
            for family in (4, 6)
            for protocol in ("udp", "tcp")
        ]
        journeys = net.truth.journeys()
    for hops in traces:
        target, number = hops.target.iloc[0], _PROTOCOL[hops.protocol.iloc[0]]
        true = {
            (packet.ttl if packet.version == 4 else packet.hlim, parsed(journey.answer).src)
            for journey in journeys
            if journey.answer and (packet := parsed(journey.packet)).dst == target
            if (packet.proto if packet.version == 4 else packet.nh) == number
        }
        answered = hops[hops.address.notna()]
        seen = set(zip(answered.ttl, answered.address.astype(str), strict=True))

        assert hops.reached.any()
        assert seen == {(ttl, address) for ttl, address in true if ttl <= hops.ttl.max()}


def test_the_path_changes_when_the_shape_says() -> None:
    graph = chain()
    nx.add_path(graph, ["r1", "other", "longer", "r3"], delay_ms=2)
    graph.graph["changes"] = [{"at_s": 1.0, "between": ["r1", "r2"], "up": False}]
    with lab.simulated(graph) as net:
        output(net, "ping", "-n", "-c", "16", "-i", "0.1", net.address("web"))
        journeys = net.truth.journeys()
    before, after = ("r1", "r2", "r3", "web"), ("r1", "other", "longer", "r3", "web")

    assert {(journey.at_ns + 2 * 10**6 < 10**9, journey.there) for journey in journeys} == {
        (True, before),
        (False, after),
    }


def test_the_log_has_every_packet_and_its_true_time(net: lab.SimulatedInternet) -> None:
    before = len(net.truth.log())
    output(net, "ping", "-n", "-c", "4", "-i", "0.01", net.address("web"))
    log = net.truth.log().iloc[before:]

    assert log.outcome.tolist() == ["answered"] * 4
    assert log.delay_ms.tolist() == [16.0] * 4
    assert (log.late_ms >= 0).all()
    assert log.there.tolist() == [("r1", "r2", "r3", "web")] * 4
    assert log.back.tolist() == [("r3", "r2", "r1", "client")] * 4
    assert log.entered_at.is_monotonic_increasing
    assert net.overlooked == 0


def test_a_burst_is_carried_whole(net: lab.SimulatedInternet) -> None:
    before = len(net.truth.log())
    with net.client.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.connect((net.address("web"), 53))
        sent = [number.to_bytes(4, "big") for number in range(1500)]
        for payload in sent:
            udp.send(payload)
        assert becomes_true(lambda: len(net.truth.journeys()) >= before + len(sent))
    log = net.truth.journeys()[before:]

    assert net.overlooked == 0
    assert [parsed(journey.packet).load for journey in log[:1500]] == sent


def test_the_log_can_be_read_when_the_network_is_closed() -> None:
    with lab.simulated(chain()) as net:
        output(net, "ping", "-n", "-c", "1", net.address("web"))
    net.close()

    assert net.truth.log().outcome.tolist() == ["answered"]


def test_networks_beside_each_other_are_apart() -> None:
    with lab.simulated(chain()) as one, lab.simulated(chain(delay_ms=0)) as other:
        output(one, "ping", "-n", "-c", "2", "-i", "0.1", one.address("web"))

        assert one.client.netns != other.client.netns
        assert (len(one.truth.log()), len(other.truth.log())) == (2, 0)


def test_it_works_where_an_event_loop_runs_as_in_a_notebook() -> None:
    async def cell() -> str:
        with lab.simulated(chain()) as net:
            return output(net, "ping", "-n", "-c", "1", net.address("web"))

    assert " 0% packet loss" in asyncio.run(cell())


def namespaces() -> set[str]:
    return {name for name in netns.names() if name.startswith(f"netlab-{os.getpid()}-")}


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_nothing_is_left_when_a_block_ends_badly(error: type[BaseException]) -> None:
    before = namespaces()
    net = lab.simulated(chain())
    carrier = net._driver
    with pytest.raises(error), net:
        raise error

    assert carrier is not None
    assert carrier.returncode is not None
    assert namespaces() == before
    assert not Path(f"/run/netlab/{net.name}.lock").exists()


def test_a_wrong_shape_is_refused_before_anything_is_built() -> None:
    before = namespaces()
    with pytest.raises(BadInput, match="seed"):
        lab.simulated(chain(), seed=-1)
    with pytest.raises(BadInput, match=r"node 'web' has an unknown attribute 'tpc'\. Did you mean 'tcp'"):
        lab.simulated(chain(tpc="rst"))

    assert namespaces() == before


def test_a_carrier_that_died_is_named_and_the_rest_goes() -> None:
    with lab.simulated(chain()) as net:
        assert net._driver is not None
        os.kill(net._driver.pid, signal.SIGKILL)
        with pytest.raises(LabError, match="the process that carries the packets has ended"):
            net.truth.log()

    assert net.client.netns not in netns.names()


def test_without_the_device_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netlab.lab.internet.network._TUN", "/dev/net/none")

    with pytest.raises(CapabilityError, match="modprobe tun"):
        lab.simulated(chain())


def test_without_privileges_it_is_refused_with_the_way_to_get_them() -> None:
    script = "import netlab.lab, networkx; netlab.lab.simulated(networkx.path_graph(['client', 'web']))"
    run = subprocess.run(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert "without CAP_NET_ADMIN, CAP_SYS_ADMIN. Run Python as root" in run.stderr


def test_a_forked_child_does_not_close_its_parents_network() -> None:
    script = (
        "import os, netlab.lab, networkx\n"
        "with netlab.lab.simulated(networkx.path_graph(['client', 'r1', 'web'])) as net:\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        net.close()\n"
        "        os._exit(0)\n"
        "    os.waitpid(child, 0)\n"
        "    print(net.client.run(['ping', '-c', '1', net.address('web')]).returncode)\n"
    )

    assert subprocess.check_output([sys.executable, "-c", script], text=True, timeout=60) == "0\n"


OWNER = """
import sys, netlab.lab, networkx
net = netlab.lab.simulated(networkx.path_graph(["client", "r1", "web"]))
print(net.name, net._driver.pid, net._claim.warden.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.alone  # every warden cleans up after all that died
@pytest.mark.parametrize("with_warden", [False, True])
def test_nothing_is_left_of_an_owner_that_was_killed(*, with_warden: bool) -> None:
    """The warden removes it; killed as well, the carrier still ends, and clean() removes the namespace."""
    with subprocess.Popen(
        [sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        name, carrier, warden = owner.stdout.readline().split()
        descriptor = os.pidfd_open(int(carrier))
        try:
            if with_warden:
                os.kill(int(warden), signal.SIGKILL)
            owner.kill()
            ending = select.poll()
            ending.register(descriptor, select.POLLIN)
            assert ending.poll(30_000), "the carrier goes on"
        finally:
            os.close(descriptor)
    if with_warden:
        assert f"namespace {name}-client" in lab.clean()
    lock = Path(f"/run/netlab/{name}.lock")

    assert becomes_true(lambda: not lock.exists() and f"{name}-client" not in netns.names())


def becomes_true(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 30
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
