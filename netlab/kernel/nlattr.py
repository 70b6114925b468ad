"""Netlink attributes for requests: a 4-byte header (length, type) and a payload padded to 4 bytes."""

from __future__ import annotations

import struct

_HEADER = struct.Struct("=HH")
_NESTED = 0x8000  # NLA_F_NESTED, include/uapi/linux/netlink.h


def attribute(kind: int, payload: bytes) -> bytes:
    """Return one attribute of type *kind*."""
    return _HEADER.pack(_HEADER.size + len(payload), kind) + payload + bytes(-len(payload) % 4)


def nested(kind: int, *parts: bytes) -> bytes:
    """Return an attribute of type *kind* whose payload is the attributes *parts*."""
    return attribute(kind | _NESTED, b"".join(parts))
