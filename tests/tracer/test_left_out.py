"""Ends that the kernel left programs out of: told of when the socket is closed, or its memory another's."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pandas as pd
import pytest
from loopback import AF, LINGER_0, LOOPBACK, cookie

import netlab
from netlab.kernel.bpf import Program
from netlab.tracer.session import Capture

pytestmark = pytest.mark.privileged

_AT_CLOSE = "closed_at, error, counters"
_CHANGES = {"netlab_state_changed": "inet_sock_set_state", "netlab_state_nested": "inet_sock_set_state"}
_TRIES = 50  # until the next socket that is made has the memory of the last one


@contextmanager
def left_out(capture: Capture) -> Iterator[None]:
    """Have no state change seen as long as the block lasts, and all else as before."""
    assert capture._watch is not None
    program: Program = capture._watch.program  # type: ignore[union-attr]
    for function in _CHANGES:  # they may have been attached again by now: links are in the order of functions
        os.close(program._links.pop(list(program._functions).index(function)))
        os.close(program._functions.pop(function))
        del program._loaded._functions[function]
    yield
    for function, event in _CHANGES.items():
        program.attach_typed_tracepoint(function, event)


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
    connection.close()


@pytest.mark.parametrize("family", LOOPBACK)
def test_an_end_that_was_left_out_is_told_of_when_the_socket_is_closed(family: int) -> None:
    with socket.create_server((LOOPBACK[family], 0), family=AF[family]) as listener:
        port = listener.getsockname()[1]
        with (
            netlab.capture(port=port) as capture,
            socket.create_connection((LOOPBACK[family], port)) as client,
        ):
            number = cookie(client)
            with left_out(capture):
                _reset(listener.accept()[0])
                with pytest.raises(ConnectionResetError):
                    client.recv(1)
            client.close()
        rows = capture.connections()

    row = rows[rows["cookie"] == number]
    assert row["state"].tolist() == ["closed"]
    assert row[["closed_at", "error", "bytes_sent"]].isna().all(axis=None)
    gaps = netlab.coverage(rows)
    assert gaps.loc[gaps["what"] == _AT_CLOSE, "count"].item() >= 1


@pytest.mark.parametrize("family", LOOPBACK)
def test_a_listener_s_child_is_not_taken_for_whoever_had_its_memory_before(family: int) -> None:
    """An attempt that never got through leaves its socket's memory to one that was accepted."""
    with ExitStack() as held:
        full, listener = (held.enter_context(_listening(family)) for _ in range(2))
        held.enter_context(socket.create_connection(full.getsockname()[:2]))  # there is room for no other
        ports = [full.getsockname()[1], listener.getsockname()[1]]
        held.callback(os.sched_setaffinity, 0, usable := os.sched_getaffinity(0))
        os.sched_setaffinity(0, {min(usable)})  # each CPU gives out the memory that it got back
        capture = held.enter_context(netlab.capture(port=ports))
        for _ in range(_TRIES):
            given_up, accepted = held.enter_context(_one_after_the_other(capture, family, full, listener))
            if given_up["socket"] == accepted["socket"]:
                break
        rows = capture.connections().set_index("cookie")

    assert given_up["socket"] == accepted["socket"]
    before, after = rows.loc[given_up["cookie"]], rows.loc[accepted["cookie"]]
    assert before[["state", "direction", "remote_port"]].tolist() == ["closed", "outgoing", ports[0]]
    assert before[["closed_at", "connect_ms", "error"]].isna().all()
    assert after[["state", "direction", "local_port"]].tolist() == ["established", "incoming", ports[1]]
    assert after["opened_at"] > before["opened_at"]


def _listening(family: int) -> socket.socket:
    return socket.create_server((LOOPBACK[family], 0), family=AF[family], backlog=0)


@contextmanager
def _one_after_the_other(
    capture: Capture, family: int, full: socket.socket, listener: socket.socket
) -> Iterator[tuple[pd.Series, pd.Series]]:
    """Give an attempt up unseen, then have one accepted; yield what the map has of the two."""
    with socket.socket(AF[family]) as client:
        attempt = socket.socket(AF[family])
        attempt.setblocking(False)
        attempt.connect_ex(full.getsockname()[:2])
        given_up = _followed(capture, cookie(attempt))
        with left_out(capture):
            attempt.close()
        client.connect(listener.getsockname()[:2])
        with listener.accept()[0] as accepted:
            yield given_up, _followed(capture, cookie(accepted))


def _followed(capture: Capture, number: int) -> pd.Series:
    attempts = capture.debug_maps()["netlab_open"]
    return attempts[attempts["cookie"] == number].iloc[0]
