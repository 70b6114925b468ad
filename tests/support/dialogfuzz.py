"""Damaged conversations for the readers of protocols: `python dialogfuzz.py postgres 1000000`."""

from __future__ import annotations

import random
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

from netlab.protocols.classify import classify
from netlab.protocols.dialog import Dialog, Exchange, Outcome, Side
from netlab.protocols.kafka import Kafka
from netlab.protocols.postgres import Postgres
from netlab.protocols.tls import Tls

READERS: dict[str, Callable[..., Dialog]] = {"kafka": Kafka, "postgres": Postgres, "tls": Tls}
DATA = Path(__file__).parents[1] / "data/protocols"
RECORDED = ("first_bytes.toml", "handshakes.toml")


def seeds(protocol: str | None = None) -> list[tuple[bytes, bytes]]:
    """Return what clients and servers said in *protocol*, or in any."""
    cases = [case for name in RECORDED for case in tomllib.loads((DATA / name).read_text())["cases"]]
    wanted = [case for case in cases if protocol is None or protocol in case.get("stack", "")]
    return [(bytes.fromhex(case["client"]), bytes.fromhex(case["server"])) for case in wanted]


def damaged(data: bytes, noise: random.Random) -> bytes:
    """Return *data* with some bytes changed, cut out, put in or said twice."""
    found = bytearray(data or b"\0")
    for _ in range(noise.choice((0, 1, 1, 2, 5))):
        place = noise.randrange(len(found) + 1)
        match noise.randrange(5):
            case 0 if place < len(found):
                found[place] = noise.choice((0, 1, 0x7F, 0x80, 0xFF, noise.randrange(256)))
            case 1:
                del found[place : place + noise.randrange(1, 20)]
            case 2:
                found[place:place] = noise.randbytes(noise.randrange(1, 12))
            case 3:
                found[place:place] = found[place : place + noise.randrange(1, 60)]
            case _:
                found[place : place + 4] = noise.choice(
                    (b"\0\0\0\x04", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff")
                )
    return bytes(found)


def conversations(
    protocol: str, count: int, seed: int
) -> Iterator[tuple[bool, list[tuple[Side, bytes | int | None]]]]:
    """Yield conversations, begun whole or not: pieces, and gaps of known and unknown size."""
    noise = random.Random(seed)
    known = seeds(protocol)
    for _ in range(count):
        said: list[tuple[Side, bytes | int | None]] = []
        for side, data in zip(Side, noise.choice(known), strict=True):
            whole, size = damaged(data, noise), noise.choice((3, 17, 60, 300))
            said += [(side, whole[place : place + size]) for place in range(0, len(whole), size)]
        if noise.random() < 0.5:
            noise.shuffle(said)
        if noise.random() < 0.3:
            gap = noise.randrange(len(said))
            said[gap] = (said[gap][0], noise.choice((None, 1, 40)))
        yield noise.random() < 0.8, said


def read(dialog: Dialog, said: list[tuple[Side, bytes | int | None]]) -> list[Exchange]:
    found = []
    for at_ns, (side, data) in enumerate(said, 1):
        if isinstance(data, bytes):
            found += dialog.said(side, data, at_ns)
        else:
            found += dialog.missed(side, data, at_ns)
    return found + dialog.ended(len(said) + 1)


def check(protocol: str, count: int, seed: int = 1) -> int:
    """Read *count* conversations; return how many exchanges were found. Each is told once, and is over."""
    exchanges = 0
    for whole, said in conversations(protocol, count, seed):
        dialog = READERS[protocol](whole=whole)
        found = read(dialog, said)
        assert len({id(one) for one in found}) == len(found), said
        assert all(one.outcome is not Outcome.PENDING for one in found), said
        assert all(one.answered_ns is None or one.answered_ns >= one.requested_ns for one in found), said
        assert dialog.pending() == [], said
        assert dialog.ended(0) == [], said
        exchanges += len(found)
    return exchanges


def check_classify(count: int, seed: int = 1) -> int:
    """Judge *count* damaged beginnings; return how many were named."""
    noise = random.Random(seed)
    known = seeds()
    named = 0
    for _ in range(count):
        client, server = (damaged(data, noise) for data in noise.choice(known))
        named += classify(client, server, from_start=noise.random() < 0.5).protocol is not None
    return named


if __name__ == "__main__":
    what, times = sys.argv[1], int(sys.argv[2])
    begun = time.monotonic()
    result = check_classify(times) if what == "classify" else check(what, times)
    print(f"{what}: {times} inputs, {result} found, {time.monotonic() - begun:.0f} s")  # noqa: T201
