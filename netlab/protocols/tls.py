"""TLS's handshake (RFC 8446, RFC 5246) as far as it is in clear: one exchange, and what was agreed on."""

from __future__ import annotations

from dataclasses import dataclass

from netlab.protocols import hellos
from netlab.protocols.classify import inside_tls
from netlab.protocols.dialog import Exchange, Outcome, Side
from netlab.protocols.dns.resolvers import is_resolver
from netlab.protocols.framing import Framer, LostError, Message
from netlab.protocols.masking import STANDARD, Masking
from netlab.protocols.tlsnames import ALERTS, CIPHERS, VERSIONS

_CHANGE_CIPHER, _ALERT, _HANDSHAKE, _DATA = 20, 21, 22, 23  # records
_CLIENT_HELLO, _SERVER_HELLO, _CERTIFICATE = 1, 2, 11
_LARGEST_RECORD = (1 << 14) + 2048
_MOST_KEPT = 1 << 16  # bytes of one side's handshake
_TLS_1_3 = 0x304
_FATAL = 2
_EARLY_DATA = 42  # the extension
_MOST_AHEAD = 1 << 20  # bytes that a client says behind the handshake before its server says anything
# What an alert of TLS 1.3 takes when it is sealed (RFC 8446 section 5.2): two bytes, its type, and the tag. A
# Finished has 32 bytes and more, so a client whose first sealed record is as short as this has refused, as
# has a server that says nothing else behind the client's Finished.
_ALERT_SIZE, _TAG, _SHORT_TAG = 3, 16, 8
HIDDEN_ALERT = "encrypted_alert"


@dataclass(slots=True)
class Handshake(Exchange):
    """What a handshake tells. The host is the server name that the client asks for."""

    cipher: str | None = None
    alpn: str | None = None  # as agreed; TLS 1.3 encrypts the choice: what a client offers alone
    certificate_end_ns: int | None = None  # since 1970; TLS 1.3 encrypts it
    ja4: str | None = None
    inner: str | None = None  # what is known to be inside
    may_ask_dns: bool = False  # of a public resolver, over HTTP/2
    may_say_early: bool = False  # sealed records before its Finished

    @property
    def stack(self) -> str:
        """The layers, the outermost first; what the encryption hides is left out."""
        stack = f"tls+{self.inner}" if self.inner else inside_tls(self.alpn)
        return "tls+http2+dns" if self.may_ask_dns and stack in {"tls", "tls+http2"} else stack


