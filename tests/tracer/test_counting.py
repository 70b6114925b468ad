"""What counts as sent and received, by whichever system call: what the peer got, not what was asked for."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from loopback import LOOPBACK, cookie
from programs import wait_until

import netlab
from netlab.tracer.session import Capture

pytestmark = pytest.mark.privileged
TCP_CLOSE = 7  # include/net/tcp_states.h


@dataclass
class Pair:
    client: socket.socket
    server: socket.socket

    @property
    def port(self) -> int:
        return int(self.server.getsockname()[1])

    def counted(self, capture: Capture) -> tuple[int, int]:
        """Return the bytes that the capture has the client send and the server receive."""
        rows = capture.connections().set_index("cookie")
        sent = rows.loc[cookie(self.client), "bytes_sent"]
        return int(sent), int(rows.loc[cookie(self.server), "bytes_received"])


@pytest.fixture(params=[4, 6])
def pair(request: pytest.FixtureRequest, closed_port: int) -> Iterator[Pair]:
    kind = socket.AF_INET if request.param == 4 else socket.AF_INET6
    with (
        socket.create_server((LOOPBACK[request.param], closed_port), family=kind) as listener,
        socket.create_connection(listener.getsockname()[:2], timeout=10) as client,
        listener.accept()[0] as server,
    ):
        server.settimeout(10)
        yield Pair(client, server)


def received(end: socket.socket, size: int) -> int:
    """Read until *size* bytes have come."""
    got = 0
    while got < size:
        got += len(end.recv(size - got))
    return got


def test_a_file_sent_by_the_kernel_counts_as_its_bytes(pair: Pair) -> None:
    with netlab.capture(port=pair.port) as capture, tempfile.TemporaryFile() as file:
        file.write(bytes(50_000))
        file.flush()
        sent = os.sendfile(pair.client.fileno(), file.fileno(), 0, 80_000)
        assert received(pair.server, sent) == 50_000
        assert pair.counted(capture) == (50_000, 50_000)


def test_a_sendfile_that_fails_counts_nothing(pair: Pair) -> None:
    with netlab.capture(port=pair.port) as capture, tempfile.TemporaryFile() as file:
        with pytest.raises(OSError, match="Invalid"):
            os.sendfile(pair.client.fileno(), file.fileno(), -1, 100)
        assert pair.counted(capture) == (0, 0)


def test_a_write_that_the_socket_took_in_part_counts_what_it_took(pair: Pair) -> None:
    with netlab.capture(port=pair.port) as capture:
        pair.client.setblocking(False)
        asked = taken = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                asked += 1_000_000
                taken += pair.client.send(bytes(1_000_000))
        assert received(pair.server, taken) == taken < asked
        assert pair.counted(capture) == (taken, taken)


def test_a_read_that_waits_for_all_counts_each_byte_once(pair: Pair) -> None:
    got: list[int] = []
    pair.server.setblocking(True)
    reader = threading.Thread(target=lambda: got.append(len(pair.server.recv(5000, socket.MSG_WAITALL))))
    with netlab.capture(port=pair.port) as capture:
        reader.start()
        for _ in range(5):
            pair.client.sendall(bytes(1000))
        reader.join(10)
        assert got == [5000]
        assert pair.counted(capture) == (5000, 5000)


def test_bytes_that_were_looked_at_and_read_later_count_once(pair: Pair) -> None:
    with netlab.capture(port=pair.port) as capture:
        pair.client.sendall(bytes(300))
        assert pair.server.recv(300, socket.MSG_PEEK)
        assert received(pair.server, 300) == 300
        assert pair.counted(capture) == (300, 300)


def test_round_trip_times_of_a_closed_connection_are_those_its_socket_had(pair: Pair) -> None:
    """Their offsets are those of struct tcp_info, include/uapi/linux/tcp.h, in microseconds."""
    with netlab.capture(port=pair.port) as capture:
        for _ in range(20):
            pair.client.sendall(b"ping")
            pair.server.sendall(pair.server.recv(4, socket.MSG_WAITALL))
            pair.client.recv(4, socket.MSG_WAITALL)
        for end in (pair.client, pair.server):
            end.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + 30
        while (info := pair.client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 216))[0] != TCP_CLOSE:
            assert time.monotonic() < deadline
        row = capture.connections().set_index("cookie").loc[cookie(pair.client)]

    assert row["state"] == "closed"
    for column, offset in (("rtt_ms", 68), ("rtt_var_ms", 72), ("min_rtt_ms", 148)):
        assert row[column] == struct.unpack_from("=I", info, offset)[0] / 1000


def test_a_capture_that_runs_shows_how_many_connections_it_has_seen(pair: Pair) -> None:
    with netlab.capture(port=pair.port) as capture:
        before = repr(capture)
        with socket.create_connection(pair.server.getsockname()[:2], timeout=10):
            assert before == "<netlab capture: running, 0 begun and open, 0 ended>"
            assert repr(capture) == "<netlab capture: running, 2 begun and open, 0 ended>"
        pair.client.close()  # which was open before
        pair.server.close()
        # The listener's end of the second is in its queue: nobody accepts or closes it.
        wait_until(lambda: repr(capture) == "<netlab capture: running, 1 begun and open, 3 ended>")
