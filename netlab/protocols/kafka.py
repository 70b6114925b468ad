"""Kafka's conversation (kafka.apache.org/protocol): requests, and the responses of their correlation ids."""

from __future__ import annotations

import struct
from collections import OrderedDict
from dataclasses import dataclass, replace

from netlab.protocols.dialog import Exchange, Outcome, Side
from netlab.protocols.firststores import KAFKA_APIS, KAFKA_LARGEST, KAFKA_VERSIONS
from netlab.protocols.framing import Framer, LostError, Message
from netlab.protocols.kafkaapis import APIS, ERRORS, Api
from netlab.protocols.kafkafields import CutError, Found, read, skip_tags
from netlab.protocols.masking import STANDARD, Masking

_READ = 1 << 16  # bytes that are read of a message
_MOST_PENDING = 10_000
_MOST_TOPICS = 10_000  # whose names are known by id
_LONGEST_TOPIC = 249  # characters of a name, as brokers allow
_SASL_HANDSHAKE = 17
_NO_CLIENT_ID = b"\xff\xff"  # no token has that: they are text, or DER
_API_VERSIONS = 18  # its response header is the old one in all versions (KIP-511)

# By id, which is one for all clusters: learnt on any connection.
_topics: OrderedDict[bytes, str] = OrderedDict()


@dataclass(slots=True)
class Asked:
    """A request that waits, and how its response is read."""

    exchange: Exchange
    api: Api
    number: int
    version: int


class Kafka:
    """Reads one connection to a Kafka broker in clear.

    One exchange for each request; those that name several topics or partitions have all of their topics, no
    partition, and the first error; many topics are cut to the first ones. A Produce that wants no
    acknowledgement is over when it is sent, without a status. Behind a gap it goes on where a segment begins
    with a request, or with the response to one that waits. What follows a SaslHandshake of version 0 is no
    request, but bare tokens: each is told as a SaslAuthenticate without a version, and unanswered where the
    broker hangs up, as it does on who may not come in. Of topics is kept what *masks* leave.
    """

    def __init__(self, *, whole: bool = True, masks: Masking = STANDARD) -> None:
        self.unread_bytes = 0
        self._masks = masks
        self._lost = dict.fromkeys(Side, not whole)
        self._has_tokens = False  # what the client says next may be one
        self._framers = {side: self._framer(side) for side in Side}
        self._asked: OrderedDict[int, Asked] = OrderedDict()
        self._over: list[Exchange] = []
        self._token: Exchange | None = None  # that waits for the broker's

    def said(self, side: Side, data: bytes, at_ns: int) -> list[Exchange]:
        """Read the next bytes of *side*."""
        if self._lost[side]:
            self._lost[side] = not self._begins(side, data)
            self._has_tokens = False
            self._framers[side] = self._framer(side)
        if self._lost[side]:
            self.unread_bytes += len(data)
            return []
        try:
            for message in self._framers[side].feed(data, at_ns):
                self._take(side, message)
        except LostError:
            self._lost[side] = True
            self.unread_bytes += len(data)
        return self._taken()

    def missed(self, side: Side, size: int | None, at_ns: int) -> list[Exchange]:
        """Go on behind *size* bytes of *side* that were not seen."""
        try:
            message = None if self._lost[side] else self._framers[side].skip(size, at_ns)
            if message:
                self._take(side, message)
        except LostError:
            self._lost[side] = True
        return self._taken()

    def ended(self, at_ns: int) -> list[Exchange]:  # noqa: ARG002 - an exchange ends with its answer
        """Take note that the connection is closed."""
        for asked in self._asked.values():
            self._end(asked.exchange, Outcome.MISSED if self._lost[Side.SERVER] else Outcome.UNANSWERED)
        self._asked.clear()
        self._end_token(Outcome.MISSED if self._lost[Side.SERVER] else Outcome.UNANSWERED)
        return self._taken()

    def pending(self) -> list[Exchange]:
        """Return what is not answered yet."""
        return [*filter(None, [self._token]), *(asked.exchange for asked in self._asked.values())]

    def _framer(self, side: Side) -> Framer:
        if self._has_tokens:
            return Framer(4, _size, lambda _: _READ)
        if side is Side.CLIENT:
            return Framer(12, _request_size, lambda _: _READ)
        return Framer(8, _response_size, lambda _: _READ)

    def _begins(self, side: Side, data: bytes) -> bool:
        if side is Side.SERVER:
            return (
                len(data) >= 8
                and _response_size(data) > 0
                and int.from_bytes(data[4:8], "big") in self._asked
            )
        size = _request_size(data) if len(data) >= 14 else 0
        named = int.from_bytes(data[12:14], "big", signed=True)
        return 0 < named <= size - 14 and data[14 : 14 + named].isascii()

    def _taken(self) -> list[Exchange]:
        over, self._over = self._over, []
        return over

    def _end(self, exchange: Exchange, outcome: Outcome) -> None:
        exchange.outcome = outcome
        self._over.append(exchange)

    def _take(self, side: Side, message: Message) -> None:
        if len(message.header) == 4:
            if self._is_token(side, message):
                return
            message = _with_header(message, 8 if side else 12)
        if side is Side.CLIENT:
            self._ask(message)
        else:
            self._answer(message)

    def _is_token(self, side: Side, message: Message) -> bool:
        """Take note of a token; False: the client is in, and goes on with requests."""
        if side is Side.SERVER:
            token = self._token
            if token:
                token.answered_ns, token.ended_ns = message.begun_ns, message.ended_ns
                token.response_bytes = message.size
                self._end_token(Outcome.ANSWERED)
            return token is not None
        said = message.header + message.body
        self._has_tokens &= not self._begins(side, said) and said[12:14] != _NO_CLIENT_ID
        if self._has_tokens:
            self._end_token(Outcome.MISSED)
            self._token = Exchange(
                "kafka", message.begun_ns, operation="SaslAuthenticate", request_bytes=message.size
            )
        return self._has_tokens

    def _end_token(self, outcome: Outcome) -> None:
        token, self._token = self._token, None
        if token:
            self._end(token, outcome)

    def _ask(self, message: Message) -> None:
        number, version, correlation = struct.unpack_from("!hhi", message.header, 4)
        api = APIS.get(number) or Api(f"API {number}", None, -1)
        exchange = Exchange(
            "kafka",
            message.begun_ns,
            version=str(version),
            operation=api.name,
            request_bytes=message.size,
            stream=correlation,
        )
        found = _read_request(api, version, message.body)
        if found:
            self._tell(exchange, found)
            exchange.records = found.records
        if found and found.acks == 0:
            self._end(exchange, Outcome.ANSWERED)
            return
        waited = self._asked.pop(correlation, None)  # the number has come round
        if waited is None and len(self._asked) >= _MOST_PENDING:
            _, waited = self._asked.popitem(last=False)
        if waited:
            self._end(waited.exchange, Outcome.MISSED)
        self._asked[correlation] = Asked(exchange, api, number, version)

    def _answer(self, message: Message) -> None:
        correlation = int.from_bytes(message.header[4:8], "big", signed=True)
        if correlation not in self._asked:
            self.unread_bytes += message.size
            return
        while True:  # a broker answers in the order of the requests
            waited, asked = self._asked.popitem(last=False)
            if waited == correlation:
                break
            self._end(asked.exchange, Outcome.MISSED)
        exchange = asked.exchange
        if message.begun_ns < exchange.requested_ns:  # the answer to another, whose number was the same
            self._end(exchange, Outcome.MISSED)
            return
        exchange.answered_ns, exchange.ended_ns = message.begun_ns, message.ended_ns
        exchange.response_bytes = message.size
        found = _read_response(asked, message.body)
        if found:
            self._judge(exchange, asked.api, found)
        self._end(exchange, Outcome.ANSWERED)
        if asked.number == _SASL_HANDSHAKE and asked.version == 0 and exchange.status == "OK":
            self._has_tokens = True
            self._framers = {side: self._framer(side) for side in Side}

    def _judge(self, exchange: Exchange, api: Api, found: Found) -> None:
        for topic_id, name in found.named.items():
            if len(name) <= _LONGEST_TOPIC:
                _topics[topic_id] = name
            if len(_topics) > _MOST_TOPICS:
                _topics.popitem(last=False)
        if exchange.resource is None and api.name == "Fetch":  # goes on as the session's last one
            self._tell(exchange, found)
        if api.name == "Fetch":
            exchange.records = found.records if found.is_whole else None
        failure = next((code for code in found.errors if code), None)
        if failure is not None:
            exchange.status, exchange.error = str(failure), ERRORS.get(failure, f"error {failure}")
        elif found.has_all_errors:
            exchange.status = "OK"

    def _tell(self, exchange: Exchange, found: Found) -> None:
        named = filter(None, map(_topics.get, found.ids))  # another capture may let one go at any time
        # A consumer names its topics in another order each time: by name, its requests are of one kind.
        exchange.resource = self._masks.names(sorted((*filter(None, found.topics), *named)))
        partitions = set(found.partitions)
        exchange.partition = partitions.pop() if found.is_whole and len(found.partitions) == 1 else None


