"""HTTP/2 (RFC 9113) and gRPC over it: headers are read, data is counted."""

from __future__ import annotations

from dataclasses import dataclass, field

from netlab.protocols import masking
from netlab.protocols.dialog import Exchange, Outcome, Side
from netlab.protocols.fields import LONGEST_BLOCK, Decoder, begins_answer
from netlab.protocols.h2frames import (
    END_HEADERS,
    END_STREAM,
    HEADER,
    PREFACE,
    Frame,
    Kind,
    block_of,
    error_name,
    frame_at,
    seem_to_begin,
)
from netlab.protocols.h2streams import Streams
from netlab.protocols.masking import Masking

_READ = {Kind.HEADERS, Kind.CONTINUATION, Kind.PUSH_PROMISE, Kind.RST_STREAM, Kind.GOAWAY}


@dataclass(slots=True)
class _Block:
    """Header fields that one or several frames in a row carry."""

    frame: Frame  # the first
    began_ns: int
    data: bytes = b""
    size: int = 0  # with framing


@dataclass(slots=True)
class _Voice:
    """What one side is saying."""

    side: Side
    is_lost: bool  # where frames begin is not known
    is_new: bool  # nothing was read yet, nor missed
    is_sure: bool  # no header fields were missed
    doubts: bool = False  # whether more than data was missed, the next header fields tell
    fields: Decoder = field(default_factory=Decoder)
    hoped: Decoder | None = None  # to go on with if the other side's doubt is nothing
    held: bytes = b""  # of a frame that is not whole yet
    began_ns: int = 0  # first byte of the frame
    passing: Frame | None = None  # whose payload is not read
    left: int = 0  # bytes of it
    block: _Block | None = None