class Tls:
    """Reads the handshake of one TLS connection over TCP, and nothing behind it.

    It is over when the server says something behind the client's answer to its hello (TLS 1.3), or changed to
    the cipher (up to 1.2), or either side sent a fatal alert. Behind the hello TLS 1.3 seals all: that a side
    refuses shows in the size of its record, why does not. A connection met in the middle has no handshake to
    read. Of the server's name is kept what *masks* leave. TLS may begin behind bytes of both sides in
    *clear*, and what is *inner* be known from these, or from the port.
    """

    def __init__(
        self,
        *,
        whole: bool = True,
        masks: Masking = STANDARD,
        clear: tuple[int, int] = (0, 0),
        inner: str | None = None,
    ) -> None:
        self._masks, self._inner = masks, inner
        self._clear = dict(zip(Side, clear, strict=True))
        self.unread_bytes = 0
        self._is_over = not whole
        self._framers = {side: Framer(5, _record_size, _kept) for side in Side}
        self._said = dict.fromkeys(Side, b"")  # of a message that is not whole yet
        self._begun_ns = dict.fromkeys(Side, 0)  # its first byte
        self._bytes = dict.fromkeys(Side, 0)  # of records
        self._handshake: Handshake | None = None
        self._is_sealed = False  # TLS 1.3, behind the server's hello
        self._is_blind = False  # there, where the server's records begin is not known
        self._is_confirmed = False  # the client has answered the hello; the server may yet refuse the client
        self._ahead = 0  # bytes of the client behind that
        self._has_left = False  # the client may have said goodbye before the server said anything
        self._alert_ns: int | None = None  # of the server, behind that
        self._over: list[Exchange] = []

    def said(self, side: Side, data: bytes, at_ns: int) -> list[Exchange]:
        """Read the next bytes of *side*."""
        if self._clear[side]:
            skipped = min(self._clear[side], len(data))
            self._clear[side] -= skipped
            data = data[skipped:]
        if not data:
            return []
        if side is Side.SERVER and self._handshake is None:
            self._is_over = True  # the client speaks first: this is the middle of something
        if self._is_over or (self._is_blind and side is Side.SERVER):
            return []
        try:
            for record in self._framers[side].feed(data, at_ns):
                self._take(side, record)
        except (LostError, hellos.HelloError):
            if not self._is_sealed:
                self.unread_bytes += len(data)
            self._lose(side)
        return self._taken()

    def missed(self, side: Side, size: int | None, at_ns: int) -> list[Exchange]:  # noqa: ARG002 - a Dialog's
        """Give up: what was not seen may be what the exchange is about."""
        self._lose(side)
        return self._taken()

    @property
    def is_done(self) -> bool:
        """Whether nothing more is read."""
        return self._is_over

    def ended(self, at_ns: int) -> list[Exchange]:  # noqa: ARG002 - a Dialog's
        """Take note that the connection is closed."""
        if self._alert_ns is not None and self._handshake:
            self._refuse(self._handshake, self._alert_ns)
        self._end(Outcome.ANSWERED if self._is_confirmed else Outcome.UNANSWERED)
        return self._taken()

    def pending(self) -> list[Exchange]:
        """Return the handshake, if it is not over; one that the server may yet refuse is answered as such."""
        return [self._handshake] if self._handshake and not self._is_over else []

    def _taken(self) -> list[Exchange]:
        over, self._over = self._over, []
        return over

    def _end(self, outcome: Outcome) -> None:
        if self._handshake and not self._is_over:
            self._handshake.outcome = outcome
            self._over.append(self._handshake)
        self._is_over = True
        self._said = dict.fromkeys(Side, b"")

    def _lose(self, side: Side) -> None:
        """Go on behind what was not seen, as long as the client's answer may tell the end."""
        if self._is_confirmed:
            self._end(Outcome.ANSWERED)
        elif self._is_sealed and side is Side.SERVER:
            self._is_blind = True
        else:
            self._end(Outcome.MISSED)

    def _take(self, side: Side, record: Message) -> None:
        kind, handshake = record.header[0], self._handshake
        if self._is_over:
            return
        if self._is_sealed and handshake and (kind == _DATA or side is Side.SERVER):
            if self._is_confirmed:
                self._follow(handshake, side, record)
            elif side is Side.CLIENT:
                self._confirm(handshake, record)
            return
        self._bytes[side] += record.size
        if handshake:
            handshake.request_bytes = self._bytes[Side.CLIENT]
            handshake.response_bytes = self._bytes[Side.SERVER] or None
        if kind == _HANDSHAKE:
            self._begun_ns[side] = self._begun_ns[side] if self._said[side] else record.begun_ns
            self._said[side] += record.body
            if len(self._said[side]) > _MOST_KEPT:
                raise LostError
            self._messages(side, record)
        elif kind == _ALERT and handshake and record.body[:1] == bytes([_FATAL]) and len(record.body) == 2:
            handshake.status, handshake.ended_ns = str(record.body[1]), record.ended_ns
            handshake.error = ALERTS.get(record.body[1], f"alert {record.body[1]}")
            handshake.answered_ns = handshake.answered_ns or (
                record.begun_ns if side is Side.SERVER else None
            )
            self._end(Outcome.ANSWERED)
        elif kind in {_CHANGE_CIPHER, _DATA} and side is Side.SERVER and handshake and handshake.cipher:
            self._agree(handshake, record)

    def _messages(self, side: Side, record: Message) -> None:
        """Read the messages that are whole: several may be in one record, and one in several."""
        said = self._said[side]
        while len(said) >= 4 and not self._is_over:
            size = 4 + int.from_bytes(said[1:4], "big")
            if len(said) < size:
                break
            self._message(side, said[0], said[4:size], record)
            said, self._begun_ns[side] = said[size:], record.begun_ns
        self._said[side] = b"" if self._is_over else said

    def _message(self, side: Side, kind: int, body: bytes, record: Message) -> None:
        if side is Side.CLIENT and kind == _CLIENT_HELLO and self._handshake is None:
            hello = hellos.client_hello(body)
            self._handshake = Handshake(
                "tls",
                self._begun_ns[side],
                operation="handshake",
                host=self._masks.host((hello.server_name or "").encode()),
                request_bytes=self._bytes[side],
                alpn=_text(hello.protocols[0]) if len(hello.protocols) == 1 else None,
                ja4=hellos.ja4(hello),
                inner=self._inner,
                may_say_early=_EARLY_DATA in hello.extensions,
                may_ask_dns=b"h2" in hello.protocols and is_resolver(hello.server_name or ""),
            )
        elif side is Side.SERVER and self._handshake and kind == _SERVER_HELLO:
            self._answer(self._handshake, hellos.server_hello(body), record)
        elif side is Side.SERVER and self._handshake and kind == _CERTIFICATE:
            self._handshake.certificate_end_ns = hellos.certificate_end_ns(body)

    def _answer(self, handshake: Handshake, hello: hellos.Hello, record: Message) -> None:
        if handshake.answered_ns is None:
            handshake.answered_ns = self._begun_ns[Side.SERVER]
        if hello.is_retry:
            return
        handshake.version = VERSIONS.get(hello.version, f"0x{hello.version:04x}")
        handshake.cipher = CIPHERS.get(hello.ciphers[0], f"0x{hello.ciphers[0]:04x}")
        if hello.version >= _TLS_1_3 and handshake.may_say_early:
            self._agree(handshake, record)
        elif hello.version >= _TLS_1_3:
            self._is_sealed, handshake.ended_ns = True, record.ended_ns
        else:
            handshake.alpn = _text(hello.protocols[0]) if hello.protocols else None

    def _confirm(self, handshake: Handshake, record: Message) -> None:
        """Tell by the size of the client's first sealed record whether it goes on."""
        if _may_be_alert(handshake, record):
            self._refuse(handshake, record.ended_ns)
            self._end(Outcome.ANSWERED)
            return
        handshake.status, handshake.outcome = "OK", Outcome.ANSWERED
        self._is_confirmed = True
        if self._is_blind:
            self._end(Outcome.ANSWERED)

    def _follow(self, handshake: Handshake, side: Side, record: Message) -> None:
        """Tell by the server's first word whether it goes on; to a client's goodbye that may be one, too."""
        is_alert = _may_be_alert(handshake, record)
        if side is Side.CLIENT:
            self._ahead += record.size
            self._has_left |= is_alert
            if self._alert_ns is None and self._ahead > _MOST_AHEAD:
                self._end(Outcome.ANSWERED)
        elif is_alert and self._has_left and self._alert_ns is None:
            handshake.status = None
            self._end(Outcome.ANSWERED)
        elif is_alert and self._alert_ns is None:
            self._alert_ns = record.ended_ns
        else:
            self._end(Outcome.ANSWERED)

    def _refuse(self, handshake: Handshake, at_ns: int) -> None:
        handshake.status, handshake.error, handshake.ended_ns = None, HIDDEN_ALERT, at_ns

    def _agree(self, handshake: Handshake, record: Message) -> None:
        handshake.status, handshake.ended_ns = "OK", record.ended_ns
        self._end(Outcome.ANSWERED)


def _may_be_alert(handshake: Handshake, record: Message) -> bool:
    """Return whether a sealed record is as short as an alert."""
    tag = _SHORT_TAG if (handshake.cipher or "").endswith("CCM_8_SHA256") else _TAG
    return int.from_bytes(record.header[3:5], "big") == _ALERT_SIZE + tag


def _record_size(header: bytes) -> int:
    kind, major, length = header[0], header[1], int.from_bytes(header[3:5], "big")
    known = _CHANGE_CIPHER <= kind <= _DATA and major == 3
    return 5 + length if known and length <= _LARGEST_RECORD else 0


def _kept(header: bytes) -> int:
    return {_HANDSHAKE: _LARGEST_RECORD, _ALERT: 2}.get(header[0], 0)


def _text(protocol: bytes) -> str:
    return protocol.decode("ascii", "replace")
