"""PostgreSQL's conversation (documentation, frontend/backend protocol 3): statements and their ends."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from enum import Enum, auto

from netlab.protocols import pgmessages as messages, sql
from netlab.protocols.dialog import Exchange, Outcome, Side
from netlab.protocols.framing import LostError, Message
from netlab.protocols.sqlstates import condition

_MOST_NAMES = 1000  # prepared statements that are remembered, and portals
_MOST_STEPS = 10_000  # messages that wait for their answer
_UNKNOWN = sql.Statement()
_STARTUP = b"startup"  # a step's kind; the others are the messages' own
_SIMPLE = {b"Q", b"F"}
_ACKNOWLEDGED = {b"P": {b"1"}, b"B": {b"2"}, b"C": {b"3"}, b"D": {b"T", b"n"}, b"E": {b"C", b"I", b"s"}}
_MAY_PRECEDE = {b"D": {b"t"}, b"E": {b"D", b"G", b"H", b"W", b"d", b"c"}}  # what comes before it
_ANY_TIME = {b"A", b"N", b"S"}  # notification, notice, parameter status
_WITHOUT_EXECUTE = {b"P": "PREPARE", b"D": "DESCRIBE", b"B": "BIND", b"C": "CLOSE"}
_IDLE = {b"Z\0\0\0\x05I", b"Z\0\0\0\x05T", b"Z\0\0\0\x05E"}
_BEGINS = {b"Q", b"P", b"B", b"C", b"D", b"F"}
_ABORTED = "pipeline_aborted"  # not executed, because what came before it in the pipeline failed


class State(Enum):
    """What the next bytes are."""

    OPENING = auto()  # messages without a type: startup, or a question for encryption
    ASKED = auto()  # the server's one byte on that question
    READY = auto()
    LOST = auto()  # in the middle of something
    SEALED = auto()  # encrypted


@dataclass(slots=True)
class Step:
    """A message of the client that the server answers, and the exchange that it belongs to."""

    kind: bytes
    exchange: Exchange


@dataclass(slots=True)
class Group:
    """Messages of the extended protocol up to the Execute, Flush or Sync that ends them."""

    begun_ns: int
    size: int = 0
    statement: sql.Statement = _UNKNOWN
    kinds: list[bytes] = field(default_factory=list)


class Postgres:
    """Reads one PostgreSQL connection in clear.

    One exchange for each simple query, each Execute, each startup (CONNECT), each cancel request (CANCEL),
    and each group of other messages of the extended protocol (PREPARE, DESCRIBE, BIND, CLOSE); a Sync is one
    only when the commit that it causes fails (SYNC). Met in the middle, or behind a gap that may hide the
    beginning of a message, it goes on when the server has said that it is ready and the client speaks next.
    """

    def __init__(self, *, whole: bool = True) -> None:
        self.unread_bytes = 0
        self._state = State.OPENING if whole else State.LOST
        self._opening = b""
        self._opened_ns: int | None = None
        self._version: str | None = None
        self._tail = b""  # the server's last bytes, where LOST
        self._over: list[Exchange] = []
        self._restart()

    def said(self, side: Side, data: bytes, at_ns: int) -> list[Exchange]:
        """Read the next bytes of *side*."""
        while data:
            data = self._read(side, data, at_ns)
        return self._taken()

    def missed(self, side: Side, size: int | None, at_ns: int) -> list[Exchange]:
        """Go on behind *size* bytes of *side* that were not seen."""
        if self._state is State.READY:
            try:
                message = self._framers[side].skip(size, at_ns)
                if message:
                    self._take(side, message)
            except LostError:
                self._lose()
        elif self._state is not State.SEALED:
            self._lose()
        return self._taken()

    def ended(self, at_ns: int) -> list[Exchange]:  # noqa: ARG002 - an exchange ends with its answer
        """Take note that the connection is closed."""
        self._give_up(Outcome.UNANSWERED)
        return self._taken()

    def pending(self) -> list[Exchange]:
        """Return what is not answered yet, as far as it was asked."""
        waiting = {id(step.exchange): step.exchange for step in self._steps if step.kind != b"S"}
        return list(waiting.values())

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
        except LostError:
            self._lose()
            return self._seek(side, data)
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
            exchange = Exchange("postgres", begun_ns, operation="CANCEL", request_bytes=length)
            if is_startup:
                self._version = f"3.{code & 0xFFFF}"
                exchange.operation, exchange.resource = "CONNECT", messages.database(self._opening)
            self._state, self._opening = State.READY, b""
            self._steps.append(Step(_STARTUP, exchange))

    def _seek(self, side: Side, data: bytes) -> bytes:
        if side is Side.CLIENT and self._tail in _IDLE and data[:1] in _BEGINS:
            self._restart()
            self._state = State.READY
            return data
        self._tail = (self._tail + data[-6:])[-6:] if side is Side.SERVER else b""
        self.unread_bytes += len(data)
        return b""

    def _restart(self) -> None:
        self._framers = {side: messages.framer(side) for side in Side}
        self._steps: deque[Step] = deque()
        self._group: Group | None = None
        self._is_skipping = False  # the server discards what comes before the next Sync
        self._statements: OrderedDict[bytes, sql.Statement] = OrderedDict()
        self._portals: OrderedDict[bytes, sql.Statement] = OrderedDict()

    def _lose(self) -> None:
        self._give_up(Outcome.MISSED)
        self._state, self._tail, self._opening = State.LOST, b"", b""

    def _give_up(self, outcome: Outcome) -> None:
        for exchange in self.pending():
            exchange.outcome = outcome
            self._over.append(exchange)
        self._steps.clear()
        self._group = None

    def _taken(self) -> list[Exchange]:
        over, self._over = self._over, []
        return over

    # What the client asks

    def _take(self, side: Side, message: Message) -> None:
        if side is Side.CLIENT:
            self._ask(message.header[:1], message)
        elif self._steps:  # else: what nobody asked for
            self._answer(message.header[:1], message)

    def _ask(self, kind: bytes, message: Message) -> None:
        if kind in _SIMPLE:
            said = messages.query(message.body) if kind == b"Q" else sql.Statement("CALL")
            self._expect([kind], self._exchange(message.begun_ns, message.size, said))
        elif kind in _ACKNOWLEDGED:
            self._extend(kind, message)
        elif kind in {b"S", b"H"}:
            self._end_group()
            if kind == b"S":
                self._is_skipping = False
                self._expect([kind], self._exchange(message.begun_ns, message.size, sql.Statement("SYNC")))
        elif kind in {b"d", b"c", b"f"} and self._steps:  # the data of a COPY, and their end
            self._steps[0].exchange.request_bytes = (
                self._steps[0].exchange.request_bytes or 0
            ) + message.size

    def _extend(self, kind: bytes, message: Message) -> None:
        group = self._group = self._group or Group(message.begun_ns)
        group.size += message.size
        group.kinds.append(kind)
        if kind == b"P":
            group.statement = _remember(self._statements, messages.parsed(message.body))
        elif kind == b"B":
            names = messages.bound(message.body)
            found = (names[0], self._statements.get(names[1], _UNKNOWN)) if names else None
            group.statement = _remember(self._portals, found)
        elif kind == b"E":
            name, end, _ = message.body.partition(b"\0")
            group.statement = self._portals.get(name, _UNKNOWN) if end else _UNKNOWN
            self._end_group()
        if len(group.kinds) > _MOST_STEPS:
            raise LostError

    def _end_group(self) -> None:
        group, self._group = self._group, None
        if group is None:
            return
        said = group.statement
        if group.kinds[-1] != b"E":
            said = sql.Statement(_WITHOUT_EXECUTE[group.kinds[0]], said.tables)
        self._expect(group.kinds, self._exchange(group.begun_ns, group.size, said))

    def _exchange(self, begun_ns: int, size: int, said: sql.Statement) -> Exchange:
        tables = ", ".join(said.tables) or None
        return Exchange(
            "postgres",
            begun_ns,
            operation=said.operation,
            resource=tables,
            request_bytes=size,
            version=self._version,
        )

    def _expect(self, kinds: list[bytes], exchange: Exchange) -> None:
        if self._is_skipping:
            self._end(exchange, None, _ABORTED, exchange.requested_ns)
            return
        if len(self._steps) + len(kinds) > _MOST_STEPS:
            raise LostError
        self._steps.extend(Step(kind, exchange) for kind in kinds)

    # What the server answers

    def _answer(self, kind: bytes, message: Message) -> None:
        step = self._steps[0]
        exchange = step.exchange
        if exchange.answered_ns is None:
            exchange.answered_ns = message.begun_ns
        exchange.ended_ns = message.ended_ns
        exchange.response_bytes = (exchange.response_bytes or 0) + message.size
        if kind == b"E":
            self._fail(step, message)
        elif kind == b"Z":
            if step.kind not in {_STARTUP, b"S", *_SIMPLE}:
                raise LostError
            self._pop(message)
        elif kind == b"C" and (step.kind in _SIMPLE or step.kind == b"E"):
            self._complete(step, message)
        elif step.kind in _ACKNOWLEDGED:
            self._acknowledge(step, kind, message)
        elif kind == b"v" and len(message.body) == 4:  # the newest that the server knows
            self._version = f"3.{int.from_bytes(message.body, 'big') & 0xFFFF}"

    def _acknowledge(self, step: Step, kind: bytes, message: Message) -> None:
        if kind in _ACKNOWLEDGED[step.kind]:
            self._pop(message)
        elif kind in _MAY_PRECEDE.get(step.kind, ()):
            if kind == b"D":
                step.exchange.records = (step.exchange.records or 0) + 1
            elif kind == b"G" and len(self._steps) > 1 and self._steps[1].kind == b"S":
                del self._steps[1]  # the server ignores a Sync while data are copied in
        elif kind not in _ANY_TIME:
            raise LostError

    def _complete(self, step: Step, message: Message) -> None:
        command, rows = messages.completed(message)
        exchange = step.exchange
        exchange.operation = exchange.operation or command
        if step.kind == b"E":
            exchange.records = rows
            self._pop(message)
        elif rows is not None:  # one of several statements
            exchange.records = (exchange.records or 0) + rows

    def _fail(self, step: Step, message: Message) -> None:
        exchange = step.exchange
        exchange.status = messages.sqlstate(message)
        exchange.error = condition(exchange.status) if exchange.status else "unknown"
        if step.kind in _SIMPLE or step.kind == b"S":
            return  # ReadyForQuery ends it
        self._steps.popleft()
        self._end(exchange, exchange.status, exchange.error, message.ended_ns)
        while self._steps and self._steps[0].kind != b"S":
            other = self._steps.popleft().exchange
            if other.outcome is Outcome.PENDING:
                self._end(other, None, _ABORTED, message.ended_ns)
        self._is_skipping = not self._steps and step.kind != _STARTUP

    def _pop(self, message: Message) -> None:
        step = self._steps.popleft()
        if self._steps and self._steps[0].exchange is step.exchange:
            return
        if step.kind != b"S" or step.exchange.error:
            self._end(step.exchange, step.exchange.status or "OK", step.exchange.error, message.ended_ns)

    def _end(self, exchange: Exchange, status: str | None, error: str | None, at_ns: int) -> None:
        exchange.outcome, exchange.status, exchange.error = Outcome.ANSWERED, status, error
        exchange.ended_ns, exchange.version = at_ns, self._version
        if exchange.answered_ns is None:  # by the failure of another
            exchange.answered_ns = at_ns
        self._over.append(exchange)


def _remember(
    known: OrderedDict[bytes, sql.Statement], named: tuple[bytes, sql.Statement] | None
) -> sql.Statement:
    if named is None:
        known.clear()  # one of them is another now, and nobody knows which
        return _UNKNOWN
    known[named[0]] = named[1]
    known.move_to_end(named[0])
    if len(known) > _MOST_NAMES:
        known.popitem(last=False)
    return named[1]
