"""A capture on two of the fleet's hosts."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import fleets
import pytest
from distributed import Client

from netlab.errors import CaptureError
from netlab.fleet import Fleet
from netlab.fleet.captures import FleetCapture

pytestmark = pytest.mark.privileged

PORT, SENT = 7000, 1000


@contextlib.contextmanager
def answering(rig: fleets.Rig, node: str) -> Iterator[None]:
    """Have *node* read what it is sent on PORT, and close."""
    with rig.entered(node):
        listener = socket.create_server((fleets.address(node), PORT))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    while connection.recv(1 << 16):
                        pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()


def talk(rig: fleets.Rig, near: str, far: str) -> None:
    with rig.entered(near):
        connection = socket.create_connection((fleets.address(far), PORT))
    with connection:
        connection.sendall(bytes(SENT))
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""


@pytest.fixture(scope="module")
def capture(rig: fleets.Rig, client: Client) -> Iterator[FleetCapture]:
    with Fleet(client, hosts=["h1", "h8"], timeout_s=60).capture(
        netns=None, port=PORT, protocol="tcp"
    ) as found:
        found.register("test")
        with answering(rig, "h8"):
            yield found
    found.close()


def test_each_end_of_a_connection_is_a_row_of_its_host(rig: fleets.Rig, capture: FleetCapture) -> None:
    talk(rig, "h1", "h8")

    told = capture.connections().groupby("host").first()

    assert told["direction"].to_dict() == {"h1": "outgoing", "h8": "incoming"}
    assert (told.loc["h1", "bytes_sent"], told.loc["h8", "bytes_received"]) == (SENT, SENT)


def test_a_delta_whose_answer_was_lost_is_told_by_the_next_call(
    rig: fleets.Rig, capture: FleetCapture
) -> None:
    capture.delta("test")
    talk(rig, "h1", "h8")
    received = capture._received.copy()
    capture.delta("test")
    capture._received = received  # as if no answer had come

    again, after = capture.delta("test"), capture.delta("test")

    assert again["delta_bytes_sent"].sum() == again["delta_bytes_received"].sum() == SENT
    assert after.empty


def test_a_capture_that_was_not_started_says_so(client: Client) -> None:
    with pytest.raises(CaptureError, match="has not been started"):
        Fleet(client).capture().connections()
