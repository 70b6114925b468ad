"""The payload that the programs hand up, given connection by connection to who understands it."""

from __future__ import annotations

import socket
import time
from collections import OrderedDict
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from netlab.protocols.dialog import Exchange, Outcome
from netlab.protocols.ordered import Segment
from netlab.protocols.streams import Stream
from netlab.tracer.account import Account
from netlab.tracer.budgets import HEADS, IGNORE, Budgets
from netlab.tracer.exchanges import Kept, Request
from netlab.tracer.layout import PIECE, Direction
from netlab.tracer.packets import Packet, Packets, Pieces, conversation
from netlab.tracer.passages import Passage
from netlab.tracer.readers import Readers

_MOST_UNOWNED = 256  # packets that came before their connection had a socket: it has one at once, if ever
_CUT_NS = 1_000_000_000  # the pieces of a packet are sent within microseconds
_AT_ONCE = 1 << 12  # pieces: the programs are told what is not needed before the next are sorted
_TUPLE = ("netns", "local_address", "remote_address", "local_port", "remote_port")


@dataclass(slots=True)
class Talk:
    """One connection that speaks."""

    cookie: int
    ends: bytes  # a CONVERSATION, as the programs had it last
    stream: Stream
    seen: str
    told_ns: int = 0  # when the programs were told that it goes on
    since_ns: int = 0  # when the first of its requests was read
    passage: Passage = field(default_factory=Passage)

    def request(self, exchange: Exchange) -> Request:
        """Return an exchange of this connection as its own."""
        return Request(exchange, self.cookie, self.ends, bool(self.stream.client_is_local), self.seen)


