"""Redis: commands and replies in RESP2 and RESP3, its serialization protocol."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from netlab.protocols import masking
from netlab.protocols.dialog import Exchange, Outcome, Side
from netlab.protocols.masking import Masking
from netlab.protocols.proof import Proof
from netlab.protocols.rediscommands import named
from netlab.protocols.resp import GarbledError, Voice, begins_command, begins_reply

MOST_WAITING = 10_000  # commands of a pipeline

_SUBSCRIBING = {"SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE"}
_PUSHED = {name.lower().encode() for name in _SUBSCRIBING} | {b"message", b"pmessage", b"smessage"}
_OTHERWISE = {"MONITOR": "monitor", "SYNC": "replication", "PSYNC": "replication"}


@dataclass(slots=True)
class _Command:
    """A command that has no reply yet."""

    exchange: Exchange
    replies: int = 1  # that are still to come: one for each channel
    speaks: str | None = None  # the version that is spoken if all goes well


class Redis:
    """Reads a conversation with a Redis server.

    Parameters
    ----------
    whole
        Whether the first bytes are the connection's first. Else, and behind a gap, the first commands that a
        packet begins with are answered if they got as many replies as they were, when the client goes on.
        Else they are missed: the replies may be those of commands before.
    masks
        What is kept of keys.
    """

    __slots__ = (
        "_client",
        "_is_subscribed",
        "_masks",
        "_over",
        "_parting",
        "_proof",
        "_server",
        "_version",
        "_waiting",
        "unread_bytes",
        "upgraded",
    )

    def __init__(self, *, whole: bool = True, masks: Masking = masking.STANDARD) -> None:
        self.unread_bytes = 0
        self.upgraded: str | None = None  # what is said from now on: monitor, replication, silence
        self._masks = masks
        self._client, self._server = Voice(Side.CLIENT, not whole), Voice(Side.SERVER, not whole)
        self._waiting: deque[_Command] = deque()
        self._over: list[Exchange] = []
        self._version = "RESP2" if whole else None
        self._is_subscribed = False
        self._parting: str | None = None  # an error to nobody, which the server says before it hangs up
        self._proof = Proof(is_sure=whole)  # that the next reply is that of the first command that waits

    def said(self, side: Side, data: bytes, at_ns: int) -> list[Exchange]:
        """Read the next bytes of *side*."""
        if self.upgraded is not None:
            return []
        voice = self._server if side else self._client
        if voice.held:
            data, voice.held = voice.held + data, b""
        elif not voice.size:
            voice.began_ns = at_ns
            if self._proof.waits and not side and not self._waiting:
                self._over += self._proof.prove()
        if voice.is_lost and not self._begins(voice, data):
            self._astray(voice, data, 0)
            return self._taken()
        place = 0
        try:
            while place < len(data) and self.upgraded is None:
                behind = voice.step(data, place)
                if behind == place:
                    voice.held = data[place:]
                    break
                voice.size += behind - place
                place = behind
                if voice.is_over:
                    self._message_over(voice, at_ns)
        except GarbledError:
            self._astray(voice, data, place)
        return self._taken()

    def missed(self, side: Side, size: int | None, at_ns: int) -> list[Exchange]:
        """Go on behind *size* bytes of *side* that were not seen; None: nobody knows how many."""
        voice = self._server if side else self._client
        if self.upgraded is not None:
            return []
        if size is not None and size <= voice.skip:
            voice.skip -= size
            voice.size += size
            try:
                if voice.is_over:
                    self._message_over(voice, at_ns)
            except GarbledError:
                self._lose(voice)
        else:
            self._lose(voice)
        return self._taken()

    def ended(self, at_ns: int) -> list[Exchange]:
        """Take note that the connection is closed: replies ended with their last byte."""
        del at_ns
        if not self._waiting:
            self._over += self._proof.prove()
        for command in self._waiting if self._parting else ():
            command.exchange.status = command.exchange.error = self._parting
        is_sure = self._proof.is_sure or self._parting is not None
        self._give_up(Outcome.UNANSWERED if is_sure else Outcome.MISSED)
        self._lose(self._client)
        self._lose(self._server)
        return self._taken()

    def pending(self) -> list[Exchange]:
        """Return what is not answered yet."""
        return [*self._proof.held(), *(command.exchange for command in self._waiting)]

    def _taken(self) -> list[Exchange]:
        if not self._over:
            return []
        over, self._over = self._over, []
        return over

    def _begins(self, voice: Voice, data: bytes) -> bool:
        """Return whether a message begins with *data*, as far as a beginning can tell."""
        begins = bool(self._waiting) and begins_reply(data) if voice.side else begins_command(data)
        voice.is_lost = not begins
        return begins

    def _message_over(self, voice: Voice, at_ns: int) -> None:
        if voice.side:
            self._replied(voice, at_ns)
        elif voice.kept:
            self._asked(voice)
        voice.next_message(at_ns)

    def _asked(self, voice: Voice) -> None:
        """Take note of a command."""
        name, key = named(voice.kept)
        resource = None if key is None else self._masks.key(key)
        exchange = Exchange("redis", voice.began_ns, version=self._version, operation=name, resource=resource)
        exchange.request_bytes = voice.size
        command = _Command(exchange)
        if name in _SUBSCRIBING:
            command.replies = max(1, voice.arguments - 1)
        elif name == "HELLO" and voice.kept[1:2] in ([b"2"], [b"3"]):
            command.speaks = f"RESP{voice.kept[1].decode()}"
        elif name == "RESET":
            command.speaks = "RESP2"
        self._waiting.append(command)
        if len(self._waiting) > MOST_WAITING:
            self._lose(voice)
        elif name == "CLIENT REPLY" and voice.kept[2:3] and voice.kept[2].upper() != b"ON":
            self._leave("silence")

    def _replied(self, voice: Voice, at_ns: int) -> None:
        """Take note of a reply, or of what the server says unasked."""
        front = self._waiting[0] if self._waiting else None
        name = front.exchange.operation or "" if front else ""
        if self._is_unasked(voice, name):
            return
        self._parting = voice.error if front is None and self._proof.is_sure else None
        if front is None:
            self._over += self._proof.refute()
            return
        exchange = front.exchange
        if voice.began_ns < exchange.requested_ns:  # the reply to another
            raise GarbledError
        exchange.answered_ns = exchange.answered_ns or voice.began_ns
        exchange.ended_ns = at_ns
        exchange.response_bytes = (exchange.response_bytes or 0) + voice.size
        exchange.status, exchange.error = voice.error or "OK", voice.error
        exchange.outcome = Outcome.ANSWERED
        front.replies -= 1
        if front.replies and not voice.error:
            return
        self._waiting.popleft()
        if self._proof.is_sure and not voice.error:
            self._version = front.speaks or self._version
        if name == "RESET":
            self._is_subscribed = False
        self._over += self._proof.of([exchange])
        if name in _OTHERWISE and not voice.error:
            self._leave(_OTHERWISE[name])

    def _is_unasked(self, voice: Voice, front: str) -> bool:
        """Return whether the server says that unasked; in RESP2 it does so in arrays, to who subscribed."""
        told = voice.kept[0] if voice.kept else b""
        listens = self._version != "RESP3" and (self._is_subscribed or front in _SUBSCRIBING)
        if voice.kind == b">":
            self._version = "RESP3"
        elif not (listens and told in _PUSHED):
            return False
        if told.endswith(b"subscribe"):
            self._is_subscribed = voice.count != b"0"  # channels that are left
        return told != front.lower().encode()

    def _leave(self, upgraded: str) -> None:
        """Stop reading: from now on replies are not those of commands."""
        self.upgraded = upgraded
        self._over += self._proof.refute()
        self._give_up(Outcome.MISSED)

    def _give_up(self, outcome: Outcome) -> None:
        for command in self._waiting:
            command.exchange.outcome = outcome
            is_missed = outcome is Outcome.MISSED
            self._over.append(command.exchange.unproved() if is_missed else command.exchange)
        self._waiting.clear()

    def _astray(self, voice: Voice, data: bytes, place: int) -> None:
        """Give up what *data* says from *place* on."""
        self.unread_bytes += len(data) - place
        self._lose(voice)

    def _lose(self, voice: Voice) -> None:
        """Know no longer where a side's messages begin, nor which reply is whose."""
        self.unread_bytes += len(voice.held)
        started = Voice(voice.side, is_lost=True)
        if voice.side:
            self._server = started
        else:
            self._client = started
        self._parting = None
        self._over += self._proof.refute()
        self._give_up(Outcome.MISSED)
