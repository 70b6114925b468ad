"""Every option of a capture through the agent: over the shared programs where these suffice."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

import pytest

import netlab
from netlab.agent.client import Host
from netlab.tracer.branch import suffices
from tests.support.programs import wait_until

pytestmark = pytest.mark.privileged

SHARED: list[dict[str, Any]] = [
    {"port": 443, "netns": None, "direction": "incoming"},
    {"exclude_remote": {"10.0.0.0/8": ["80", "udp 53"]}, "exclude_local": {"*": 22}},
    {"nat": False},
    {"max_nat": 10, "max_closed": 10, "duration_s": 60, "client_expiry_s": 1},
    {"max_drops": 10, "max_requests": 10, "dns_ports": 54, "mask_names": "corp.example"},
    {"poll_every_s": 1},
]
OF_ITS_OWN: list[dict[str, Any]] = [
    {"backfill": False},
    {"events": True},
    {"drops": True},
    {"cost": True},
    {"protocols": "http"},
    {"max_open": 1000},
    {"max_processes": 1000},
    {"mode": "poll"},
]


@pytest.mark.parametrize(
    ("options", "shared"), [*((one, True) for one in SHARED), *((one, False) for one in OF_ITS_OWN)]
)
def test_a_branch_serves_what_the_shared_programs_suffice_for(options: dict[str, Any], shared: bool) -> None:
    assert suffices(netlab.capture().options, netlab.capture(**options).options) is shared


def fail(port: int) -> None:
    with socket.socket() as client:
        client.connect_ex(("127.0.0.1", port))


@pytest.fixture
def ports() -> list[int]:
    """Return two ports of loopback where nobody listens."""
    with socket.socket() as one, socket.socket() as other:
        for reserved in (one, other):
            reserved.bind(("127.0.0.1", 0))
        return [reserved.getsockname()[1] for reserved in (one, other)]


def seen(cap: Any) -> list[int]:
    return sorted(set(cap.failures()["remote_port"]))


def test_what_is_excluded_is_left_out(host: Host, ports: list[int]) -> None:
    left_out = {ipaddress.ip_network("127.0.0.0/8"): [f"tcp {ports[0]}"]}
    with host.capture(port=ports, exclude_remote=left_out) as cap:
        for port in ports:
            fail(port)
        wait_until(lambda: len(cap.failures()))

    assert seen(cap) == ports[1:]


def test_without_translations_a_branch_says_that_nobody_was_asked(host: Host, ports: list[int]) -> None:
    with host.capture(port=ports, nat=False) as cap:
        fail(ports[0])
        wait_until(lambda: len(cap.failures()))

    gaps = netlab.coverage(cap.connections())
    assert gaps["detail"].str.contains(r"netlab.capture\(nat=True\) looks translations up").any()


def test_a_branch_keeps_no_more_than_it_was_asked_to(host: Host, ports: list[int]) -> None:
    with host.capture(port=ports, max_closed=1) as cap:
        for port in ports:
            fail(port)
        wait_until(lambda: seen(cap) == ports[1:])

    gaps = netlab.coverage(cap.connections())
    assert gaps.loc[gaps["detail"].str.contains("only 1 closed"), "count"].tolist() == [1]


def test_a_capture_by_polling_runs_at_the_agent_and_says_what_it_misses(host: Host) -> None:
    with (
        host.capture(mode="poll", poll_every_s=0.1, protocol="tcp") as cap,
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()),
    ):
        port = server.getsockname()[1]
        wait_until(lambda: port in set(cap.connections()["remote_port"]))

    assert netlab.coverage(cap.connections())["detail"].str.contains("late by up to 0.1 s").any()


def test_a_capture_with_room_of_its_own_says_when_that_is_full(host: Host, ports: list[int]) -> None:
    with host.capture(max_processes=2, protocol="tcp", port=ports) as cap:
        fail(ports[0])
        wait_until(lambda: len(cap.failures()))

    assert seen(cap) == ports[:1]


def test_no_namespace_given_means_that_of_who_asks(host: Host, ports: list[int]) -> None:
    with host.capture(netns=None, port=ports) as cap:
        fail(ports[0])
        wait_until(lambda: len(cap.failures()))

    assert seen(cap) == ports[:1]


def test_an_option_that_cannot_be_right_is_refused_before_anything_is_attached(host: Host) -> None:
    with pytest.raises(netlab.BadInput, match="everybody's"):
        host.capture(max_open=1 << 24).start()
    with pytest.raises(netlab.BadInput, match=r"needs eBPF, which mode=\"poll\" does without"):
        host.capture(mode="poll", events=True).start()
    with pytest.raises(netlab.BadInput, match=r"no option 'ports'"):
        host.capture(ports=80)  # type: ignore[call-arg]
