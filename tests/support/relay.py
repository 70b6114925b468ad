"""A TCP relay between a real client and a real server, which writes down what each of them said."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field

from netlab.protocols.dialog import Dialog, Exchange, Side


@dataclass
class Conversation:
    """What both sides of one connection said, in the order in which it came."""

    said: list[tuple[Side, bytes, int]] = field(default_factory=list)  # side, bytes, time in ns
    over: threading.Event = field(default_factory=threading.Event)

    def of(self, side: Side) -> bytes:
        return b"".join(data for who, data, _ in self.said if who == side)

    def read_by(self, dialog: Dialog) -> list[Exchange]:
        exchanges = [one for side, data, at in self.said for one in dialog.said(side, data, at)]
        return exchanges + dialog.ended(self.said[-1][2] + 1 if self.said else 0)


class Relay:
    """Listens on a port of its own and passes everything on to *target*."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.conversations: list[Conversation] = []
        self._threads: list[threading.Thread] = []

    def serve(self) -> None:
        with suppress(OSError):  # closed by `relay`
            while True:
                client, _ = self._server.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                server = socket.create_connection(self._target)
                server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                conversation = Conversation()
                self.conversations.append(conversation)
                thread = threading.Thread(target=self._both, args=(client, server, conversation))
                thread.start()
                self._threads.append(thread)

    def _both(self, client: socket.socket, server: socket.socket, conversation: Conversation) -> None:
        back = threading.Thread(target=self._pass, args=(server, client, Side.SERVER, conversation))
        back.start()
        self._pass(client, server, Side.CLIENT, conversation)
        back.join()
        client.close()
        server.close()
        conversation.over.set()

    @staticmethod
    def _pass(source: socket.socket, target: socket.socket, side: Side, conversation: Conversation) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                conversation.said.append((side, data, time.monotonic_ns()))
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for thread in self._threads:
            thread.join(30)


@contextmanager
def relay(port: int, host: str = "127.0.0.1") -> Iterator[Relay]:
    """Relay to *port* as long as the block lasts; all clients must have closed when it ends."""
    with closing(Relay((host, port))) as running:
        thread = threading.Thread(target=running.serve)
        thread.start()
        yield running
    thread.join(30)
