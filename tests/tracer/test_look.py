"""What a capture says of one moment."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack

import pytest
from between import run

import netlab
from netlab.kernel import netns
from netlab.tracer.look import Clock


def test_a_system_clock_that_was_set_since_the_start_is_said() -> None:
    (gap,) = Clock(0, 1_000, shifted_ns=-3_500_000_000).missing()
    assert gap.kind == "approximate"
    assert "moved by -3.5 s" in gap.detail


def test_a_system_clock_that_is_being_disciplined_is_not_worth_a_word() -> None:
    assert not Clock(0, 1_000, shifted_ns=20_000_000).missing()


@pytest.mark.privileged
def test_connections_whose_namespace_only_their_sockets_keep_have_no_state_and_that_is_said() -> None:
    name = f"netlab-kept{os.getpid()}"
    run("ip", "netns", "add", name)
    with ExitStack() as opened:
        deleted = opened.enter_context(ExitStack())
        deleted.callback(run, "ip", "netns", "delete", name)
        run("ip", "-n", name, "link", "set", "lo", "up")
        capture = opened.enter_context(netlab.capture(protocol="tcp", netns=name, nat=False))
        with netns.entered(name):
            server = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
            opened.enter_context(socket.create_connection(server.getsockname()))
        opened.enter_context(server.accept()[0])
        deleted.close()
        frame = capture.connections()

    assert len(frame) == 2
    assert frame[["state", "bytes_sent", "rtt_ms"]].isna().all(axis=None)
    gaps = netlab.coverage(frame).set_index("what")
    assert gaps.loc["state, counters", "count"] == 2
