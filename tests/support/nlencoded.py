"""Netlink messages written from include/uapi/linux/netlink.h: what the readers' tests know to be true."""

from __future__ import annotations

import struct
from typing import TypeAlias

Tree: TypeAlias = "dict[int, bytes | Tree]"

SEQUENCE = 0x5EC0DE01
DONE, ERROR, ANSWER, MULTI, INTERRUPTED = 3, 2, 0x14, 2, 0x10


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def encoded(tree: Tree) -> bytes:
    out = b""
    for kind, value in tree.items():
        payload, flag = (encoded(value), 0x8000) if isinstance(value, dict) else (value, 0)
        out += padded(struct.pack("=HH", 4 + len(payload), kind | flag) + payload)
    return out


def message(payload: bytes, kind: int = ANSWER, flags: int = MULTI, sequence: int = SEQUENCE) -> bytes:
    return padded(struct.pack("=IHHII", 16 + len(payload), kind, flags, sequence, 7) + payload)


def done(code: int = 0) -> bytes:
    return message(struct.pack("=i", code), DONE)
