"""What waits in a connection's queues, against what its two ends have written and read."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pandas as pd
import pytest
from loopback import LOOPBACK
from overheard import until

import netlab

pytestmark = pytest.mark.privileged

NAMES = "client", "server"
QUEUES = ["receive_queue_bytes", "send_queue_bytes"]


class Ends:
    """A client and the server that does not read unless it is told to."""

    def __init__(self, family: int) -> None:
        kind = socket.AF_INET if family == 4 else socket.AF_INET6
        with socket.create_server((LOOPBACK[family], 0), family=kind) as listener:
            self.client = socket.create_connection(listener.getsockname()[:2])
            self.server, _ = listener.accept()
        self.port = self.server.getsockname()[1]

    def rows(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of the two."""
        at = "remote_port", "local_port"
        parts = [rows[rows[name] == self.port].assign(end=end) for name, end in zip(at, NAMES, strict=True)]
        return pd.concat(parts).set_index("end")

    def queues(self, rows: pd.DataFrame) -> dict[str, list[int]]:
        """Return what waits to be read and to be acknowledged at each end."""
        return {name: queues.tolist() for name, queues in self.rows(rows)[QUEUES].iterrows()}


@pytest.fixture(params=LOOPBACK)
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    made = Ends(request.param)
    with made.client, made.server:
        yield made


@pytest.fixture
def capture() -> Iterator[netlab.Capture]:
    with netlab.capture() as running:
        yield running


def test_what_the_process_has_not_read_is_in_its_receive_queue(capture: netlab.Capture, ends: Ends) -> None:
    ends.client.sendall(bytes(5000))
    until(lambda: ends.queues(capture.connections())["client"] == [0, 0])

    for rows in (capture.connections(), netlab.connections()):
        assert ends.queues(rows) == {"client": [0, 0], "server": [5000, 0]}
    ends.server.recv(3000, socket.MSG_WAITALL)
    assert ends.queues(netlab.connections())["server"] == [2000, 0]


def test_the_end_of_a_stream_is_no_byte_of_it(capture: netlab.Capture, ends: Ends) -> None:
    ends.client.sendall(bytes(5000))
    ends.client.shutdown(socket.SHUT_WR)
    until(lambda: ends.rows(capture.connections()).loc["server", "state"] == "close-wait")

    assert ends.queues(capture.connections()) == {"client": [0, 0], "server": [5000, 0]}
    ends.server.recv(5000, socket.MSG_WAITALL)
    assert ends.queues(capture.connections()) == {"client": [0, 0], "server": [0, 0]}


def test_what_a_peer_that_does_not_read_has_no_room_for_stays_in_the_send_queue(
    capture: netlab.Capture, ends: Ends
) -> None:
    ends.client.setblocking(False)
    written = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            written += ends.client.send(bytes(100_000))

    for look in (capture.connections, netlab.connections):
        until(lambda look=look: sum(map(sum, ends.queues(look()).values())) == written)
        queues = ends.queues(look())
        assert queues["client"][1] > 0
        assert queues["server"][0] > 0


def test_what_has_ended_and_what_is_only_remembered_have_no_queue(
    capture: netlab.Capture, ends: Ends
) -> None:
    ends.client.close()
    ends.server.close()
    until(lambda: set(ends.rows(capture.connections())["state"]) == {"closed"})

    remembered = netlab.connections(port=ends.port, state="time-wait")
    assert ends.rows(capture.connections())[QUEUES].isna().all(axis=None)
    assert len(remembered) == 1
    assert remembered[QUEUES].isna().all(axis=None)


def test_the_memory_of_unread_datagrams_is_the_sockets_and_no_flows(capture: netlab.Capture) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as server, socket.socket(type=socket.SOCK_DGRAM) as client:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        client.connect(server.getsockname())
        client.send(bytes(900))
        flows = capture.connections()
        listed = netlab.connections(protocol="udp", port=port, listening=True)

    mine = flows[(flows["remote_port"] == port) | (flows["local_port"] == port)]
    assert len(mine) == 2
    assert mine[QUEUES].isna().all(axis=None)
    assert listed.loc[listed["local_port"] == port, "receive_queue_bytes"].item() >= 900
