"""A connection that says much at once is read at once, and not when the reader would look again."""

from __future__ import annotations

import socket
import ssl
import threading
from concurrent import futures
from pathlib import Path

import pytest
from certificates import certify, trusting
from loopback import LOOPBACK

import netlab
from netlab.tracer import live
from netlab.tracer.payload import PayloadSource

pytestmark = pytest.mark.privileged

LITTLE, MUCH = bytes(1_000), bytes(200_000)


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """How often was read what connections say, by a reader that looks once in an hour if nobody calls it."""
    done = threading.Semaphore(0)
    drain = PayloadSource.drain

    def told(source: PayloadSource) -> None:
        drain(source)
        done.release()

    monkeypatch.setattr(live, "_DRAIN_EVERY_S", 3600)
    monkeypatch.setattr(PayloadSource, "drain", told)
    return done


def send(client: socket.socket, server: socket.socket, body: bytes) -> None:
    """Ask for something with a body that the server reads to its end."""
    head = b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: %d\r\n\r\n" % len(body)
    sending = threading.Thread(target=client.sendall, args=(head + body,))
    sending.start()
    left = len(head) + len(body)
    while left:
        left -= len(server.recv(left))
    sending.join()


@pytest.mark.parametrize("family", LOOPBACK)
def test_much_wakes_the_reader_and_little_does_not(readings: threading.Semaphore, family: int) -> None:
    address = LOOPBACK[family]
    kind = socket.AF_INET6 if family == 6 else socket.AF_INET
    with socket.create_server((address, 0), family=kind) as listener:
        port = listener.getsockname()[1]
        with (
            netlab.capture(protocols="http", port=port, nat=False),
            socket.create_connection((address, port), timeout=30) as client,
            listener.accept()[0] as server,
        ):
            while readings.acquire(blocking=False):
                pass
            send(client, server, LITTLE)
            assert not readings.acquire(timeout=0.2)
            send(client, server, MUCH)
            assert readings.acquire(timeout=30)


def test_much_in_small_pieces_inside_tls_wakes_the_reader(
    readings: threading.Semaphore, tmp_path: Path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certify(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with (
            netlab.capture(protocols="http", port=port, nat=False, clear_text=True) as capture,
            socket.create_connection(("127.0.0.1", port), timeout=30) as plain,
            listener.accept()[0] as accepted,
            futures.ThreadPoolExecutor(1) as serving,
        ):
            shaken = serving.submit(context.wrap_socket, accepted, server_side=True)
            with trusting().wrap_socket(plain) as client, shaken.result(30) as server:
                capture.requests()  # its packets are known to be TLS now, and wake nobody any more
                while readings.acquire(blocking=False):
                    pass
                for _ in range(20):
                    client.sendall(LITTLE * 10)
                    server.recv(len(LITTLE) * 10)
                assert readings.acquire(timeout=30)
