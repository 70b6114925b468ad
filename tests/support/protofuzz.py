"""Real conversations, damaged: what every decoder must live through.

`python tests/support/protofuzz.py 1000000` reads a million damaged pieces with each decoder.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from typing import TypeAlias

import h2.config
import h2.connection
from overheard import Heard

from netlab.protocols.dialog import Dialog, Exchange, Side
from netlab.protocols.http1 import Http1
from netlab.protocols.http2 import Http2
from netlab.protocols.redis import Redis

Decoder: TypeAlias = Callable[..., Dialog]

PER_CONVERSATION = 12  # pieces, then a new dialog


def http1() -> Heard:
    said = [
        (
            b"GET /deep/a?token=1 HTTP/1.1\r\nHost: a.example\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndeep",
        ),
        (
            b"POST /up HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\n12345\r\n0\r\nX: y\r\n\r\n",
            b"HTTP/1.1 103 A\r\n\r\nHTTP/1.1 500 B\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
        ),
        (b"HEAD / HTTP/1.0\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"),
        (b"CONNECT a:1 HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 Fine\r\n\r\n"),
    ]
    return [(side, data, at) for at, both in enumerate(said) for side, data in zip(Side, both, strict=True)]


def http2() -> Heard:
    ends = [
        h2.connection.H2Connection(h2.config.H2Configuration(client_side=client, header_encoding="utf-8"))
        for client in (True, False)
    ]
    heard: Heard = []

    def exchange() -> None:
        for side, end, other in ((Side.CLIENT, *ends), (Side.SERVER, *ends[::-1])):
            data = end.data_to_send()
            if data:
                heard.append((side, data, len(heard)))
                other.receive_data(data)

    for end in ends:
        end.initiate_connection()
    for number in (1, 3, 5, 7):
        fields = {":method": "POST", ":scheme": "http", ":path": "/shop.Cart/Get", ":authority": "a.example"}
        fields |= {"content-type": "application/grpc"} if number % 4 == 1 else {"x-number": str(number)}
        ends[0].send_headers(number, list(fields.items()), priority_weight=3)
        ends[0].send_data(number, b"12345" * number, end_stream=True, pad_length=3)
        exchange()
        ends[1].send_headers(number, [(":status", "200"), ("x-long", "y" * 200 * number)])
        ends[1].send_data(number, b"x" * 50)
        ends[1].send_headers(number, [("grpc-status", "5")], end_stream=True)
        exchange()
    ends[1].close_connection()
    exchange()
    return heard


def redis() -> Heard:
    said = [
        (b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n", b"%2\r\n+a\r\n:1\r\n+b\r\n*1\r\n$3\r\nabc\r\n"),
        (b"*3\r\n$3\r\nSET\r\n$3\r\na:1\r\n$5\r\nvalue\r\n" * 2, b"+OK\r\n-WRONGTYPE Operation\r\n"),
        (b"GET a:1\r\nPING\r\n", b"$5\r\nvalue\r\n>2\r\n$10\r\ninvalidate\r\n_\r\n+PONG\r\n"),
        (
            b"*3\r\n$9\r\nSUBSCRIBE\r\n$1\r\na\r\n$1\r\nb\r\n",
            b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n" * 2,
        ),
        (b"*2\r\n$4\r\nEXEC\r\n$1\r\n1\r\n", b"|1\r\n+a\r\n,1.5\r\n*2\r\n!5\r\nERR a\r\n~1\r\n#t\r\n"),
    ]
    return [(side, data, at) for at, both in enumerate(said) for side, data in zip(Side, both, strict=True)]


DECODERS: dict[str, tuple[Decoder, Heard]] = {
    "http1": (Http1, http1()),
    "http2": (Http2, http2()),
    "redis": (Redis, redis()),
}


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Return *data* with some bytes changed, cut out, repeated or put in."""
    piece = bytearray(data)
    for _ in range(chance.randrange(4)):
        place = chance.randrange(len(piece) + 1)
        match chance.randrange(4):
            case 0:
                piece[place : place + 1] = chance.randbytes(1)
            case 1:
                del piece[place : place + chance.randrange(1, 20)]
            case 2:
                piece[place:place] = piece[place : place + chance.randrange(1, 40)]
            case _:
                piece[place:place] = chance.choice((b"\0", b"\r\n", b"99999999", b"-1", b"\xff\xff\xff\xff"))
    return bytes(piece)


def fuzz(name: str, pieces: int, seed: int = 0) -> int:
    """Read so many damaged *pieces* and return of how many exchanges they told; each is over just once."""
    decoder, heard = DECODERS[name]
    chance = random.Random(seed)
    told = 0
    for start in range(0, pieces, PER_CONVERSATION):
        dialog = decoder(whole=chance.random() < 0.5)
        over: list[Exchange] = []
        for at in range(min(PER_CONVERSATION, pieces - start)):
            side, data, _ = heard[
                (at if chance.random() < 0.8 else chance.randrange(len(heard))) % len(heard)
            ]
            if chance.random() < 0.1:
                over += dialog.missed(side, chance.choice((None, 1, len(data), 1 << 40)), at)
            else:
                over += dialog.said(side, damaged(data, chance), at)
        over += dialog.ended(PER_CONVERSATION)
        assert dialog.pending() == []
        assert len({id(one) for one in over}) == len(over)
        assert all(one.outcome != "pending" for one in over)
        assert dialog.unread_bytes >= 0
        told += len(over)
    return told


if __name__ == "__main__":
    for decoder_name in DECODERS:
        begun = time.process_time()
        exchanges = fuzz(decoder_name, int(sys.argv[1]))
        print(f"{decoder_name}: {exchanges} exchanges, {time.process_time() - begun:.0f} s of CPU time")  # noqa: T201
