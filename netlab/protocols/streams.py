"""Both sides of a connection, given in order to the dialog that understands them."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from netlab.protocols.dialog import Dialog, Exchange, Side, is_done, is_tunnel, passes_bodies
from netlab.protocols.ordered import Ordered, Said, Segment, cut
from netlab.protocols.proxying import header_bytes

MOST_UNCHOSEN = 1 << 14  # bytes of one side that are kept until it is clear what they are
MOST_PIECES = 1 << 10  # of both sides, likewise, and gaps between them
MOST_NOBODYS = 1 << 18  # bytes in the middle of a connection after which nobody looks for a message any more


def _spare(dialog: Dialog | None, side: Side) -> int:
    """Return how many of the next bytes of *side* are only counted."""
    return dialog.spare(side) if passes_bodies(dialog) else 0


def _missed(dialog: Dialog, side: Side, said: Said) -> list[Exchange]:
    """Return what is over with bytes that are missing, which was sometime before that showed."""
    over = dialog.missed(side, None if isinstance(said.data, bytes) else said.data, said.at_ns)
    for exchange in over:
        if exchange.ended_ns == said.at_ns and not said.was_cut:
            exchange.ended_ns = None
    return over


class Unchosen(Enum):
    """Why there is no dialog for a connection."""

    MORE = "more bytes may tell"
    NOTHING = "it speaks nothing that is asked for"


class Choose(Protocol):
    """Finds who reads a connection."""

    def __call__(self, client: bytes, server: bytes, *, whole: bool) -> Dialog | Unchosen:
        """Return the dialog for what both sides said, which is *whole* from the connection's first byte."""


