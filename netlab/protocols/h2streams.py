"""The streams of an HTTP/2 connection as requests (RFC 9113 section 8), those of gRPC as calls."""

from __future__ import annotations

import re
from dataclasses import dataclass

from netlab.protocols import masking
from netlab.protocols.dialog import Exchange, Outcome, Side
from netlab.protocols.fields import Fields
from netlab.protocols.h2frames import END_HEADERS, END_STREAM, Kind
from netlab.protocols.masking import Masking
from netlab.protocols.statuses import INCOMPLETE, grpc_error, http_error

_LENGTH = 3  # bytes, which a frame begins with
REFUSED = "GOAWAY"  # the error of a request that a server which goes away has not taken
MOST_OPEN = 10_000  # streams; servers allow some hundred, or as many as there are

_PSEUDO = {b":method", b":scheme", b":path", b":authority"}
_GRPC = re.compile(rb"application/grpc(?:$|[+;])")  # gRPC-Web is not: its status is in the body


@dataclass(slots=True)
class _Stream:
    """A request whose answer is not over."""

    exchange: Exchange
    path: str | None
    may_call: bool = False  # whether it is a gRPC call is not known: its content type was named before
    asked: int | None = 0  # bytes of the request so far; None: some were not seen
    is_asked: bool = False  # the request is whole
    answered: int | None = 0  # bytes of the answer so far; None likewise