class Http2:
    """Reads a conversation in HTTP/2.

    Parameters
    ----------
    whole
        Whether the first bytes are the connection's first. Else, and behind a gap, reading goes on where a
        packet begins with frames that fit each other, and header fields from before stay unknown.
    masks
        What is kept of paths.
    """

    __slots__ = (
        "_client",
        "_server",
        "_streams",
        "unknown_fields",
        "unread_bytes",
    )

    def __init__(self, *, whole: bool = True, masks: Masking = masking.STANDARD) -> None:
        self.unread_bytes = 0
        self.unknown_fields = 0  # header fields that name others which were not seen
        self._client, self._server = (_Voice(side, not whole, whole, whole) for side in Side)
        self._streams = Streams(masks)

    @classmethod
    def upgraded_by(cls, request: Exchange, masks: Masking) -> Http2:
        """Read what follows a request in HTTP/1 that changed to HTTP/2: the answer to it is on stream 1."""
        dialog = cls(whole=True, masks=masks)
        dialog._streams.adopt(request)
        return dialog

    @property
    def given_up(self) -> int:
        """Streams that made room for others."""
        return self._streams.given_up

    def said(self, side: Side, data: bytes, at_ns: int) -> list[Exchange]:
        """Read the next bytes of *side*."""
        voice = self._server if side else self._client
        if voice.held:
            data, voice.held = voice.held + data, b""
        elif voice.passing is None:
            voice.began_ns = at_ns
        place = self._beginning(voice, data) if voice.is_lost else 0
        while place < len(data):
            if voice.passing:
                place += self._pass(voice, len(data) - place, at_ns)
            else:
                behind = self._frame(voice, data, place, at_ns)
                if behind == place:
                    voice.held = data[place:]
                    break
                place = behind
            if voice.passing is None:
                voice.began_ns = at_ns
        return self._streams.taken()

    def missed(self, side: Side, size: int | None, at_ns: int) -> list[Exchange]:
        """Go on behind *size* bytes of *side* that were not seen; None: nobody knows how many."""
        voice = self._server if side else self._client
        voice.is_new = False
        if size is not None and voice.passing and size <= voice.left:
            self._pass(voice, size, at_ns)
        else:
            self._lose(voice)
        return self._streams.taken()

    def ended(self, at_ns: int) -> list[Exchange]:
        """Take note that the connection is closed: answers ended with their last byte."""
        del at_ns
        # A server that said something, but nothing in HTTP/2, has answered in its own way.
        speaks_other = self._server.is_new and (self._server.is_lost or self._server.held)
        is_missed = speaks_other or self._server.doubts
        self._streams.end(Outcome.MISSED if is_missed else Outcome.UNANSWERED)
        self._lose(self._client)
        self._lose(self._server)
        return self._streams.taken()

    def pending(self) -> list[Exchange]:
        """Return what is not over; what is being answered is there as such."""
        return self._streams.open()

    def _beginning(self, voice: _Voice, data: bytes) -> int:
        """Return where frames begin in a packet; its end if they do not."""
        place = len(PREFACE) if data.startswith(PREFACE) and not voice.side else 0
        if not seem_to_begin(data, place):
            place = self._streams.end_of(data) if voice.side else -1
            if place < 0 or not seem_to_begin(data, place):
                return self._astray(voice, data, 0)
            self.unread_bytes += place
        voice.is_lost = voice.is_new = False
        return place

    def _frame(self, voice: _Voice, data: bytes, place: int, at_ns: int) -> int:
        """Read the frame at *place* and return the place behind it; *place* if it is not whole yet."""
        rest = len(data) - place
        if not voice.side and data.startswith(PREFACE[:rest], place):
            return place + len(PREFACE) if rest >= len(PREFACE) else place
        if rest < HEADER:
            return place
        frame = frame_at(data, place)
        if frame is None or not _may_come(frame, voice.block) or _is_other(voice, frame):
            return self._astray(voice, data, place)
        voice.is_new = False
        if frame.kind not in _READ:
            if frame.kind == Kind.DATA:
                self._streams.count(voice.side, frame.stream, HEADER + frame.length)
            voice.passing, voice.left = frame, frame.length
            if not frame.length:
                self._pass(voice, 0, at_ns)
            return place + HEADER
        behind = place + HEADER + frame.length
        if behind > len(data):
            return place
        self._read(voice, frame, data[place + HEADER : behind], at_ns)
        return behind

    def _pass(self, voice: _Voice, available: int, at_ns: int) -> int:
        """Pass over what is left of a payload and return how much that was."""
        count = min(voice.left, available)
        voice.left -= count
        if not voice.left and voice.passing:
            frame, voice.passing = voice.passing, None
            if frame.kind == Kind.DATA and frame.flags & END_STREAM:
                self._streams.side_over(voice.side, frame.stream, at_ns)
        return count

    def _read(self, voice: _Voice, frame: Frame, payload: bytes, at_ns: int) -> None:
        if frame.kind == Kind.RST_STREAM:
            if voice.side:
                self._resolve(voice, 0, b"")
            self._streams.close(frame.stream, Outcome.UNANSWERED, error_name(payload))
        elif frame.kind == Kind.GOAWAY:
            last = int.from_bytes(payload[:4], "big") & 0x7FFFFFFF
            if voice.side:
                self._streams.go_away(last, error_name(payload[4:8]))
        else:
            self._gather(voice, frame, payload, at_ns)

    def _gather(self, voice: _Voice, frame: Frame, payload: bytes, at_ns: int) -> None:
        """Put header fields together and read them when they are whole."""
        part = block_of(frame, payload)
        if part is None:
            self.unread_bytes += len(payload)
            voice.fields.forget()
            voice.block = None
            return
        block = voice.block = voice.block or _Block(frame, voice.began_ns)
        block.data += part
        block.size += HEADER + len(payload)
        if frame.flags & END_HEADERS:
            voice.block = None
            self._headers(voice, block, at_ns)

    def _headers(self, voice: _Voice, block: _Block, at_ns: int) -> None:
        number = block.frame.stream
        self._resolve(voice, number, block.data)
        fields = voice.fields.decode(block.data)
        if voice.hoped:
            voice.hoped.decode(block.data)
        if fields is None:
            self.unread_bytes += len(block.data)
        if block.frame.kind == Kind.PUSH_PROMISE:  # what nobody asked for has no exchange
            return
        if fields is not None:
            self.unknown_fields += fields.unknown
            if not self._streams.told(voice.side, number, fields, block.began_ns):
                return
        self._streams.count(voice.side, number, block.size)
        if block.frame.flags & END_STREAM:
            self._streams.side_over(voice.side, number, at_ns)

    def _astray(self, voice: _Voice, data: bytes, place: int) -> int:
        """Give up what *data* says from *place* on."""
        self.unread_bytes += len(data) - place
        self._lose(voice)
        return len(data)

    def _lose(self, voice: _Voice) -> None:
        """Know no longer where frames begin, nor, unless it shows, what header fields name from before."""
        self.unread_bytes += len(voice.held)
        voice.held, voice.passing, voice.left, voice.block = b"", None, 0, None
        voice.is_lost = True
        voice.doubts = self._streams.missed(voice.side)
        if not voice.doubts:
            self._forget(voice)
        if not self._server.doubts:
            return
        if not self._client.is_sure:  # the server may have answered what was not seen
            self._resolve(self._server, 0, b"")
        elif self._client.doubts and not self._server.hoped:
            self._server.hoped, self._server.fields = self._server.fields, Decoder()

    def _resolve(self, voice: _Voice, number: int, block: bytes) -> None:
        """Find out by the next header fields, of stream *number*, whether others were missed."""
        if not voice.doubts:
            return
        voice.doubts = False
        if not self._streams.goes_on(voice.side, number, is_first=begins_answer(block)):
            self._forget(voice)
        if not voice.side and self._server.hoped:
            self._server.fields, self._server.hoped = self._server.hoped, None
            if not voice.is_sure:
                self._forget(self._server)

    def _forget(self, voice: _Voice) -> None:
        voice.is_sure, voice.hoped = False, None
        voice.fields.forget()


def _is_other(voice: _Voice, frame: Frame) -> bool:
    """Return whether a server begins otherwise than by its settings: no frame then, and no HTTP/2."""
    return voice.is_new and voice.side is Side.SERVER and frame.kind != Kind.SETTINGS  # RFC 9113 section 3.4


def _may_come(frame: Frame, block: _Block | None) -> bool:
    """Return whether a frame may come now: header fields are not interrupted, nor endless."""
    if frame.kind in _READ and frame.length + (len(block.data) if block else 0) > LONGEST_BLOCK:
        return False
    if block is None:
        return frame.kind != Kind.CONTINUATION
    return frame.kind == Kind.CONTINUATION and frame.stream == block.frame.stream