class Stream:
    """Both sides of one connection, read by the dialog that *choose* finds for their first bytes."""

    def __init__(self, choose: Choose, *, client_is_local: bool | None) -> None:
        self.client_is_local = client_is_local  # None: nobody knows yet
        self.dialog: Dialog | None = None
        self.is_ignored = False
        self.is_over = False
        self.midway = False  # what was said first is not known
        self.missed_bytes = self.cut_bytes = self._nobodys_bytes = 0
        self._choose = choose
        self._outside: Dialog | None = None  # what was spoken before the tunnel
        self._sides = {local: Ordered() for local in (True, False)}
        self._early: list[tuple[bool, Said]] = []  # what was said until it is clear what it is
        self._heads = {True: b"", False: b""}
        self._has_hung_up = False  # the server: it has said its last word

    def take(self, segment: Segment, *, local: bool) -> list[Exchange]:
        """Return the exchanges that are over with *segment*, which the *local* end sent or got."""
        other, own = self._sides[not local], self._sides[local]
        if self.dialog is not None and other.has_reached(segment.other_settled) and own.goes_on(segment):
            over = self._tell(self.dialog, Said(segment.data, segment.at_ns), local=local)
            return over if segment.size == len(segment.data) else over + self._hear(cut(segment), local=local)
        # First what was lost of the other side: to a dialog, an answer comes after the gap with its request.
        exchanges = []
        for said in other.settle(segment.other_settled, segment.at_ns, fresh=segment.other_fresh):
            exchanges += self._hear(said, local=not local)
        for said in own.take(segment):
            exchanges += self._hear(said, local=local)
        if own.is_over and other.is_over:
            exchanges += self.end(segment.at_ns)
        elif own.is_over or other.is_over:
            exchanges += self._hung_up(segment.at_ns)
        return exchanges

    def _hung_up(self, at_ns: int) -> list[Exchange]:
        """Take for unanswered what a server has left so that says no more; clients may yet ask in vain."""
        server = None if self.client_is_local is None else self._sides[not self.client_is_local]
        if self._has_hung_up or self.dialog is None or server is None or not server.is_over:
            return []
        self._has_hung_up = True
        return self.dialog.ended(at_ns)

    def _hear(self, said: Said, *, local: bool) -> list[Exchange]:
        self._account(said, local=local)
        if self.dialog is not None:
            return self._tell(self.dialog, said, local=local)
        return [] if self.is_ignored else self._take_early(said, local=local)

    def close(self, sizes: dict[bool, int], at_ns: int) -> list[Exchange]:
        """Note that the connection is over, on which the local side and the other said so many bytes."""
        exchanges = []
        for local in (True, False) if self.client_is_local else (False, True):
            for said in [] if self.is_over else self._sides[local].close(sizes[local], at_ns):
                exchanges += self._hear(said, local=local)
        return exchanges + self.end(at_ns)

    def end(self, at_ns: int) -> list[Exchange]:
        """Note that the connection is over: nothing more is said."""
        if self.is_over:
            return []
        self.is_over = True
        return self.dialog.ended(at_ns) if self.dialog else []

    @property
    def is_tunnel(self) -> bool:
        """Whether what is said in a tunnel is read by nobody."""
        return self._outside is not None and self.dialog is None

    def spare(self, *, local: bool) -> tuple[int, int]:
        """Return the sequence number that a side goes on with, and how many bytes are only counted."""
        return self._sides[local].next_sequence, _spare(self.dialog, self._side(local=local))

    @property
    def is_done(self) -> bool:
        """Whether whoever reads it needs no more of it."""
        return is_done(self.dialog)

    @property
    def unread_bytes(self) -> int:
        """Bytes that were understood as nothing, by whoever read them."""
        return sum(one.unread_bytes for one in (self._outside, self.dialog) if one)

    @property
    def has_spoken(self) -> bool:
        """Whether any byte was seen."""
        return bool(self.dialog or self.is_ignored or self._nobodys_bytes or self._early)

    def _account(self, said: Said, *, local: bool) -> None:
        if isinstance(said.data, bytes):
            return
        if said.data is None:
            self.midway = True
        elif said.data > _spare(self.dialog, self._side(local=local)):
            if said.was_cut:
                self.cut_bytes += said.data
            else:
                self.missed_bytes += said.data

    def _take_early(self, said: Said, *, local: bool) -> list[Exchange]:
        """Look who understands what was said so far; behind a gap, anew."""
        self._early.append((local, said))
        if isinstance(said.data, bytes):
            self._heads[local] += said.data
        elif said.data is not None:
            self._heads[local], self.midway = b"", True
        answer = self._chosen()
        if isinstance(answer, Unchosen):
            self._go_without(answer)
            return []
        self.dialog = answer
        return [one for local, said in self._taken() for one in self._tell(answer, said, local=local)]

    def _taken(self) -> list[tuple[bool, Said]]:
        early, self._early, self._heads = self._early, [], {True: b"", False: b""}
        return early

    def _go_without(self, why: Unchosen) -> None:
        """Wait for more; in the middle of a connection, for another message than the one that goes on."""
        sizes = [len(head) for head in self._heads.values()]
        is_little = max(sizes) <= MOST_UNCHOSEN and len(self._early) <= MOST_PIECES
        if why is Unchosen.MORE and is_little:
            return
        self._taken()
        self._nobodys_bytes += sum(sizes)
        self.is_ignored = not self.midway or self._nobodys_bytes > MOST_NOBODYS

    def _chosen(self) -> Dialog | Unchosen:
        """Ask for a dialog; where nobody knows who the client is, for one and for the other."""
        ways = (True, False) if self.client_is_local is None else (self.client_is_local,)
        answers = []
        for way in ways:
            introduced = 0 if self.midway else header_bytes(self._heads[way])
            if introduced is None:
                return Unchosen.MORE
            client = self._heads[way][introduced:]
            if introduced and not client:
                return Unchosen.MORE
            answer = self._choose(client, self._heads[not way], whole=not self.midway)
            if not isinstance(answer, Unchosen):
                self.client_is_local = way
                self._leave_out(introduced, local=way)
                return answer
            answers.append(answer)
        return Unchosen.MORE if Unchosen.MORE in answers else Unchosen.NOTHING

    def _leave_out(self, size: int, *, local: bool) -> None:
        """Take the first *size* bytes of a side for none of its conversation."""
        early, self._early = self._early, []
        for side, said in early:
            data = said.data
            if side == local and isinstance(data, bytes):
                size, data = max(size - len(data), 0), data[size:]
            if data != b"":
                self._early.append((side, said._replace(data=data)))

    def _tell(self, dialog: Dialog, said: Said, *, local: bool) -> list[Exchange]:
        side = self._side(local=local)
        if not isinstance(said.data, bytes):
            return _missed(dialog, side, said)
        over = dialog.said(side, said.data, said.at_ns)
        if over and is_tunnel(dialog):
            self.dialog, self._outside = None, dialog
            rest = said.data[len(said.data) - dialog.left :]
            if rest:
                over += self._hear(said._replace(data=rest), local=local)
        return over

    def _side(self, *, local: bool) -> Side:
        return Side.CLIENT if local == self.client_is_local else Side.SERVER