class Conversations:
    """Everything that is being said, on at most *max_open* connections.

    Parameters
    ----------
    readers
        Find who reads a connection.
    kept
        Where requests go that are over.
    budgets
        Is told how much more of a connection is to be handed up.
    seen
        Where: on the wire, or in tls.
    """

    def __init__(
        self,
        readers: Readers,
        kept: Kept,
        budgets: Budgets,
        *,
        max_open: int,
        seen: str = "wire",
    ) -> None:
        self._seen = seen
        self._readers, self._kept, self._budgets, self._max_open = readers, kept, budgets, max_open
        self._talks: OrderedDict[int, Talk] = OrderedDict()
        self._ignored: OrderedDict[int, int] = OrderedDict()  # when the programs were told so, by cookie
        self._ended: OrderedDict[int, bytes] = OrderedDict()  # tuples of those that have said all, by cookie
        self._directions: dict[int, int] = {}  # of connections that were open before, by cookie
        self._account = Account()
        self._unowned: OrderedDict[bytes, Segment] = OrderedDict()
        self._cut = np.empty(0, PIECE)  # of packets whose other pieces are in the next block

    def expect(self, cookies: npt.NDArray[np.uint64], directions: npt.NDArray[np.uint8]) -> None:
        """Tell who opened the connections that were open before."""
        self._directions = dict(zip(cookies.tolist(), directions.tolist(), strict=True))

    @property
    def is_cut(self) -> bool:
        """Whether a packet waits for its other pieces."""
        return len(self._cut) > 0

    def take(self, pieces: Pieces, *, final: bool = False) -> None:
        """Read a block of the ring; a packet that it cuts waits for the next one, unless it is *final*."""
        for start in range(0, len(pieces) or 1, _AT_ONCE):
            end = start + _AT_ONCE
            self._take(pieces[start:end], final=final and end >= len(pieces))

    def _take(self, pieces: Pieces, *, final: bool) -> None:
        together = Packets.of(np.concatenate([self._cut, pieces]) if len(self._cut) else pieces)
        take = together.whole | self._given_up(together) | final
        self._cut = together.pieces[np.repeat(~take, together.counts)]
        for packet in together.packets(take):
            if packet.protocol == socket.IPPROTO_TCP:
                self._hear(packet)
            elif self._readers.lookups:
                self._readers.lookups.datagram(packet)

    def _given_up(self, together: Packets) -> npt.NDArray[np.bool_]:
        """Tell which packets will not become whole: the ring was full. Calls of libraries may take long."""
        at_ns = together.pieces["at_ns"][together.starts]
        late: npt.NDArray[np.bool_] = at_ns + _CUT_NS < at_ns.max(initial=0)
        return late & (self._seen == "wire")

    def _hear(self, packet: Packet) -> None:
        talk = self._talk_of(packet) or self._meet(packet)
        if not talk:
            return
        self._talks.move_to_end(packet.cookie)
        if packet.budget < HEADS:  # else they may be blank
            talk.ends = packet.ends
        stream = talk.stream
        if stream.client_is_local is None:
            stream.client_is_local = self._opened_here(packet.cookie, conversation(talk.ends))
        over = stream.take(packet.segment, local=packet.local)
        if packet.reset:
            over = [*over, *stream.end(packet.segment.at_ns)]
        if over:
            self._keep(talk, over)
        # Whether a dialog is done, it is asked where that may be new.
        is_unread = stream.is_ignored or (bool(over or packet.budget < HEADS) and stream.is_done)
        if is_unread:
            self._ignore(packet)
        elif packet.budget < HEADS and stream.dialog is not None:
            talk.told_ns = self._say(packet, self._budgets.going_on(stream.dialog), told_ns=talk.told_ns)
        talk.passage.follow(packet, stream, self._budgets)
        if stream.is_over or is_unread:
            self._forget(self._talks.pop(packet.cookie))
            if stream.is_over and not packet.reset:  # which TCP may yet refuse
                self._end(talk)

    def _talk_of(self, packet: Packet) -> Talk | None:
        """Return the connection that *packet* goes on with; none if its socket has another one now."""
        talk = self._talks.get(packet.cookie)
        if not talk or packet.budget >= HEADS:  # then its ends may be blank
            return talk
        if _tuple(packet.conversation()) == _tuple(conversation(talk.ends)):
            return talk
        self.give_up(packet.cookie)
        return None

    def _meet(self, first: Packet) -> Talk | None:
        """Begin a connection; None: it has no socket yet, nobody reads it, or all is said or forgotten."""
        if not first.cookie:
            self._wait_for_socket(first)
            return None
        is_another = first.segment.fresh and len(first.segment.data) > 0  # the socket has another connection
        if is_another and first.segment.at_ns > self._ignored.get(first.cookie, first.segment.at_ns):
            del self._ignored[first.cookie]
        if first.cookie in self._ignored:
            self._ignored[first.cookie] = self._say(first, IGNORE, told_ns=self._ignored[first.cookie])
            return None
        said = first.conversation()
        if first.cookie in self._ended:
            if not is_another and (not said["family"] or self._ended[first.cookie] == _tuple(said)):
                return None
            del self._ended[first.cookie]
        ends = said if said["family"] else self._budgets.ends(first.cookie)
        if ends is None:
            return None
        talk = self._begin(first.cookie, ends)
        self._adopt(talk, first)
        return talk

    def _end(self, talk: Talk) -> None:
        """Take what a connection says from now on for what it has said before, sent again."""
        self._ended[talk.cookie] = _tuple(conversation(talk.ends))
        if len(self._ended) > self._max_open:
            self._ended.popitem(last=False)

    def _wait_for_socket(self, packet: Packet) -> None:
        """Keep what came with the end of a handshake, until its connection says or gets something more."""
        self._unowned[_tuple(packet.conversation())] = packet.segment
        if len(self._unowned) > _MOST_UNOWNED:
            self._unowned.popitem(last=False)

    def _adopt(self, talk: Talk, first: Packet) -> None:
        """Give a connection what came before it had a socket, if that is what *first* comes after."""
        early = self._unowned.pop(_tuple(conversation(talk.ends)), None) if self._unowned else None
        said = first.segment
        incoming, outgoing, new = said.settled, said.other_settled, said.other_fresh
        if first.local:
            incoming, outgoing, new = said.other_settled, said.settled, said.fresh
        if early and (early.sequence + early.size) % (1 << 32) == incoming:
            early = early._replace(other_settled=outgoing, other_fresh=new)
            self._keep(talk, talk.stream.take(early, local=False))

    def _ignore(self, packet: Packet) -> None:
        self._ignored[packet.cookie] = self._say(packet, IGNORE, told_ns=0)
        if len(self._ignored) > self._max_open:
            self._ignored.popitem(last=False)

    def _say(self, packet: Packet, budget: int, *, told_ns: int) -> int:
        """Tell the programs, if they have not heard: they may write at the same moment. Return when."""
        if packet.budget == budget or packet.segment.at_ns <= told_ns:
            return told_ns
        self._budgets.set(packet.cookie, budget)
        return time.monotonic_ns()

    def _begin(self, cookie: int, ends: np.void) -> Talk:
        client_is_local = self._opened_here(cookie, ends)
        choose = self._readers.chooser(cookie, ends, client_is_local=client_is_local)
        talk = Talk(cookie, ends.tobytes(), Stream(choose, client_is_local=client_is_local), self._seen)
        self._talks[cookie] = talk
        if len(self._talks) > self._max_open:
            self._give_up(self._talks.popitem(last=False)[1])
            self._account.evicted += 1
        return talk

    def _opened_here(self, cookie: int, ends: np.void) -> bool | None:
        direction = int(ends["direction"]) or self._directions.get(cookie, Direction.UNKNOWN)
        if direction == Direction.UNKNOWN:
            return self._readers.client_is_local(ends)
        return direction == Direction.OUTGOING

    def closed(self, attempt: np.void) -> None:
        """Take what a connection, whose socket is closed by now, was asked for unanswered."""
        talk = self._talks.get(int(attempt["cookie"]))
        if talk and _tuple(conversation(talk.ends)) == _tuple(attempt):
            sizes = {True: int(attempt["bytes_sent"]), False: int(attempt["bytes_received"])}
            self._keep(talk, talk.stream.close(sizes, int(attempt["closed_ns"])))
            self._forget(self._talks.pop(talk.cookie))
            self._end(talk)

    def give_up(self, cookie: int) -> None:
        """Wait for nothing more of a connection; what it says all the same is another conversation."""
        talk = self._talks.pop(cookie, None)
        if talk:
            self._give_up(talk)

    def _give_up(self, talk: Talk) -> None:
        self._keep(talk, [replace(one.exchange, outcome=Outcome.MISSED) for one in self._pending(talk)])
        self._forget(talk)

    def _pending(self, talk: Talk) -> list[Request]:
        pending = talk.stream.dialog.pending() if talk.stream.dialog else []
        return [one for one in map(talk.request, pending) if self._kept.wants(one)]

    def _keep(self, talk: Talk, exchanges: list[Exchange]) -> None:
        if exchanges and not talk.since_ns:
            talk.since_ns = min(one.requested_ns for one in exchanges)
        for one in exchanges:
            self._readers.stacks.hear(talk.cookie, one)
            self._kept.keep(talk.request(one))

    def _forget(self, talk: Talk) -> None:
        self._account.add(talk.stream, is_tls=self._is_tls(talk), since_ns=talk.since_ns)

    def _is_tls(self, talk: Talk) -> bool:
        return talk.cookie in self._readers.stacks.over_tls()

    def requests(self) -> list[Request]:
        """Return the exchanges that are over and kept, in that order, then those that are not over."""
        pending = [one for talk in self._talks.values() for one in self._pending(talk)]
        return [*self._kept.latest(), *(one._replace(exchange=replace(one.exchange)) for one in pending)]

    def account(self) -> Account:
        """Return what was not understood by now."""
        now = replace(self._account)
        for talk in self._talks.values():
            now.add(talk.stream, is_tls=self._is_tls(talk), since_ns=talk.since_ns)
        return now


def _tuple(ends: np.void) -> bytes:
    return b"".join(ends[name].tobytes() for name in _TUPLE)
