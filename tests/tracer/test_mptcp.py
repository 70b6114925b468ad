"""MPTCP (RFC 8684): paths that the kernel's worker adds to a connection are the process's that has it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from between import run
from programs import wait_until

import netlab
from netlab.kernel import netns

pytestmark = pytest.mark.privileged

IPPROTO_MPTCP = 262
CLIENT, SERVER = (f"netlab-{role}{os.getpid()}" for role in ("mc", "ms"))


@pytest.fixture
def two_ways() -> Iterator[None]:
    """Two namespaces with two links, of which the client's MPTCP takes the second as another path."""
    with ExitStack() as made:
        for space in (CLIENT, SERVER):
            run("ip", "netns", "add", space)
            made.callback(run, "ip", "netns", "delete", space)
            run("ip", "-n", space, "mptcp", "limits", "set", "subflows", "1")
        for link in ("1", "2"):
            pair = f"link add l{link} netns {CLIENT} type veth peer name l{link} netns {SERVER}"
            run("ip", *pair.split())
            for place, space in enumerate((CLIENT, SERVER), 1):
                run("ip", "-n", space, "address", "add", f"10.7.{link}.{place}/24", "dev", f"l{link}")
                run("ip", "-n", space, "link", "set", f"l{link}", "up")
        run("ip", "-n", CLIENT, "mptcp", "endpoint", "add", "10.7.2.1", "dev", "l2", "subflow")
        yield


@pytest.mark.usefixtures("two_ways")
def test_every_path_of_a_connection_is_of_the_process_that_has_it_and_not_of_a_worker() -> None:
    with netlab.capture(protocol="tcp", netns=[CLIENT, SERVER], pid=os.getpid(), nat=False) as capture:
        with netns.entered(SERVER):
            server = socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP)
        with netns.entered(CLIENT):
            client = socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP)
        with server, client:
            server.bind(("0.0.0.0", 8080))
            server.listen()
            client.connect(("10.7.1.2", 8080))
            with server.accept()[0] as accepted:
                client.sendall(b"hello")
                assert accepted.recv(5, socket.MSG_WAITALL) == b"hello"
                accepted.sendall(b"yes")  # a path is added when the first one has proved itself
                assert client.recv(3, socket.MSG_WAITALL) == b"yes"
                wait_until(lambda: (capture.connections()["state"] == "established").sum() == 4)
                paths = capture.connections()
        wait_until(lambda: (capture.connections()["state"] == "closed").sum() == 4)
        ended = capture.connections()

    for frame in (paths, ended):
        assert sorted(frame["direction"]) == ["incoming", "incoming", "outgoing", "outgoing"]
        assert frame["pid"].tolist() == [os.getpid()] * 4
