"""PostgreSQL's conversation (documentation, frontend/backend protocol 3): statements and their ends."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum, auto

from netlab.protocols import pgmessages as messages
from netlab.protocols.dialog import Exchange, Outcome, Side
from netlab.protocols.framing import LostError, Message
from netlab.protocols.masking import STANDARD, Masking
from netlab.protocols.pgending import Ending
from netlab.protocols.pgpipeline import Pipeline
from netlab.protocols.proof import Proof

_IDLE = {b"Z\0\0\0\x05I", b"Z\0\0\0\x05T", b"Z\0\0\0\x05E"}
_BEGINS = {b"Q", b"P", b"B", b"C", b"D", b"F"}


class State(Enum):
    """What the next bytes are."""

    OPENING = auto()  # messages without a type: startup, or a question for encryption
    ASKED = auto()  # the server's one byte on that question
    READY = auto()
    LOST = auto()  # in the middle of something
    SEALED = auto()  # encrypted


class Postgres:
    """Reads one PostgreSQL connection in clear.

    One exchange for each statement of a simple query that the server came to, the first with the bytes of
    the message; for each Execute; for each startup (CONNECT) and each cancel request (CANCEL, answered by the
    end of its connection); and for each group of other messages of the extended protocol (PREPARE, DESCRIBE,
    BIND, CLOSE); a Sync is one only when the commit that it causes fails (SYNC). Met in the middle, or behind
    a gap that may hide the beginning of a message, it goes on when the server has said that it is ready and
    the client speaks next, or where a segment of the client has whole messages that want an answer. A gap in
    the data of a COPY, or in the rows of a statement that nothing else waits behind, costs their count alone.
    Of tables and databases is kept what *masks* leave. Behind the first change that START_REPLICATION brings
    nothing is read any more.
    """

    def __init__(self, *, whole: bool = True, masks: Masking = STANDARD) -> None:
        self.unread_bytes = 0
        self.upgraded: str | None = None  # what is said from now on: replication
        self._state = State.OPENING if whole else State.LOST
        self._opening = b""
        self._opened_ns: int | None = None
        self._tail = b""  # the server's last bytes, where LOST
        self._pipeline = Pipeline(masks)
        self._proof = Proof(is_sure=whole)
        self._told: list[Exchange] = []  # what was held back, and is no more
        self._streams = False  # the server has said that changes follow, for as long as a standby listens
        self._copied: Exchange | None = None  # to which the client says data that are not read any more
        self._ending: Ending | None = None  # of the answer whose middle was missed
        self._framers = {side: messages.framer(side) for side in Side}

    def said(self, side: Side, data: bytes, at_ns: int) -> list[Exchange]:
        """Read the next bytes of *side*."""
        if self.upgraded is not None:
            return []
        if self._proof.waits and side is Side.CLIENT and self._pipeline.is_idle:
            self._told += self._proof.prove()
        if self._ending and side is Side.CLIENT:
            self._settle(self._ending)
        if self._ending:
            self._ending.said(data, at_ns)
        elif not self._is_copied(side, data):
            while data:
                data = self._read(side, data, at_ns)
        return self._taken()

    def missed(self, side: Side, size: int | None, at_ns: int) -> list[Exchange]:
        """Go on behind *size* bytes of *side* that were not seen."""
        if self.upgraded is not None:
            return []
        if self._state is State.READY:
            try:
                self._skip(side, size, at_ns)
            except LostError:
                self._lose(is_gap=True)
        elif self._state is not State.SEALED:
            self._lose()
        return self._taken()

    def ended(self, at_ns: int) -> list[Exchange]:
        """Take note that the connection is closed."""
        if self._ending:
            self._settle(self._ending)
        is_idle = self._pipeline.is_idle
        self._pipeline.give_up(Outcome.UNANSWERED if self._proof.is_sure else Outcome.MISSED, at_ns)
        told = self._taken()
        return (self._proof.prove() if is_idle else self._proof.refute()) + told

    def pending(self) -> list[Exchange]:
        """Return what is not answered yet, as far as it was asked."""
        waiting = self._pipeline.pending()
        if self._ending:  # it may be answered by now
            waiting = [replace(one.unproved(), answered_ns=one.answered_ns) for one in waiting]
        return [*self._proof.held(), *waiting]

    def _taken(self) -> list[Exchange]:
        told, self._told = self._told, []
        return told + self._proof.of(self._pipeline.taken())

    # What was missed

    def _skip(self, side: Side, size: int | None, at_ns: int) -> None:
        """Go on behind a gap that hides no more than data."""
        if self._ending and side is Side.SERVER:
            self._ending.missed()
        elif self._ending:
            raise LostError
        elif not (self._copied and side is Side.CLIENT):
            try:
                message = self._framers[side].skip(size, at_ns)
                if message:
                    self._take(side, message)
            except LostError:
                self._hold_on(side)

    def _hold_on(self, side: Side) -> None:
        """Wait for the end of what one side has begun to say, of which some was missed."""
        if not self._proof.is_sure or not self._pipeline.is_alone:
            raise LostError
        if side is Side.SERVER:
            self._ending = Ending()
            return
        if self._pipeline.is_copying:
            self._copied = self._pipeline.pending()[0]
            self._copied.request_bytes = None
            self._framers[side] = messages.framer(side)
        else:
            raise LostError

    def _is_copied(self, side: Side, data: bytes) -> bool:
        """Return whether a client still says the data of a COPY, as it does for a while if it fails."""
        if self._copied is None or side is Side.SERVER:
            return False
        is_next = self._copied.error is None or messages.are_whole(data)
        if self._pipeline.is_idle and data[:1] in _BEGINS and is_next:
            if self._copied.error:
                self._pipeline.forget()
            self._copied = None
        return self._copied is not None

    def _settle(self, ending: Ending) -> None:
        """Read the end of an answer, now that the client goes on or the connection is over."""
        self._ending, last, is_single = None, ending.last(), self._pipeline.is_single
        if last:
            self._pipeline.pass_completed()
        (exchange,) = self._pipeline.pending()
        try:
            for message in last:
                self._pipeline.answer(message)
        except LostError:
            last = []
        if last:
            exchange.response_bytes = None
            exchange.records = exchange.records if is_single else None
            self._framers[Side.SERVER] = messages.framer(Side.SERVER)
        else:
            self._lose(is_gap=True)
            self._tail = ending.tail[-6:]

    # What the bytes are

    def _read(self, side: Side, data: bytes, at_ns: int) -> bytes:
        """Read some of *data* and return the rest."""
        if self._state is State.READY:
            return self._read_messages(side, data, at_ns)
        if self._state is State.OPENING and side is Side.CLIENT:
            return self._open(data, at_ns)
        if self._state is State.ASKED and side is Side.SERVER and data[:1] in {b"N", b"S", b"G"}:
            self._state = State.OPENING if data[:1] == b"N" else State.SEALED
            return data[1:]
        if self._state is State.SEALED:
            self.unread_bytes += len(data)
            return b""
        if self._state is not State.LOST:
            self._lose()
        return self._seek(side, data)

    def _read_messages(self, side: Side, data: bytes, at_ns: int) -> bytes:
        try:
            for message in self._framers[side].feed(data, at_ns):
                self._take(side, message)
        except LostError:  # its bytes are not sought through: messages of them were told
            self._lose()
            self._pass(side, data)
        return b""

    def _open(self, data: bytes, at_ns: int) -> bytes:
        if self._opened_ns is None:
            self._opened_ns = at_ns
        wanted = 8 if len(self._opening) < 8 else int.from_bytes(self._opening[:4], "big")
        taken = data[: wanted - len(self._opening)]
        self._opening += taken
        if len(self._opening) >= 8:
            self._opened(self._opened_ns)
        return data[len(taken) :]

    def _opened(self, begun_ns: int) -> None:
        length, code = int.from_bytes(self._opening[:4], "big"), int.from_bytes(self._opening[4:8], "big")
        if code in {messages.TLS, messages.GSS} and length == 8:
            self._state, self._opening = State.ASKED, b""
            return
        is_startup = code >> 16 == 3 and 8 < length <= messages.LONGEST_STARTUP
        if not is_startup and not (code == messages.CANCEL and 16 <= length <= 300):
            self.unread_bytes += len(self._opening)
            self._lose()
        elif len(self._opening) == length:
            self._pipeline.open(self._opening, begun_ns)
            self._state, self._opening = State.READY, b""

    def _seek(self, side: Side, data: bytes) -> bytes:
        is_ready = self._tail in _IDLE
        if side is Side.CLIENT and data[:1] in _BEGINS and (is_ready or messages.are_whole(data)):
            self._pipeline.forget()
            self._framers = {one: messages.framer(one) for one in Side}
            self._state, self._proof.is_sure = State.READY, is_ready
            return data
        self._pass(side, data)
        return b""

    def _pass(self, side: Side, data: bytes) -> None:
        """Give *data* up; of the server's the last bytes may say that it is ready."""
        self._tail = (self._tail + data[-6:])[-6:] if side is Side.SERVER else b""
        self.unread_bytes += len(data)

    def _lose(self, *, is_gap: bool = False) -> None:
        is_sure = self._proof.is_sure
        self._told += self._proof.refute()
        self._pipeline.give_up(Outcome.MISSED, is_gap=is_gap and is_sure)
        self._state, self._tail, self._opening = State.LOST, b"", b""
        self._copied = self._ending = None

    def _take(self, side: Side, message: Message) -> None:
        if side is Side.SERVER and self._streams and message.header[:1] == b"d":
            self._leave()
        self._streams |= side is Side.SERVER and message.header[:1] == b"W"
        if self.upgraded is not None:
            return
        if side is Side.CLIENT:
            self._pipeline.ask(message)
        elif self._proof.is_sure or not self._pipeline.is_idle or message.header[:1] in messages.UNASKED:
            self._pipeline.answer(message)
        else:
            raise LostError

    def _leave(self) -> None:
        """Stop reading: the first change shows that what was asked for went well."""
        self.upgraded = "replication"
        for exchange in self._pipeline.pending():
            exchange.status = "OK"
        self._pipeline.give_up(Outcome.ANSWERED)
