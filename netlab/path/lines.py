"""A flow on an ordinary datagram socket of its own: what it sends, and what comes back to it.

The packets are those of `netlab.path.kinds`: the kernel writes the headers, and computes the checksum that
the payload was made for.
"""

from __future__ import annotations

import errno
import socket
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator

from netlab.errors import DecodeError
from netlab.path.crowding import Crowding
from netlab.path.errorqueue import ErrorQueue
from netlab.path.listening import Heard
from netlab.path.probes import TRAILER, Flow
from netlab.path.quotes import Quoted
from netlab.path.state import UDP_REPLY, Answer
from netlab.wire import icmp, ip, udp

_TTL = {4: (socket.IPPROTO_IP, socket.IP_TTL), 6: (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS)}
_ATTEMPTS = 8  # to send, while errors about earlier probes keep arriving


def set_ttl(sock: socket.socket, ttl: int) -> None:
    """Send what *sock* sends from now on with this TTL (hop limit)."""
    sock.setsockopt(*_TTL[4 if sock.family == socket.AF_INET else 6], ttl)


class Line(ABC):
    """A flow and its connected socket; `unreadable` counts packets that are not what they claim to be."""

    def __init__(self, flow: Flow, sock: socket.socket) -> None:
        self.unreadable = 0
        self.strangers: Counter[str] = Counter()  # by address: replies of who was not asked
        self.flow = flow
        self.queue = ErrorQueue(sock)
        self.crowding = Crowding()
        self._sock = sock
        self._sent: set[int] = set()
        self._early: list[Answer] = []

    @abstractmethod
    def payload(self, transport: bytes) -> bytes:
        """Return what the kernel is given of a probe's transport packet."""

    @abstractmethod
    def quoted(self, data: bytes) -> int | None:
        """Return the mark that a quote of the error queue has, None where it is too short.

        Raises
        ------
        DecodeError
            If it is not this flow's.
        """

    @abstractmethod
    def reply(self, data: bytes) -> tuple[str, int | None]:
        """Return what the target says and to which mark, None where it does not say.

        Raises
        ------
        DecodeError
            If it does not answer this flow.
        """

    def send(self, ttl: int, mark: int) -> int:
        """Send a probe; return the wall-clock time just before it left.

        Raises
        ------
        OSError
            If the kernel does not let it out.
        """
        _, transport = ip.decode(self.flow.packet(ttl, mark))
        set_ttl(self._sock, ttl)
        self._sent.add(mark)
        payload = self.payload(transport)
        return self.crowding.sent(lambda: self._send(payload))

    def _send(self, payload: bytes) -> int:
        for attempt in range(_ATTEMPTS):
            # A socket that an ICMP error waits for refuses to send, once or until the error is read.
            self._early += self._errors()
            now = time.time_ns()
            try:
                self._sock.send(payload)
            except OSError as error:
                if attempt == _ATTEMPTS - 1 or error.errno == errno.ENOBUFS:
                    raise
            else:
                break
        return now

    def answers(self) -> list[Answer]:
        """Return the answers that have arrived; an ICMP error that quotes too little has no mark."""
        early, self._early = self._early, []
        return [*early, *self._errors(), *self._replies()]

    def close(self) -> None:
        """Close the socket; doing it again does nothing."""
        self._sock.close()

    @property
    def dropped(self) -> int:
        """How many packets the kernel dropped because they were not read in time."""
        return self.queue.dropped

    @property
    def held(self) -> int:
        """How many probes had to wait for this host's own queue."""
        return self.crowding.held

    @property
    def has_answers(self) -> bool:
        """Whether answers have been taken off the socket already."""
        return bool(self._early)

    def _errors(self) -> Iterator[Answer]:
        for reported in self.queue.errors():
            try:
                mark = self._known(self.quoted(reported.quoted))
            except DecodeError:
                self.unreadable += 1
            else:
                quoted = Quoted(labels=reported.labels)
                yield self._answer(mark, reported.error.value, reported.address, reported.heard, quoted)

    def _replies(self) -> Iterator[Answer]:
        for heard in self.queue.heard():
            try:
                reply, mark = self.reply(heard.data)
            except DecodeError:
                self.unreadable += 1
                continue
            if self.flow.is_target(heard.address):
                yield self._answer(mark if mark in self._sent else None, reply, heard.address, heard)
            else:
                self.strangers[heard.address] += 1

    def _known(self, mark: int | None) -> int | None:
        if mark is not None and mark not in self._sent:
            raise DecodeError("a quoted probe that was not sent")
        return mark

    def _answer(
        self, mark: int | None, reply: str, address: str, heard: Heard, quoted: Quoted | None = None
    ) -> Answer:
        return Answer(
            flow=self.flow.number,
            mark=mark,
            address=address,
            reply=reply,
            ttl=heard.ttl,
            stamp_ns=heard.stamp_ns,
            received_ns=heard.received_ns,
            quoted=quoted,
            turned_back=self.flow.is_turned_back(reply, address),
        )


class UdpLine(Line):
    """Datagrams; the error queue has what is behind the UDP header."""

    def payload(self, transport: bytes) -> bytes:
        """Return the datagram's data."""
        return transport[udp.HEADER :]

    def quoted(self, data: bytes) -> int | None:
        """Return the mark at the start of the data."""
        if not _fits(data[udp.MARKED :][:TRAILER], self.flow.trailer):
            raise DecodeError("a quoted datagram of somebody else")
        return next(iter(udp.mark(data)), 0) or None  # marks start at 1

    def reply(self, data: bytes) -> tuple[str, int | None]:
        """Return the mark, if the data begins as a probe's did: echo servers send all of it back."""
        return UDP_REPLY, next(iter(udp.mark(data)), None)


class EchoLine(Line):
    """Echo requests; the kernel looks after the identifier, which is the socket's."""

    def payload(self, transport: bytes) -> bytes:
        """Return the whole echo request."""
        return transport

    def quoted(self, data: bytes) -> int | None:
        """Return the sequence number, which is in the first eight bytes."""
        if not _fits(self.flow.hidden_in(data), self.flow.hidden):
            raise DecodeError("a quoted echo request of somebody else")
        return icmp.decode_echo(data)[1]

    def reply(self, data: bytes) -> tuple[str, int | None]:
        """Return the sequence number of an echo reply with our data."""
        meaning = self.flow.answer(data) if self.flow.back_in(data) == self.flow.back else None
        if meaning is None:
            raise DecodeError("an echo reply with other data")
        return meaning[0], meaning[1][0]


def _fits(quoted: bytes, whole: bytes) -> bool:
    """Tell whether *quoted* is the start of *whole*, or zeros, which RFC 4884 fills a short quote with."""
    return quoted == whole[: len(quoted)] or not any(quoted)