def _size(header: bytes) -> int:
    size = int.from_bytes(header, "big", signed=True)
    return 4 + size if 0 <= size < KAFKA_LARGEST else 0


def _with_header(message: Message, size: int) -> Message:
    """Return a message as cut by the header of its side."""
    data = message.header + message.body
    if len(data) < size or (size == 12 and not _request_size(data)):
        raise LostError
    return replace(message, header=data[:size], body=data[size:])


def _request_size(header: bytes) -> int:
    size, number, version, correlation = struct.unpack_from("!ihhi", header)
    known = 8 <= size < KAFKA_LARGEST and 0 <= number < KAFKA_APIS and 0 <= version < KAFKA_VERSIONS
    return 4 + size if known and correlation >= 0 else 0


def _response_size(header: bytes) -> int:
    size = int.from_bytes(header[:4], "big", signed=True)
    return 4 + size if 4 <= size < KAFKA_LARGEST else 0


def _read_request(api: Api, version: int, body: bytes) -> Found | None:
    """Return what a request says behind its correlation id; None: its layout is not known."""
    if version > api.newest or not api.request or len(body) < 2:
        return None
    flexible = api.is_flexible(version)
    place = 2 + max(int.from_bytes(body[:2], "big", signed=True), 0)
    try:
        return read(
            api.request, version, body, skip_tags(body, place) if flexible else place, flexible=flexible
        )
    except (CutError, IndexError):
        return None


def _read_response(asked: Asked, body: bytes) -> Found | None:
    api, version = asked.api, asked.version
    if version > api.newest or not api.response:
        return None
    flexible = api.is_flexible(version)
    try:
        place = skip_tags(body, 0) if flexible and asked.number != _API_VERSIONS else 0
    except (CutError, IndexError):
        return None
    return read(api.response, version, body, place, flexible=flexible)
