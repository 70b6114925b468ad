"""What listens, how full its queue is and what it dropped, against ss(8) and what clients did."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from loopback import LOOPBACK
from overheard import until

import netlab
from netlab.errors import BadInput
from netlab.schemas import LISTENERS

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


@pytest.fixture
def held() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def server(held: ExitStack, family: int = 4, backlog: int = 128) -> tuple[str, int]:
    kind = FAMILIES[family]
    listener = held.enter_context(socket.create_server((LOOPBACK[family], 0), family=kind, backlog=backlog))
    address: tuple[str, int] = listener.getsockname()[:2]
    return address


def receiver(held: ExitStack, family: int = 4) -> socket.socket:
    made = held.enter_context(socket.socket(FAMILIES[family], socket.SOCK_DGRAM))
    made.bind((LOOPBACK[family], 0))
    return made


def of(port: int, **options: Any) -> dict[str, Any]:
    (row,) = netlab.listeners(port=port, **options).to_dict("records")
    return row


def of_ss(port: int, *options: str) -> dict[str, int]:
    """Return what ss says of the queues, and its count of drops."""
    command = ["ss", "-Hlnm", *options, f"sport = :{port}"]
    words = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    _, received, sent = words.split()[:3]
    memory = re.search(r"rb(\d+),.*d(\d+)\)", words)
    assert memory
    return {"Recv-Q": int(received), "Send-Q": int(sent), "rb": int(memory[1]), "d": int(memory[2])}


@pytest.mark.parametrize("family", LOOPBACK)
def test_what_waits_to_be_accepted_and_what_found_no_room_is_counted(held: ExitStack, family: int) -> None:
    address = server(held, family, backlog=1)
    for _ in range(2):
        held.enter_context(socket.create_connection(address))
    late = held.enter_context(socket.socket(FAMILIES[family]))
    late.settimeout(0.3)
    with pytest.raises(TimeoutError):
        late.connect(address)

    row, told = of(address[1]), of_ss(address[1], "-t")
    assert (row["accept_queue"], row["accept_limit"]) == (2, 1) == (told["Recv-Q"], told["Send-Q"])
    assert 1 <= row["drops"] <= told["d"]
    assert (row["local_address"], row["family"], row["protocol"]) == (LOOPBACK[family], family, "tcp")
    assert (row["pid"], row["process"]) == (os.getpid(), Path("/proc/self/comm").read_text().strip())


@pytest.mark.parametrize("family", LOOPBACK)
def test_datagrams_that_found_no_room_are_counted(held: ExitStack, family: int) -> None:
    taker, sender = receiver(held, family), receiver(held, family)
    taker.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    for _ in range(50):
        sender.sendto(bytes(500), taker.getsockname())
    taker.setblocking(False)
    port = taker.getsockname()[1]
    full, told = of(port), of_ss(port, "-u")
    taken = 0
    while taken + full["drops"] < 50:
        taken += len(taker.recv(500)) // 500

    assert full["receive_queue_bytes"] == told["Recv-Q"] > 0
    assert full["receive_limit_bytes"] == told["rb"]
    assert full["drops"] == told["d"] == 50 - taken
    with pytest.raises(BlockingIOError):
        taker.recv(500)
    until(lambda: of(port)["receive_queue_bytes"] == 0)
    assert of(port)["drops"] == full["drops"]


def test_who_has_a_peer_is_no_listener(held: ExitStack) -> None:
    address = server(held)
    client = held.enter_context(socket.create_connection(address))
    asking = receiver(held)
    asking.connect(("127.0.0.1", 53))

    ports = netlab.listeners()["local_port"].tolist()
    assert address[1] in ports
    assert client.getsockname()[1] not in ports
    assert asking.getsockname()[1] not in ports


def test_a_filter_keeps_what_it_names(held: ExitStack) -> None:
    tcp, udp = server(held)[1], receiver(held).getsockname()[1]
    name = Path("/proc/self/comm").read_text().strip()

    def kept(**options: Any) -> set[int]:
        return {tcp, udp} & set(netlab.listeners(**options)["local_port"])

    assert kept(protocol="tcp") == {tcp}
    assert kept(protocol="udp") == {udp}
    assert kept(port=tcp) == {tcp}
    assert kept(pid=os.getpid()) == kept(process=name) == {tcp, udp}
    assert kept(pid=1) == kept(process="no such process") == set()


def test_rows_are_in_order_of_their_ports_and_of_the_kinds_of_the_schema(held: ExitStack) -> None:
    for family in FAMILIES:
        server(held, family)
        receiver(held, family)
    full, none = netlab.listeners(), netlab.listeners(port=1, protocol="udp", process="nobody")

    assert full["local_port"].is_monotonic_increasing
    assert none.empty
    for frame in (full, none):
        assert frame.attrs["schema"] == "listeners"
        dtypes = {column.name: column.kind.value for column in LISTENERS.columns}
        assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == dtypes


@pytest.mark.privileged
def test_another_namespaces_listeners_are_there_where_it_is_named(held: ExitStack) -> None:
    name = f"netlab-tl{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    held.callback(subprocess.run, ["ip", "netns", "del", name], check=True)
    command = ["ip", "netns", "exec", name, "python3", "-c", "import socket, time\n"]
    command[-1] += "server = socket.create_server(('', 4321))\ntime.sleep(60)"
    process = held.enter_context(subprocess.Popen(command))
    held.callback(process.kill)
    until(lambda: not netlab.listeners(port=4321, netns=name).empty)

    inode = Path("/run/netns", name).stat().st_ino
    assert (of(4321, netns=name)["netns"], of(4321, netns="all", pid=process.pid)["netns"]) == (inode, inode)
    assert netlab.listeners(port=4321).empty


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"protocol": "icmp"}, "protocol"),
        ({"port": 0}, "port"),
        ({"pid": 0}, "pid"),
        ({"process": ""}, "name"),
    ],
)
def test_what_cannot_be_right_is_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(BadInput, match=problem):
        netlab.listeners(**options)
