"""PostgreSQL's prepared statements and portals: what their names stand for on one connection."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from netlab.protocols import pgmessages as messages, sql

_MOST_NAMES = 1000  # prepared statements that are remembered, and portals
_STATEMENT, _PORTAL = b"S", b"P"  # as Close calls them
_UNNAMED = b""
_UNKNOWN = sql.Statement()
_FORGET_STATEMENTS = {b"PREPARE\0", b"DEALLOCATE\0", b"DEALLOCATE ALL\0", b"DISCARD ALL\0"}  # said in SQL
_FORGET_PORTALS = {
    b"DECLARE CURSOR\0",
    b"CLOSE CURSOR\0",
    b"CLOSE CURSOR ALL\0",
    b"ROLLBACK\0",
    b"DISCARD ALL\0",
}


@dataclass(slots=True)
class Naming:
    """What a message of the client names. None: that was not seen."""

    name: bytes | None = None  # the statement of a Parse, the portal of a Bind or Execute; of a Close either
    kind: bytes = _STATEMENT  # of that
    source: bytes | None = None  # the statement that is bound
    statement: sql.Statement = _UNKNOWN  # that is prepared or asked
    others: list[sql.Statement] = field(default_factory=list)  # that come behind it in the same query


class Names:
    """What names stand for to the server: what the client asks is so once the server has said that it did it.

    Until then it is expected within the same part of the pipeline, up to a Sync, which fails as a whole; of a
    name asked in a part before nothing is expected, as that part may have failed.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, OrderedDict[bytes, sql.Statement]] = {}
        self._asked: OrderedDict[tuple[bytes, bytes], tuple[int, sql.Statement]] = OrderedDict()
        self._part = 0
        self.forget()

    def forget(self) -> None:
        """Know nothing."""
        self._known = {_STATEMENT: OrderedDict(), _PORTAL: OrderedDict()}
        self._asked.clear()

    # What the client asks

    def ask(self, kind: bytes, body: bytes) -> tuple[Naming, sql.Statement]:
        """Return what a message of that kind names, and the statement that this is if all goes well."""
        if kind == b"P":
            name, statement = messages.parsed(body) or (None, _UNKNOWN)
            naming = Naming(name, statement=statement)
        elif kind == b"B":
            name, source = messages.bound(body) or (None, None)
            naming, statement = Naming(name, _PORTAL, source), self._expected(_STATEMENT, source)
        elif kind == b"E":
            name = messages.executed(body)
            return Naming(name, _PORTAL), self._expected(_PORTAL, name)
        elif kind == b"C":
            naming, statement = Naming(messages.closed(body), body[:1]), _UNKNOWN
        else:
            return Naming(), _UNKNOWN
        self._expect(naming.kind, naming.name, statement)
        return naming, statement

    def query(self, body: bytes) -> Naming:
        """Return what a simple query asks, which is a part by itself and ends what has no name."""
        self.sync()
        for kind in self._known:
            self._expect(kind, _UNNAMED, _UNKNOWN)
        self.sync()
        first, *others = [*messages.query(body)] or [_UNKNOWN]
        return Naming(statement=first, others=others)

    def sync(self) -> None:
        """Begin another part of the pipeline."""
        self._part += 1

    def settle(self) -> None:
        """Take note that everything is answered."""
        self._asked.clear()

    def _expect(self, kind: bytes, name: bytes | None, statement: sql.Statement) -> None:
        if name is None:
            self._doubt(kind)
            return
        self._asked[kind, name] = self._part, statement
        if len(self._asked) > _MOST_NAMES:
            self._asked.popitem(last=False)

    def _expected(self, kind: bytes, name: bytes | None) -> sql.Statement:
        if name is None:
            return _UNKNOWN
        asked = self._asked.get((kind, name))
        if asked is None:
            return self._known[kind].get(name, _UNKNOWN)
        return asked[1] if asked[0] == self._part else _UNKNOWN

    # What the server answers

    def meant(self, kind: bytes, naming: Naming) -> sql.Statement:
        """Return the statement of a Bind or an Execute when all before it is answered: it is sure then."""
        if kind == b"B" and naming.source is not None:
            return self._known[_STATEMENT].get(naming.source, _UNKNOWN)
        if kind == b"E" and naming.name is not None:
            return self._known[_PORTAL].get(naming.name, _UNKNOWN)
        return naming.statement

    def done(self, kind: bytes, naming: Naming) -> None:
        """Take note that the server has done what a message asked."""
        if kind == b"Q":
            for known in self._known.values():
                known.pop(_UNNAMED, None)
        elif kind in {b"P", b"B", b"C"}:
            if naming.name is None:
                self._doubt(naming.kind)
            elif kind == b"C":
                self._known[naming.kind].pop(naming.name, None)
            else:
                self._remember(naming.kind, naming.name, self.meant(kind, naming))

    def failed(self, kind: bytes, naming: Naming) -> None:
        """Take note that the server has not done it: what had that name still has it, if it is a name."""
        if kind in {b"P", b"B"} and not naming.name:  # the unnamed one goes before the next is looked at
            self._known[naming.kind].pop(_UNNAMED, None)

    def completed(self, tag: bytes, statement: sql.Statement) -> None:
        """Take note that a statement has ended, which may change names, too."""
        if tag == b"DEALLOCATE\0" and statement.deallocated:
            self._known[_STATEMENT].pop(statement.deallocated, None)
            return
        is_seen = tag.endswith(b"\0")
        if tag in _FORGET_STATEMENTS or not is_seen:
            self._known[_STATEMENT].clear()
        if tag in _FORGET_PORTALS or not is_seen:
            self._known[_PORTAL].clear()

    def ready(self, status: bytes) -> None:
        """Take note of ReadyForQuery: portals end with their transaction."""
        if status not in {b"T", b"E"}:
            self._known[_PORTAL].clear()

    def _doubt(self, kind: bytes) -> None:
        """Forget: one of them is another now, and nobody knows which."""
        for known in [self._known[kind]] if kind in self._known else self._known.values():
            known.clear()
        self._asked.clear()

    def _remember(self, kind: bytes, name: bytes, statement: sql.Statement) -> None:
        known = self._known[kind]
        known[name] = statement
        known.move_to_end(name)
        if len(known) > _MOST_NAMES:
            known.popitem(last=False)
