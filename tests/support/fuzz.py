"""Real conversations, damaged: what every decoder must live through.

`python tests/support/fuzz.py 1000000` gives each decoder a million damaged pieces; names behind it pick some.
"""

from __future__ import annotations

import random
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import dns.message
import h2.config
import h2.connection
from overheard import Heard

from netlab.errors import DecodeError
from netlab.protocols.classify import classify
from netlab.protocols.dialog import Dialog, Exchange, Outcome, Side
from netlab.protocols.dns import message
from netlab.protocols.http1 import Http1
from netlab.protocols.http2 import Http2
from netlab.protocols.kafka import Kafka
from netlab.protocols.postgres import Postgres
from netlab.protocols.redis import Redis
from netlab.protocols.tls import Tls

Pieces: TypeAlias = list[tuple[Side, bytes | int | None]]  # said, or a gap of that size; None: of any

READERS: dict[str, Callable[..., Dialog]] = {
    "http1": Http1, "http2": Http2, "redis": Redis, "kafka": Kafka, "postgres": Postgres, "tls": Tls,
}  # fmt: skip
DATA = Path(__file__).parents[1] / "data/protocols"
RECORDED = ("first_bytes.toml", "handshakes.toml")
ODD = (b"\0", b"\r\n", b"99999999", b"-1", b"\0\0\0\x04", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff")


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
        (
            b"PUT /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n",
            b"HTTP/1.1 417 C\r\nContent-Length:\r\n 0\r\n\r\n",
        ),
        (b"GET /lf HTTP/1.1\nHost: a\n\n", b"HTTP/1.1 200 D\nTransfer-Encoding: chunked\n\n1\na\n0\n\n"),
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


def recorded(protocol: str = "") -> list[Heard]:
    """Return what real clients and servers said in *protocol*, or in any."""
    cases = [case for name in RECORDED for case in tomllib.loads((DATA / name).read_text())["cases"]]
    wanted = [case for case in cases if case.get("stack", "").startswith(protocol)]
    return [[(side, bytes.fromhex(case[side.name.lower()]), 0) for side in Side] for case in wanted]


SEEDS = {name: recorded(name) for name in ("kafka", "postgres", "tls")}
SEEDS |= {"http1": [http1()], "http2": [http2()], "redis": [redis()], "classify": recorded()}
LOOKUPS = [dns.message.make_query("a.b.example", kind, use_edns=True).to_wire() for kind in ("A", "TXT")]
LOOKUPS += [data[2:] for both in recorded("dns") for _, data, _ in both]  # behind the length that TCP needs


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Return *data* with some bytes changed, cut out, repeated or put in."""
    piece = bytearray(data)
    for _ in range(chance.choice((0, 0, 0, 1, 1, 2, 5))):
        place = chance.randrange(len(piece) + 1)
        match chance.randrange(5):
            case 0:
                piece[place : place + 1] = chance.randbytes(1)
            case 1:
                del piece[place : place + chance.randrange(1, 20)]
            case 2:
                piece[place:place] = piece[place : place + chance.randrange(1, 60)]
            case 3:
                piece[place:place] = chance.choice(ODD)
            case _:
                odd = chance.choice(ODD)
                piece[place : place + len(odd)] = odd
    return bytes(piece)


def conversations(name: str, pieces: int, chance: random.Random) -> Iterator[Pieces]:
    """Yield damaged conversations of so many *pieces* together, some of them gaps."""
    while pieces > 0:
        said: Pieces = []
        size = chance.choice((17, 200, 1 << 16, 1 << 16, 1 << 16))
        for side, data, _ in chance.choice(SEEDS[name]):
            whole = damaged(data, chance)
            said += [(side, whole[place : place + size]) for place in range(0, len(whole), size)]
        if chance.random() < 0.3:
            chance.shuffle(said)
        for place, (side, _) in enumerate(said):
            if chance.random() < 0.03:
                said[place] = (side, chance.choice((None, 1, 40, 1 << 40)))
        yield said[:pieces]
        pieces -= max(1, len(said))


def told(dialog: Dialog, said: Pieces) -> list[Exchange]:
    """Return what a dialog tells of a conversation."""
    over: list[Exchange] = []
    for at_ns, (side, data) in enumerate(said, 1):
        hear = dialog.said if isinstance(data, bytes) else dialog.missed
        over += hear(side, data, at_ns)  # type: ignore[operator, arg-type]
    return over + dialog.ended(len(said) + 1)


def read(name: str, pieces: int, chance: random.Random) -> int:
    """Return how many exchanges were told: each once, and over."""
    count = 0
    for said in conversations(name, pieces, chance):
        dialog = READERS[name](whole=chance.random() < 0.7)
        over = told(dialog, said)
        assert len({id(one) for one in over}) == len(over), said
        assert all(one.outcome is not Outcome.PENDING for one in over), said
        assert all(one.answered_ns is None or one.answered_ns >= one.requested_ns for one in over), said
        assert dialog.pending() == dialog.ended(0) == [], said
        assert dialog.unread_bytes >= 0, said
        count += len(over)
    return count


def judge(beginnings: int, chance: random.Random) -> int:
    """Return how many damaged beginnings were named."""
    count = 0
    for _ in range(beginnings):
        client, server = (damaged(data, chance) for _, data, _ in chance.choice(SEEDS["classify"]))
        count += classify(client, server, whole=chance.random() < 0.5).protocol is not None
    return count


def look_up(messages: int, chance: random.Random) -> int:
    """Return how many damaged DNS messages could be read; the others are refused as such."""
    count = 0
    for _ in range(messages):
        data = damaged(chance.choice(LOOKUPS), chance)
        try:
            message.read(data, size_bytes=len(data))
        except DecodeError:
            continue
        count += 1
    return count


NAMES = (*READERS, "classify", "dns")


def fuzz(name: str, inputs: int, seed: int = 0) -> int:
    """Read so many damaged *inputs* and return what was understood of them."""
    chance = random.Random(seed)
    match name:
        case "classify":
            return judge(inputs, chance)
        case "dns":
            return look_up(inputs, chance)
        case _:
            return read(name, inputs, chance)


if __name__ == "__main__":
    for chosen in sys.argv[2:] or NAMES:
        begun = time.process_time()
        found = fuzz(chosen, int(sys.argv[1]))
        print(f"{chosen}: {found} found, {time.process_time() - begun:.0f} s of CPU time")  # noqa: T201
