"""librdkafka's own Kafka broker (its mock cluster): real TCP on loopback, in this process."""

from __future__ import annotations

import logging
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from confluent_kafka import Producer

QUIET = logging.Logger("librdkafka", logging.CRITICAL)  # noqa: LOG001 - nobody else's


@contextmanager
def kafka() -> Iterator[int]:
    """Run a broker as long as the block lasts; yield its port on 127.0.0.1."""
    cluster = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "ignored"}, logger=QUIET)
    (broker,) = cluster.list_topics(timeout=30).brokers.values()
    yield broker.port
    cluster.flush(30)


@contextmanager
def guarded(broker: int, *, admits: bool) -> Iterator[int]:
    """Run a doorkeeper in front of a *broker*, who asks for SASL/PLAIN as brokers did before Kafka 1.0."""
    with socket.create_server(("127.0.0.1", 0)) as door:

        def open_door() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(
                        target=_guard, args=(door.accept()[0], broker, admits), daemon=True
                    ).start()

        threading.Thread(target=open_door, daemon=True).start()
        yield door.getsockname()[1]
        door.shutdown(socket.SHUT_RDWR)


def _guard(client: socket.socket, broker: int, admits: bool) -> None:
    with client, socket.create_connection(("127.0.0.1", broker)) as behind, suppress(OSError, EOFError):
        while True:
            asked = _message(client)
            number, version, correlation = struct.unpack_from("!hhi", asked)
            if number == 18:  # ApiVersions, of which those that are asked for here
                apis = b"".join(
                    struct.pack("!hhh", *one) for one in ((0, 0, 7), (3, 0, 2), (17, 0, 0), (18, 0, 0))
                )
                _say(client, struct.pack("!ihi", correlation, 35 if version else 0, 4) + apis)
            elif number == 17:  # SaslHandshake; the token behind it is no request
                _say(client, struct.pack("!ihih", correlation, 0, 1, 5) + b"PLAIN")
                _message(client)
                if not admits:
                    return
                _say(client, b"")
            else:
                _say(behind, asked)
                _say(client, _message(behind))


def _say(to: socket.socket, message: bytes) -> None:
    to.sendall(struct.pack("!i", len(message)) + message)


def _message(of: socket.socket) -> bytes:
    return _bytes(of, struct.unpack("!i", _bytes(of, 4))[0])


def _bytes(of: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = of.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data
