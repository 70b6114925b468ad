"""TLS hellos (RFC 8446 section 4.1, RFC 5246 section 7.4.1), certificates' ends, and JA4."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime

_SNI, _ALPN, _SIGNATURES, _VERSIONS = 0, 16, 13, 43  # extensions
_RETRY = hashlib.sha256(b"HelloRetryRequest").digest()  # the random of a ServerHello that is none
_JA4_VERSIONS = {0x304: "13", 0x303: "12", 0x302: "11", 0x301: "10", 0x300: "s3", 0x2: "s2"}
_NO_TIME = 1 << 63  # ns: what a column of times does not hold
_SEQUENCE, _UTC_TIME, _GENERALIZED_TIME, _CONTEXT_0 = 0x30, 0x17, 0x18, 0xA0  # DER tags


class HelloError(Exception):
    """These bytes are not what they were taken for."""


@dataclass(slots=True)
class Hello:
    """A ClientHello, or a ServerHello with one cipher."""

    version: int
    ciphers: list[int]
    extensions: list[int] = field(default_factory=list)  # in their order
    server_name: str | None = None
    protocols: list[bytes] = field(default_factory=list)  # of ALPN
    signatures: list[int] = field(default_factory=list)
    is_retry: bool = False  # HelloRetryRequest: the client says hello again


class _Bytes:
    """Reads numbers and vectors one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data, self._place = data, 0

    def take(self, size: int) -> bytes:
        taken = self._data[self._place : self._place + size]
        if len(taken) < size:
            raise HelloError
        self._place += size
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> _Bytes:
        """Return what a length of *size* bytes is in front of."""
        return _Bytes(self.take(self.number(size)))

    def numbers(self) -> list[int]:
        """Return all that is left as numbers of two bytes."""
        rest = self.rest()
        return [int.from_bytes(rest[place : place + 2], "big") for place in range(0, len(rest) - 1, 2)]

    def rest(self) -> bytes:
        return self.take(len(self._data) - self._place)

    def __bool__(self) -> bool:
        return self._place < len(self._data)


def client_hello(body: bytes) -> Hello:
    """Return what a ClientHello says.

    Raises
    ------
    HelloError
        If it is none.

    """
    said = _Bytes(body)
    version = said.number(2)
    said.take(32)
    said.vector(1)  # session
    hello = Hello(version, said.vector(2).numbers())
    said.vector(1)  # compression
    _extend(hello, said)
    return hello


def server_hello(body: bytes) -> Hello:
    """Return what a ServerHello says: the version and the cipher that it chose.

    Raises
    ------
    HelloError
        If it is none.

    """
    said = _Bytes(body)
    version = said.number(2)
    random = said.take(32)
    said.vector(1)  # session
    hello = Hello(version, [said.number(2)], is_retry=random == _RETRY)
    said.take(1)  # compression
    _extend(hello, said)
    return hello


def _extend(hello: Hello, said: _Bytes) -> None:
    extensions = said.vector(2) if said else _Bytes(b"")
    while extensions:
        kind, body = extensions.number(2), extensions.vector(2)
        hello.extensions.append(kind)
        if kind == _SNI and body:
            names = body.vector(2)
            names.take(1)  # the only type: a host name
            hello.server_name = names.vector(2).rest().decode("ascii", "replace").lower()
        elif kind == _ALPN:
            listed = body.vector(2)
            while listed:
                hello.protocols.append(listed.vector(1).rest())
        elif kind == _SIGNATURES:
            hello.signatures = body.vector(2).numbers()
        elif kind == _VERSIONS:
            rest = body.rest()
            offered = _Bytes(rest) if len(rest) == 2 else _Bytes(rest).vector(1)  # a server says one only
            hello.version = max(
                [one for one in offered.numbers() if not _is_grease(one)], default=hello.version
            )


def ja4(hello: Hello) -> str:
    """Return the JA4 fingerprint of a ClientHello over TCP (FoxIO's technical_details/JA4.md)."""
    ciphers = sorted(f"{one:04x}" for one in hello.ciphers if not _is_grease(one))
    extensions = [one for one in hello.extensions if not _is_grease(one)]
    listed = sorted(f"{one:04x}" for one in extensions if one not in {_SNI, _ALPN})
    signatures = ",".join(f"{one:04x}" for one in hello.signatures if not _is_grease(one))
    return (
        f"t{_JA4_VERSIONS.get(hello.version, '00')}{'d' if _SNI in extensions else 'i'}"
        f"{min(len(ciphers), 99):02}{min(len(extensions), 99):02}{_ja4_alpn(hello.protocols)}"
        f"_{_ja4_hash(','.join(ciphers))}"
        f"_{_ja4_hash(','.join(listed) + ('_' + signatures if signatures else '') if listed else '')}"
    )


def _ja4_alpn(protocols: list[bytes]) -> str:
    first = protocols[0] if protocols else b""
    if not first:
        return "00"
    ends = first[:1] + first[-1:]
    if ends.isalnum():
        return ends.decode("ascii")
    return first.hex()[0] + first.hex()[-1]


def _ja4_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12] if text else "0" * 12


def _is_grease(number: int) -> bool:
    """Say whether a number is one of those that mean nothing (RFC 8701)."""
    return number & 0x0F0F == 0x0A0A and number >> 8 == number & 0xFF


def certificate_end_ns(body: bytes) -> int | None:
    """Return when the first certificate of a Certificate message (TLS 1.2) ends, in ns since 1970.

    One without an end says the year 9999 (RFC 5280 section 4.1.2.5): None, as of what 64 bits do not hold.

    Raises
    ------
    HelloError
        If there is none, or no date in it.

    """
    certificate = _Bytes(body).vector(3).vector(3)
    fields = _der(
        _der(certificate, _SEQUENCE), _SEQUENCE
    )  # of the part that is signed (RFC 5280 section 4.1)
    first, _ = _der_next(fields)
    for _ in range(3 if first == _CONTEXT_0 else 2):  # version; serial number, signature, issuer
        _der_next(fields)
    validity = _der(fields, _SEQUENCE)
    _der_next(validity)
    tag, date = _der_next(validity)
    shapes = {_UTC_TIME: "%y%m%d%H%M%SZ", _GENERALIZED_TIME: "%Y%m%d%H%M%SZ"}
    try:
        when = datetime.strptime(date.rest().decode("ascii"), shapes[tag]).replace(tzinfo=UTC)
    except (KeyError, ValueError):
        raise HelloError from None
    if tag == _UTC_TIME and when.year >= 2050:  # two digits: 50 to 99 are of the last century
        when = when.replace(year=when.year - 100)
    end_ns = int(when.timestamp()) * 1_000_000_000
    return end_ns if abs(end_ns) < _NO_TIME else None


def _der(data: _Bytes, tag: int) -> _Bytes:
    found, value = _der_next(data)
    if found != tag:
        raise HelloError
    return value


def _der_next(data: _Bytes) -> tuple[int, _Bytes]:
    tag, size = data.number(1), data.number(1)
    if size & 0x80:
        size = data.number(min(size & 0x7F, 8))
    return tag, _Bytes(data.take(size))