class Streams:
    """Every stream whose answer is not over."""

    __slots__ = ("_doubted", "_last", "_latest", "_masks", "_over", "_streams", "_why", "given_up")

    def __init__(self, masks: Masking) -> None:
        self.given_up = 0  # streams that made room for others
        self._masks = masks
        self._streams: dict[int, _Stream] = {}
        self._latest = -1  # stream that the client opened
        self._doubted = 0  # stream of whose answer some was missed
        self._last = 1 << 31  # stream that a server which goes away takes
        self._why: str | None = None  # it goes
        self._over: list[Exchange] = []

    def taken(self) -> list[Exchange]:
        """Return what is over since the last call."""
        if not self._over:
            return []
        over, self._over = self._over, []
        return over

    def open(self) -> list[Exchange]:
        """Return what is not over; what is being answered is there as such."""
        return [stream.exchange for stream in self._streams.values()]

    def adopt(self, request: Exchange) -> None:
        """Take a request in HTTP/1 for that of stream 1 (RFC 7540 section 3.2)."""
        exchange = Exchange("http2", request.requested_ns, version="HTTP/2", stream=1)
        exchange.operation, exchange.resource = request.operation, request.resource
        exchange.host = request.host
        self._streams[1] = _Stream(exchange, None, asked=request.request_bytes, is_asked=True)
        self._latest = 1

    def told(self, side: Side, number: int, fields: Fields, began_ns: int) -> bool:
        """Read header fields; False: they are of an answer that is not the answer proper."""
        if not side:
            self._asks(number, fields, began_ns)
            return True
        stream = self._streams.get(number)
        if stream and began_ns < stream.exchange.requested_ns:  # the answer to another
            self.close(number, Outcome.MISSED)
            return False
        return stream is None or self._answers(stream, fields, began_ns)

    def _asks(self, number: int, fields: Fields, began_ns: int) -> None:
        """Take note of a request, unless the fields are the trailers of one."""
        if number <= self._latest or number % 2 == 0 or not _PSEUDO & fields.known.keys():
            return
        self._latest = number
        if len(self._streams) >= MOST_OPEN:
            self.close(next(iter(self._streams)), Outcome.MISSED)
            self.given_up += 1
        exchange = Exchange("http2", began_ns, version="HTTP/2", stream=number)
        exchange.host = self._masks.host(fields.known.get(b":authority") or fields.known.get(b"host", b""))
        stream = self._streams[number] = _Stream(exchange, fields.text(b":path"))
        if _is_call(fields):
            self._name_grpc(stream)
            return
        exchange.operation = _method(fields.text(b":method"))
        stream.may_call = _hides_type(fields) and exchange.operation in {None, "POST"}
        exchange.resource = None if stream.path is None else self._masks.path(stream.path)

    def _answers(self, stream: _Stream, fields: Fields, began_ns: int) -> bool:
        """Take note of an answer or its trailers; False: the answer proper is still to come."""
        exchange = stream.exchange
        status, code = _digits(fields.text(b":status")), _digits(fields.text(b"grpc-status"))
        if status and status[0] == "1":
            return False
        if exchange.protocol != "grpc" and (_is_call(fields) or (stream.may_call and code is not None)):
            self._name_grpc(stream)
        if exchange.answered_ns is None or status:
            exchange.answered_ns, exchange.outcome = began_ns, Outcome.ANSWERED
        if exchange.protocol == "grpc":
            if code is not None:
                exchange.status, exchange.error = code, grpc_error(code)
            elif status not in {None, "200"}:  # of something between the client and its service
                exchange.status, exchange.error = status, http_error(status or "")
        elif status:
            stream.may_call &= _hides_type(fields)
            if status != "200" or not stream.may_call:  # a call that fails has this status, too
                exchange.status, exchange.error = status, http_error(status)
        return True

    def count(self, side: Side, number: int, size: int) -> None:
        """Add to the message that a frame is of."""
        stream = self._streams.get(number)
        if stream and side and stream.answered is not None:
            stream.answered += size
        elif stream and not side and stream.asked is not None:
            stream.asked += size

    def side_over(self, side: Side, number: int, at_ns: int) -> None:
        """Take note of a message's last byte."""
        stream = self._streams.get(number)
        if stream is None:
            return
        if not side:
            stream.is_asked = True
            return
        if stream.exchange.answered_ns is None:  # its fields could not be read
            self.close(number, Outcome.MISSED)
            return
        stream.exchange.ended_ns, stream.exchange.response_bytes = at_ns, stream.answered
        self._end(number)

    def close(self, number: int, outcome: Outcome, error: str | None = None) -> None:
        """Take note that an answer will not be whole."""
        stream = self._streams.get(number)
        if stream is None:
            return
        exchange = stream.exchange
        exchange.error = error or exchange.error
        if exchange.outcome is Outcome.PENDING or (exchange.protocol == "grpc" and exchange.status is None):
            exchange.outcome = outcome
        self._end(number)

    def go_away(self, last: int, error: str | None) -> None:
        """Take note that the server takes no stream behind the *last* one (RFC 9113 section 6.8)."""
        self._last, self._why = last, error
        self.close_all(Outcome.UNANSWERED, error or REFUSED, behind=last)

    def close_all(self, outcome: Outcome, error: str | None = None, *, behind: int = 0) -> None:
        """Take note that no answer will be whole to what was asked *behind* that stream."""
        for number in [number for number in self._streams if number > behind]:
            self.close(number, outcome, error)

    def end(self, outcome: Outcome) -> None:
        """Take note that the connection is closed: what was being answered will not be whole."""
        for stream in self._streams.values():
            exchange = stream.exchange
            has_status = exchange.protocol != "grpc" or exchange.status is not None
            if exchange.outcome is Outcome.ANSWERED and has_status:
                exchange.error = exchange.error or INCOMPLETE
            elif outcome is Outcome.UNANSWERED:
                exchange.error = self._why
        if outcome is Outcome.UNANSWERED:  # asked before the client knew that the server goes away
            self.close_all(outcome, self._why or REFUSED, behind=self._last)
        self.close_all(outcome)

    def missed(self, side: Side) -> bool:
        """Take note that some of what *side* says was not seen; return whether that may be data alone.

        Of gRPC that shows when `goes_on` is asked of the next header fields.
        """
        if side:
            return self._missed_answers()
        asking = [stream for stream in self._streams.values() if not stream.is_asked]
        for stream in asking:
            stream.asked = None
        return all(stream.exchange.protocol == "grpc" for stream in asking)

    def _missed_answers(self) -> bool:
        if not self._streams:
            return True
        (number, stream), *others = self._streams.items()
        if others or stream.exchange.protocol != "grpc":
            self.close_all(Outcome.MISSED)
            return False
        self._doubted, stream.answered = number, None
        return True

    def goes_on(self, side: Side, number: int, *, is_first: bool) -> bool:
        """Return whether these are the next header fields of *side*, and none were missed.

        A call has one block of fields of the client's, which opens the next stream, and two of the server's
        (gRPC over HTTP2), *is_first* or not. Of stream 0 there are none.
        """
        if not side:
            return number == self._latest + 2
        doubted, self._doubted = self._doubted, 0
        stream = self._streams.get(doubted)
        if stream is None:
            return bool(number) and not doubted
        if number == doubted and is_first == (stream.exchange.answered_ns is None):
            return True
        self.close(doubted, Outcome.MISSED)
        return False

    def end_of(self, data: bytes) -> int:
        """Return where the server's last words on the stream that is in doubt may begin; -1: nowhere."""
        if not self._doubted:
            return -1
        flags = END_STREAM | END_HEADERS
        return data.rfind(bytes((Kind.HEADERS, flags)) + self._doubted.to_bytes(4, "big")) - _LENGTH

    def _name_grpc(self, stream: _Stream) -> None:
        """Take note that a request is a call: its path is a service and a method."""
        exchange = stream.exchange
        exchange.protocol, exchange.operation, exchange.resource = "grpc", None, None
        if stream.path is not None:
            service, _, method = stream.path.lstrip("/").rpartition("/")
            exchange.operation, exchange.resource = masking.service(method), self._masks.service(service)

    def _end(self, number: int) -> None:
        stream = self._streams.pop(number)
        stream.exchange.request_bytes = stream.asked if stream.is_asked else None
        self._over.append(stream.exchange)


def _is_call(fields: Fields) -> bool:
    return _GRPC.match(fields.known.get(b"content-type", b"")) is not None


def _hides_type(fields: Fields) -> bool:
    return bool(fields.unknown) and b"content-type" not in fields.known


def _method(name: str | None) -> str | None:
    return name if name and len(name) <= 24 and name.replace("-", "").isalpha() and name.isascii() else None


def _digits(code: str | None) -> str | None:
    return code if code and code.isdecimal() and code.isascii() and len(code) <= 3 else None
