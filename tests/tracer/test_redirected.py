"""connect() that another program sends elsewhere, as Cilium does with addresses of Kubernetes services."""

from __future__ import annotations

import socket

import pytest
from groups import redirected
from loopback import LOOPBACK, cookie

import netlab
from netlab.kernel import capabilities

pytestmark = pytest.mark.privileged


def test_an_attempt_that_a_later_program_redirects_shows_while_it_waits_where_it_goes() -> None:
    root = capabilities.cgroup2_mount()
    assert root is not None
    with (
        socket.create_server((LOOPBACK[4], 0), backlog=0) as full,
        socket.create_connection(full.getsockname()),
        socket.create_server((LOOPBACK[4], 0)) as asked,
        netlab.capture(protocol="tcp") as capture,
        redirected(root, port=asked.getsockname()[1], to=full.getsockname()[1]),  # runs last
        socket.socket() as client,
    ):
        there = full.getsockname()[1]
        client.setblocking(False)
        client.connect_ex(asked.getsockname())
        frame = capture.connections()
        row = frame[frame["cookie"] == cookie(client)].iloc[0]

    assert (row["state"], row["remote_port"]) == ("syn-sent", there)
