"""HTTP/1.0 and HTTP/1.1 (RFC 9110, RFC 9112): heads are read, bodies are counted."""

from __future__ import annotations

from collections import deque

from netlab.protocols import heads, masking
from netlab.protocols.bodies import BODY, CHUNK, HEAD, LOST, OVER, REST, Voice
from netlab.protocols.dialog import Exchange, Outcome, Side
from netlab.protocols.masking import Masking
from netlab.protocols.statuses import INCOMPLETE, http_error

LONGEST_HEAD = 65536  # bytes: nginx, Apache and Envoy refuse heads of half of it
MOST_WAITING = 1000  # pipelined requests

_END_OF_HEAD = b"\r\n\r\n"
_LINE_ENDS = (b"\r\n", b"\n")
_PREFACE = b"PRI * HTTP/2.0\r\n\r\n"  # RFC 9113 section 3.4


class Http1:
    """Reads a conversation in HTTP/1.

    Parameters
    ----------
    whole
        Whether the first bytes are the connection's first. Else reading begins with a request that a packet
        begins with while no other is open; so it does behind a gap, once the server has spoken since. Of a
        client that pipelines that proves nothing: behind a gap it is not read any more.
    masks
        What is kept of paths.
    """

    __slots__ = (
        "_asking", "_client", "_holds_body", "_masks", "_over", "_owes", "_pipelines", "_server", "_waiting",
        "left", "unread_bytes", "upgraded",
    )  # fmt: skip

    def __init__(self, *, whole: bool = True, masks: Masking = masking.STANDARD) -> None:
        start = HEAD if whole else LOST
        self.unread_bytes = 0
        self.upgraded: str | None = None  # what is spoken from now on: websocket, h2c, connect, ...
        self.left = 0  # bytes of the last data that are in it
        self._masks = masks
        self._client, self._server = Voice(Side.CLIENT, start), Voice(Side.SERVER, start)
        self._waiting: deque[Exchange] = deque()  # answers come in the order of the requests
        self._asking: Exchange | None = None  # whose request is not whole yet
        self._holds_body = False  # of `_asking`, until the server gives leave (RFC 9110 section 10.1.1)
        self._pipelines = False
        self._owes = False  # whether the server has yet to speak behind what was not read of the client
        self._over: list[Exchange] = []

    def said(self, side: Side, data: bytes, at_ns: int) -> list[Exchange]:
        """Read the next bytes of *side*."""
        voice = self._speaks(side, at_ns)
        if self._holds_body and not side and self._is_doubtful(voice, data, at_ns):
            return []
        if voice.held:
            data, voice.held = voice.held + data, b""
        elif voice.at is HEAD or voice.at is LOST:
            voice.began_ns = at_ns
        place, size = 0, len(data)
        while place < size and self.upgraded is None:
            at = voice.at
            if at is HEAD or at is LOST:
                place = self._head(voice, data, place)
            elif at is BODY or at is CHUNK:
                place += voice.count(size - place)
            elif at is REST:
                voice.size += size - place
                place = size
            else:
                behind = voice.line(data, place)
                place = self._astray(voice, data, place) if behind is None else behind
            if voice.at is OVER:
                self._message_over(voice)
        if self.upgraded is not None:
            self.left = size - place
            self._lose(self._client)  # what was asked behind the request that changed the protocol
            self._lose(self._server)
        return self._taken()

    def missed(self, side: Side, size: int | None, at_ns: int) -> list[Exchange]:
        """Go on behind *size* bytes of *side* that were not seen; None: nobody knows how many."""
        is_start = not (side or self._client.said_ns) and self._client.at is LOST
        voice = self._speaks(side, at_ns)
        self._holds_body &= bool(side)
        if self.upgraded is not None:
            return []
        if voice.held:
            self._cut(voice)
        elif voice.at is REST:
            voice.size += size or 0
            voice.unsized |= size is None
        elif size is not None and (voice.at is BODY or voice.at is CHUNK) and size <= voice.left:
            voice.count(size)
            if voice.at is OVER:
                self._message_over(voice)
        else:
            self._cut(voice)
        self._owes &= not is_start
        return self._taken()

    def _speaks(self, side: Side, at_ns: int) -> Voice:
        voice = self._server if side else self._client
        voice.said_ns = at_ns
        self._owes &= not side
        return voice

    def spare(self, side: Side) -> int:
        """Return how many of the next bytes of *side* are a body's, and only counted."""
        return (self._server if side else self._client).spare()

    def ended(self, at_ns: int) -> list[Exchange]:
        """Take note that the connection is closed: answers ended with their last byte."""
        del at_ns
        if self._server.at is REST:
            self._message_over(self._server)
        self._read_lines(self._server)
        begun = bool(self._server.held)  # an answer to the first, but nobody knows which
        for exchange in self.pending():
            if exchange.outcome is Outcome.PENDING:
                exchange.outcome = Outcome.MISSED if begun else Outcome.UNANSWERED
            elif exchange.ended_ns is None:
                exchange.error = exchange.error or INCOMPLETE
            self._over.append(exchange)
            begun = False
        self._waiting.clear()
        self._asking, self._owes = None, False
        self._lose(self._client)
        self._lose(self._server)
        return self._taken()

    def pending(self) -> list[Exchange]:
        """Return what is not over; what is being answered has its status already."""
        if self._asking and not self._waiting:  # answered before it was whole
            return [self._asking]
        return list(self._waiting)

    def _taken(self) -> list[Exchange]:
        if not self._over:
            return []
        over, self._over = self._over, []
        return over

    def _head(self, voice: Voice, data: bytes, place: int) -> int:
        """Read the head at *place* and return the place behind it."""
        while not voice.side and data.startswith(_LINE_ENDS, place):  # to be ignored: RFC 9112 section 2.2
            place += 1 if data.startswith(b"\n", place) else 2
        if place == len(data):
            return place
        end = data.find(_END_OF_HEAD, place)
        expected = voice.at is HEAD and (self._waiting or not voice.side)
        # A whole head that is expected is looked at only once, when it is read.
        if not (expected and end >= 0) and not self._may_begin(voice, data[place : place + 32]):
            return self._astray(voice, data, place)
        read = self._answers if voice.side else self._asks
        if 0 <= end <= place + LONGEST_HEAD:
            voice.size = end + len(_END_OF_HEAD) - place
            if read(voice, data[place : place + voice.size]):
                return place + voice.size
        loose = heads.loose(data, place)  # which ends earlier, or is the same
        if 0 < len(loose) <= LONGEST_HEAD:
            voice.size = len(loose)
            is_read = read(voice, heads.strict(loose))
            return place + voice.size if is_read else self._astray(voice, data, place)
        voice.held = data[place:]
        if len(voice.held) > LONGEST_HEAD:
            self._cut(voice)
        return len(data)

    def _may_begin(self, voice: Voice, data: bytes) -> bool:
        """Return whether *data* may be the beginning of a head, and of one that is known to be the next."""
        lost = voice.at is LOST
        if not voice.side:
            unsure = lost and (self._waiting or self._owes or self._pipelines)
            return not unsure and heads.may_begin_request(data, sure=lost)
        return bool(self._waiting) and not (lost and self._pipelines) and heads.may_begin_answer(data)

    def _asks(self, voice: Voice, head: bytes, *, whole: bool = True) -> bool:
        """Take note of a request; False: *head* is none."""
        if head == _PREFACE:
            self.upgraded = "h2c"
            return True
        found = heads.request(head)
        if found is None or len(self._waiting) >= MOST_WAITING:
            return False
        exchange = Exchange(
            "http",
            voice.began_ns,
            version=found.version,
            operation=found.method,
            resource=None if found.path is None else self._masks.path(found.path),
            host=self._masks.host(found.host),
        )
        self._pipelines |= bool(self._waiting)
        if voice.at is LOST or self._server.at is REST:
            self._lose(self._server)  # which may yet answer what was not seen, or has ended an answer unseen
        self._waiting.append(exchange)
        self._asking = exchange
        if whole:
            voice.expect(found.length)
            self._holds_body = found.waits
        return True

    def _is_doubtful(self, voice: Voice, data: bytes, at_ns: int) -> bool:
        """See whether a body comes now, or, where the server did without it, the next request; then hold it.

        Nobody knows as long as what comes may still become a request's first line.
        """
        refused = self._asking and self._asking.status
        if refused and not voice.held:
            voice.began_ns = at_ns
        begun = voice.held + data
        if refused and heads.may_become_request(begun) and len(begun) <= LONGEST_HEAD:
            voice.held = begun
            return True
        self._holds_body = False
        if refused and heads.begins_request(begun):
            began_ns = voice.began_ns
            self._message_over(voice)
            voice.began_ns = began_ns
        return False

    def _answers(self, voice: Voice, head: bytes, *, whole: bool = True) -> bool:
        """Take note of an answer; False: *head* is none."""
        found = heads.answer(head)
        if found is None:
            return False
        status, length, upgrade = found
        if status[0] == "1" and status != "101":  # the answer proper is still to come
            voice.at, voice.began_ns = HEAD, voice.said_ns
            return True
        exchange = self._waiting[0]
        exchange.outcome, exchange.answered_ns = Outcome.ANSWERED, voice.began_ns
        exchange.status, exchange.error = status, http_error(status)
        if status == "101":
            self.upgraded = upgrade.partition(b",")[0][:32].decode("latin-1") or "unknown"
        elif exchange.operation == "CONNECT" and status[0] == "2":
            self.upgraded = "connect"
        if not whole:
            return True
        if self.upgraded is not None or exchange.operation == "HEAD" or status in {"204", "304"}:
            voice.at = OVER
        else:
            voice.expect(0 if status == "205" and length == heads.UNTOLD else length)
        return True

    def _message_over(self, voice: Voice) -> None:
        """Take note of a message's last byte; a request is over with its answer, and with its own end."""
        if voice.side:
            exchange = self._waiting.popleft()
            exchange.ended_ns = voice.said_ns
            exchange.response_bytes = None if voice.unsized else voice.size
            if exchange is not self._asking:
                self._over.append(exchange)
        elif self._asking:
            self._asking.request_bytes = voice.size
            self._asked()
        voice.at, voice.began_ns, voice.unsized = HEAD, voice.said_ns, False

    def _asked(self) -> None:
        exchange, self._asking = self._asking, None
        if exchange and not self._waiting:  # it was the last one, and has been answered
            self._over.append(exchange)

    def _astray(self, voice: Voice, data: bytes, place: int) -> int:
        """Give up what *data* says from *place* on."""
        self.unread_bytes += len(data) - place
        self._owes |= not voice.side
        self._lose(voice)
        return len(data)

    def _cut(self, voice: Voice) -> None:
        """Give up a message from here on; what its head has said so far is true."""
        self._read_lines(voice)
        self._owes |= not voice.side
        self._lose(voice)

    def _read_lines(self, voice: Voice) -> None:
        """Read what is there of a head."""
        lines = heads.told(voice.held[:LONGEST_HEAD])
        if lines and (voice.at is HEAD or voice.at is LOST):
            (self._answers if voice.side else self._asks)(voice, lines, whole=False)

    def _lose(self, voice: Voice) -> None:
        """Know no longer where in its messages a side is."""
        self.unread_bytes += voice.lose()
        if not voice.side:
            self._holds_body = False
            self._asked()
            return
        for exchange in self._waiting:
            if exchange.outcome is Outcome.PENDING:
                exchange.outcome = Outcome.MISSED
            if exchange is not self._asking:
                self._over.append(exchange)
        self._waiting.clear()
