"""What all decoders promise, whatever comes: they live on, are bounded, and keep no secret."""

from __future__ import annotations

import gc
import inspect
import time
from typing import Any

import h2.config
import h2.connection
import pytest
from fuzz import NAMES, READERS, fuzz
from hypothesis import given, strategies as st
from overheard import Heard

from netlab.protocols.dialog import Dialog, Side

secrets = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=12, max_size=30).filter(
    lambda word: any(sign.isdigit() for sign in word)
)


@pytest.mark.parametrize("name", READERS)
def test_a_connection_is_taken_for_whole_unless_told_otherwise(name: str) -> None:
    assert inspect.signature(READERS[name]).parameters["whole"].default is True


@pytest.mark.parametrize("name", NAMES)
def test_what_is_damaged_is_lived_through_and_each_exchange_told_once(name: str) -> None:
    assert fuzz(name, 3_000, seed=time.monotonic_ns()) > 10


def _http1(secret: bytes) -> Heard:
    head = b"POST /u/%b/a?key=%b HTTP/1.1\r\nHost: u:%b@a.example\r\nCookie: s=%b\r\n" % ((secret,) * 4)
    length = b"Content-Length: %d\r\n\r\n%b" % (len(secret), secret)
    answer = b"HTTP/1.1 500 %b\r\nSet-Cookie: s=%b\r\n" % (secret, secret)
    return [(Side.CLIENT, head + length, 1), (Side.SERVER, answer + length, 2)]


def _http2(secret: bytes) -> Heard:
    word = secret.decode()
    client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    client.initiate_connection()
    fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", f"/u/{word}?key={word}"),
        (":authority", "a"),
    ]
    client.send_headers(1, [*fields, ("cookie", word), ("authorization", word)])
    client.send_data(1, secret, end_stream=True)
    return [(Side.CLIENT, client.data_to_send(), 1)]


def _redis(secret: bytes) -> Heard:
    def command(*words: bytes) -> bytes:
        return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)

    said = command(b"AUTH", b"default", secret) + command(b"SET", b"user:" + secret, secret)
    said += command(b"EVAL", b"return 1", b"0", secret) + command(secret, secret) + command(b"GET", secret)
    return [(Side.CLIENT, said, 1), (Side.SERVER, b"-NOAUTH %b\r\n-ERR '%b'\r\n+%b\r\n" % ((secret,) * 3), 2)]


SECRETIVE = {"http1": _http1, "http2": _http2, "redis": _redis}


@pytest.mark.parametrize("name", SECRETIVE)
@given(secret=secrets)
def test_a_secret_is_in_no_exchange(name: str, secret: str) -> None:
    heard = SECRETIVE[name](secret.encode())
    dialog = READERS[name](whole=True)

    found = [one for said in heard for one in dialog.said(*said)]
    found += dialog.ended(3)

    assert found
    assert secret not in repr(found)


def _held(dialog: Dialog) -> int:
    """Return how many bytes of text a dialog holds on to."""
    seen: dict[int, Any] = {}
    waiting: list[Any] = [dialog]
    while waiting:
        one = waiting.pop()
        if id(one) not in seen and not isinstance(one, type):
            seen[id(one)] = one
            waiting += gc.get_referents(one)
    return sum(len(one) for one in seen.values() if isinstance(one, bytes | bytearray | str))


ENDLESS = {
    "http1": (b"GET / HTTP/1.1\r\nX: ", b"a" * 1000),
    "http2": (b"\0\0\1\1\1\0\0\0\1\x82", b"\0\x40\0\x09\0\0\0\0\1" + b"a" * 0x4000),
    "redis": (b"*1000000\r\n", b"$1000\r\n" + b"a" * 1000 + b"\r\n"),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_what_never_ends_is_not_kept(name: str) -> None:
    dialog = READERS[name](whole=True)
    before = _held(dialog)
    begin, more = ENDLESS[name]
    dialog.said(Side.CLIENT, begin, 1)
    for at in range(300):
        dialog.said(Side.CLIENT, more, at)

    assert _held(dialog) - before < 2 << 16
