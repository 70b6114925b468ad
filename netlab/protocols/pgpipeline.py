"""PostgreSQL's pipeline (documentation, message flow): what the client asked, and which answer is whose."""

from __future__ import annotations

from collections import deque

from netlab.protocols import pgmessages as messages, sql
from netlab.protocols.dialog import Exchange, Outcome
from netlab.protocols.framing import LostError, Message
from netlab.protocols.masking import Masking
from netlab.protocols.pgnames import Names, Naming
from netlab.protocols.pgsteps import ENDS, MAY_PRECEDE, SIMPLE, STARTUP, Group, Step

_MOST_STEPS = 10_000  # messages that wait for their answer
_CALL, _SYNC = sql.Statement("CALL"), sql.Statement("SYNC")
_WITHOUT_EXECUTE = {b"P": "PREPARE", b"D": "DESCRIBE", b"B": "BIND", b"C": "CLOSE"}
_SYNTAX_ERROR = "42601"
_ABORTED = "pipeline_aborted"  # not executed, because what came before it in the pipeline failed


class Pipeline:
    """What waits for its answer on one connection, in the order in which it was asked."""

    def __init__(self, masks: Masking) -> None:
        self._masks = masks
        self._over: list[Exchange] = []
        self._version: str | None = None
        self._steps: deque[Step] = deque()
        self._group: Group | None = None
        self._is_skipping = False  # the server discards what comes before the next Sync
        # An error that came while nothing waited: it closes the connection.
        self._parting: Message | None = None
        self._names = Names()

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits."""
        return not self._steps and self._group is None

    @property
    def is_alone(self) -> bool:
        """Whether one statement waits, whose answer has begun, and nothing behind it but its Sync."""
        kinds = b"".join(step.kind for step in self._steps)
        is_begun = kinds in {b"Q", b"E", b"ES"} and self._steps[0].exchange.answered_ns is not None
        return is_begun and self._group is None and self._steps[0].exchange.error is None

    @property
    def is_single(self) -> bool:
        """Whether what is answered next is surely one statement."""
        return bool(self._steps) and self._steps[0].is_single

    @property
    def is_copying(self) -> bool:
        """Whether the server has asked for the data of a COPY."""
        return bool(self._steps) and self._steps[0].is_copied_in

    def pending(self) -> list[Exchange]:
        """Return what is not answered yet, as far as it was asked."""
        waiting = {id(step.exchange): step.exchange for step in self._steps if step.kind != b"S"}
        return list(waiting.values())

    def taken(self) -> list[Exchange]:
        """Return what is over since the last call."""
        over, self._over = self._over, []
        return over

    def give_up(self, outcome: Outcome, at_ns: int | None = None, *, is_gap: bool = False) -> None:
        """End what waits without an answer, the connection being over (since *at_ns*) or lost.

        Behind a gap (*is_gap*) it is sure whose answer had begun, and when.
        """
        if outcome is Outcome.UNANSWERED:
            self.pass_completed()
            self._end_last(at_ns)
        for exchange in self.pending():
            exchange.outcome = outcome
            if self._parting and outcome is Outcome.UNANSWERED:
                exchange.status, exchange.error = messages.failure(self._parting)
            over = exchange.unproved() if outcome is Outcome.MISSED else exchange
            over.answered_ns = exchange.answered_ns if is_gap else over.answered_ns
            self._over.append(over)
        self._steps.clear()
        self._group = None

    def _end_last(self, at_ns: int | None) -> None:
        """End what the end of the connection answers, if that is next."""
        last = self._steps[0].exchange if self._steps else None
        if last and last.error:  # FATAL: no ReadyForQuery comes behind it
            self._steps.popleft()
            self._end(last, last.status, last.error, last.ended_ns)
        elif last and last.operation == "CANCEL":  # to which the server says nothing, whatever comes of it
            self._steps.popleft()
            self._end(last, None, None, at_ns)

    def forget(self) -> None:
        """Begin anew behind a gap: which names there are is not known."""
        self._is_skipping = False
        self._names.forget()

    def open(self, startup: bytes, begun_ns: int) -> None:
        """Expect the answer to a startup message, or to a request to cancel."""
        code = int.from_bytes(startup[4:8], "big")
        exchange = Exchange("postgres", begun_ns, operation="CANCEL", request_bytes=len(startup))
        if code != messages.CANCEL:
            self._version = f"3.{code & 0xFFFF}"
            database = messages.database(startup)
            exchange.operation, exchange.resource = "CONNECT", self._masks.names(filter(None, [database]))
        self._steps.append(Step(STARTUP, exchange))

    # What the client asks

    def ask(self, message: Message) -> None:
        """Take note of what the client says."""
        kind = message.header[:1]
        if kind in SIMPLE:
            self._end_group()
            asked = self._names.query(message.body) if kind == b"Q" else Naming(statement=_CALL)
            self._expect([(kind, asked)], self._exchange(message.begun_ns, message.size, asked.statement))
            self._steps[-1].is_single = messages.is_single(message.body)
        elif kind in _WITHOUT_EXECUTE or kind == b"E":
            self._extend(kind, message)
        elif kind in {b"S", b"H"}:
            self._end_group()
            if kind == b"S":
                self._is_skipping = False
                self._names.sync()
                self._expect([(kind, Naming())], self._exchange(message.begun_ns, message.size, _SYNC))
        elif kind in {b"d", b"c", b"f"} and self._steps:  # the data of a COPY, and their end
            self._steps[0].exchange.request_bytes = (
                self._steps[0].exchange.request_bytes or 0
            ) + message.size

    def _extend(self, kind: bytes, message: Message) -> None:
        group = self._group = self._group or Group(message.begun_ns)
        group.size += message.size
        naming, statement = self._names.ask(kind, message.body)
        group.said.append((kind, naming))
        if kind in {b"P", b"B", b"E"}:
            group.statement = statement
        if kind == b"E":
            self._end_group()
        if len(group.said) > _MOST_STEPS:
            raise LostError

    def _end_group(self) -> None:
        group, self._group = self._group, None
        if group is None:
            return
        said = group.statement
        if group.said[-1][0] != b"E":
            said = sql.Statement(_WITHOUT_EXECUTE[group.said[0][0]], said.tables)
        self._expect(group.said, self._exchange(group.begun_ns, group.size, said))
        for message in group.answers:
            self.answer(message)

    def _exchange(self, begun_ns: int, size: int | None, said: sql.Statement) -> Exchange:
        return Exchange(
            "postgres",
            begun_ns,
            operation=said.operation,
            resource=self._masks.names(said.tables),
            request_bytes=size,
            version=self._version,
        )

    def _expect(self, said: list[tuple[bytes, Naming]], exchange: Exchange) -> None:
        if self._is_skipping:
            self._end(exchange, None, _ABORTED, exchange.requested_ns)
            return
        if len(self._steps) + len(said) > _MOST_STEPS:
            raise LostError
        is_executed, is_next = said[-1][0] == b"E", not self._steps
        self._steps.extend(Step(kind, exchange, naming, is_executed) for kind, naming in said)
        if is_next:
            self._come_next()

    def _come_next(self) -> None:
        """Name what is answered next by what the names stand for, now that all before it is answered."""
        if not self._steps:
            return
        step = self._steps[0]
        if step.kind in {b"B", b"E"}:
            step.naming.statement = said = self._names.meant(step.kind, step.naming)
            step.exchange.resource = self._masks.names(said.tables)
            if step.is_executed:
                step.exchange.operation = said.operation

    # What the server answers

    def answer(self, message: Message) -> None:
        """Take note of what the server says; to what nobody asked it is nothing."""
        kind = message.header[:1]
        if kind == b"A":  # a notification is no answer
            return
        if not self._steps:
            self._keep(message)
            return
        step = self._steps[0]
        self._count(step, message)
        if kind == b"E":
            self._fail(step, message)
        elif kind in ENDS[step.kind]:
            self._names.done(step.kind, step.naming)
            if kind == b"C":
                step.exchange.records = self._completed(step, message)
            elif kind == b"Z":
                self._names.ready(message.body)
            self._pop(message)
        elif kind in MAY_PRECEDE.get(step.kind, ()):
            self._go_on(step, kind, message)
        elif kind not in messages.UNASKED:
            raise LostError
        if self.is_idle:
            self._names.settle()

    def _keep(self, message: Message) -> None:
        """Keep what may answer what is not said in whole yet, or why the server closes the connection."""
        kind = message.header[:1]
        if self._group and kind not in messages.UNASKED:
            self._group.answers.append(message)
            if len(self._group.answers) > _MOST_STEPS:
                raise LostError
        elif kind == b"E":
            self._parting = message

    def _count(self, step: Step, message: Message) -> None:
        if message.header[:1] not in {b"Z", *messages.UNASKED}:
            self.pass_completed()
        exchange = step.exchange
        if exchange.answered_ns is None:
            exchange.answered_ns = message.begun_ns
        exchange.ended_ns = message.ended_ns
        exchange.response_bytes = (exchange.response_bytes or 0) + message.size

    def _go_on(self, step: Step, kind: bytes, message: Message) -> None:
        if kind == b"C":
            step.exchange.records = self._completed(step, message)
            step.is_completed = True
        elif kind == b"D" and step.kind == b"E":
            step.exchange.records = (step.exchange.records or 0) + 1
        elif kind == b"G":
            step.is_copied_in = True
            if len(self._steps) > 1 and self._steps[1].kind == b"S":
                del self._steps[1]  # the server ignores a Sync while data are copied in
        elif kind == b"v" and len(message.body) == 4:  # the newest that the server knows
            self._version = f"3.{int.from_bytes(message.body, 'big') & 0xFFFF}"

    def pass_completed(self) -> None:
        """Go on, if a statement of a query is completed, with the one behind it, which others answer."""
        step = self._steps[0] if self._steps else None
        if not step or not step.is_completed or step.is_single:  # a base backup completes its parts, too
            return
        self._end(step.exchange, "OK", None, step.exchange.ended_ns)
        said = step.naming.statement = step.naming.others.pop(0) if step.naming.others else sql.Statement()
        step.exchange = self._exchange(step.exchange.requested_ns, None, said)
        step.is_completed = step.is_copied_in = False

    def _completed(self, step: Step, message: Message) -> int | None:
        """Take note of a statement's end, and return on how many rows it was."""
        command, rows = messages.completed(message)
        step.exchange.operation = step.exchange.operation or command
        self._names.completed(message.body, step.naming.statement)
        return rows

    def _fail(self, step: Step, message: Message) -> None:
        exchange = step.exchange
        self._names.failed(step.kind, step.naming)
        exchange.status, exchange.error = messages.failure(message)
        if exchange.status == _SYNTAX_ERROR and exchange.request_bytes and step.naming.others:
            # All statements of a query are parsed before the first is executed.
            exchange.operation = exchange.resource = None
        if step.kind in SIMPLE or step.kind == b"S":
            return  # ReadyForQuery ends it
        self._steps.popleft()
        self._end(exchange, exchange.status, exchange.error, message.ended_ns)
        while self._steps and self._steps[0].kind != b"S":
            other = self._steps.popleft().exchange
            if other.outcome is Outcome.PENDING:
                self._end(other, None, _ABORTED, message.ended_ns)
        self._is_skipping = not self._steps and step.kind != STARTUP
        self._come_next()

    def _pop(self, message: Message) -> None:
        step = self._steps.popleft()
        self._come_next()
        if self._steps and self._steps[0].exchange is step.exchange:
            return
        if step.kind != b"S" or step.exchange.error:
            self._end(step.exchange, step.exchange.status or "OK", step.exchange.error, message.ended_ns)

    def _end(self, exchange: Exchange, status: str | None, error: str | None, at_ns: int | None) -> None:
        exchange.outcome, exchange.status, exchange.error = Outcome.ANSWERED, status, error
        exchange.ended_ns, exchange.version = at_ns, self._version
        if exchange.answered_ns is None:  # by the failure of another
            exchange.answered_ns = at_ns
        self._over.append(exchange)
