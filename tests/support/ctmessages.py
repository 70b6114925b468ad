"""Messages of ctnetlink, made byte by byte, and ways to damage them.

Source: include/uapi/linux/netlink.h and include/uapi/linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Callable

NEW, DELETE = 0x100, 0x102


def attribute(kind: int, *payload: bytes, nested: bool = False) -> bytes:
    """Return an attribute; several payloads are what is nested in it."""
    whole = b"".join(payload)
    header = struct.pack("=HH", 4 + len(whole), kind | (0x8000 if nested or len(payload) > 1 else 0))
    return header + whole + bytes(-len(whole) % 4)


def nest(kind: int, *inner: bytes) -> bytes:
    return attribute(kind, *inner, nested=True)


def message(*attributes: bytes, kind: int = NEW, family: int = socket.AF_INET) -> bytes:
    """Return a netlink message with a struct nfgenmsg."""
    body = bytes([family, 0, 0, 0]) + b"".join(attributes)
    return struct.pack("=IHHII", 16 + len(body), kind, 2, 1, 0) + body


def side(
    kind: int, source: str, target: str, protocol: int, *ids: tuple[int, bytes], zone: int | None = None
) -> bytes:
    """Return a tuple: CTA_TUPLE_ORIG (1) or CTA_TUPLE_REPLY (2)."""
    family, first = (socket.AF_INET6, 3) if ":" in source else (socket.AF_INET, 1)
    places = (attribute(first + n, socket.inet_pton(family, text)) for n, text in enumerate((source, target)))
    numbers = (attribute(number, value) for number, value in ids)
    zoned = [] if zone is None else [attribute(3, struct.pack(">H", zone))]
    return nest(kind, nest(1, *places), nest(2, attribute(1, bytes([protocol])), *numbers), *zoned)


def _ports(one: int, other: int) -> tuple[tuple[int, bytes], tuple[int, bytes]]:
    return (2, struct.pack(">H", one)), (3, struct.pack(">H", other))


def _echo(number: int, kind: int) -> list[tuple[int, bytes]]:
    first = 4 if kind in {0, 8} else 7
    return [(first, struct.pack(">H", number)), (first + 1, bytes([kind])), (first + 2, b"\0")]


def _u32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack(">I", value))


def _counters(kind: int, packets: int, octets: int) -> bytes:
    return nest(kind, attribute(1, struct.pack(">Q", packets)), attribute(2, struct.pack(">Q", octets)))


_A, _B, _C, _D, _E = "10.0.0.1", "10.0.0.2", "192.0.2.9", "fd00::1", "fd00::2"
SEEDS = [
    message(
        side(1, _A, _B, 6, *_ports(40000, 80)),
        side(2, _B, _C, 6, *_ports(80, 1025)),
        _u32(3, 0xE | 0x190),
        _u32(7, 431999),
        _counters(9, 3, 180),
        _counters(10, 2, 120),
        nest(4, nest(1, attribute(1, b"\3"), attribute(2, b"\7"))),
        nest(5, attribute(1, b"ftp\0")),
        _u32(8, 0x42),
        _u32(12, 3735928559),
        _u32(11, 1),
        nest(20, attribute(1, struct.pack(">Q", 1_795_258_221_341_123_040))),
        attribute(22, bytes([0, 0, 0, 0, 0x20, 0, 0, 0]) + bytes(8)),
    ),
    message(
        side(1, _A, _B, 17, *_ports(53, 5353), zone=7), side(2, _B, _A, 17, *_ports(5353, 53)), _u32(3, 8)
    ),
    message(
        side(1, _D, _E, 58, *_echo(77, 128)),
        side(2, _E, _D, 58, *_echo(77, 129)),
        _u32(3, 0xC00E),
        attribute(18, struct.pack(">H", 5)),
        family=socket.AF_INET6,
    ),
    message(side(1, _A, _B, 1, *_echo(9, 8)), side(2, _B, _A, 1, *_echo(9, 0)), _u32(3, 0xA), kind=DELETE),
    message(
        side(1, _D, _E, 132, *_ports(1, 2)),
        side(2, _E, _D, 132, *_ports(2, 1), zone=3),
        _u32(3, 0xE),
        nest(4, nest(3, attribute(1, b"\4"))),
        nest(19, attribute(1, b"system_u:object_r:http_t\0")),
        family=socket.AF_INET6,
    ),
    message(side(1, _A, _B, 99), side(2, _B, _A, 99), _u32(3, 8)),
]
# Others on netlink: a route, a socket of sock_diag, an expectation, statistics of ctnetlink.
FOREIGN = [
    struct.pack("=IHHII", 44, 24, 2, 1, 0) + bytes(12) + attribute(1, b"\n\0\0\1") + attribute(4, bytes(4)),
    struct.pack("=IHHII", 88, 20, 2, 1, 0) + bytes(72),
    message(SEEDS[1][20:], kind=0x200),
    message(_u32(1, 5), kind=0x104),
]


def damaged(chance: random.Random) -> bytes:
    """Return one to three messages, most of them damaged."""
    whole = bytearray(b"".join(chance.choice(SEEDS) for _ in range(chance.randint(1, 3))))
    for _ in range(chance.choice((0, 1, 1, 1, 2, 4))):
        _DAMAGE[chance.randrange(len(_DAMAGE))](whole, chance)
    if not chance.randrange(8):
        whole += chance.choice(FOREIGN)
    return bytes(whole[: len(whole) // 4 * 4])


def _octet(data: bytearray, chance: random.Random) -> None:
    if data:
        data[chance.randrange(len(data))] = chance.choice((0, 1, 0xFF, chance.randrange(256)))


def _bit(data: bytearray, chance: random.Random) -> None:
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _cut(data: bytearray, chance: random.Random) -> None:
    del data[len(data) - chance.randint(0, len(data)) // 4 * 4 :]


def _hole(data: bytearray, chance: random.Random) -> None:
    at = chance.randint(0, len(data)) // 4 * 4
    del data[at : at + 4 * chance.randint(1, 6)]


def _twice(data: bytearray, chance: random.Random) -> None:
    at = chance.randint(0, len(data)) // 4 * 4
    data[at:at] = data[at : at + 4 * chance.randint(1, 20)]


def _noise(data: bytearray, chance: random.Random) -> None:
    at = chance.randint(0, len(data)) // 4 * 4
    data[at:at] = chance.randbytes(4 * chance.randint(1, 6))


_DAMAGE: list[Callable[[bytearray, random.Random], None]] = [
    _octet,
    _octet,
    _octet,
    _bit,
    _bit,
    _cut,
    _hole,
    _twice,
    _noise,
]
