"""Classic BPF programs that let only what can be an answer into a raw socket.

A raw ICMP socket gets every ICMP message of the host, a raw TCP socket every segment; under load that
wakes the trace for nothing and overflows its buffer. What passes is still checked byte by byte in
`netlab.path.matching`. A load past the end of a packet rejects it (Documentation/networking/filter.rst).
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from functools import lru_cache

from netlab.wire import icmp, ip

_INSTRUCTION = struct.Struct("=HBBI")

_LOAD_WORD_X, _LOAD_HALF_X, _LOAD_BYTE_X = 0x40, 0x48, 0x50  # A = 4, 2 bytes at X+k | 1 byte at X+k
_LOAD_HEADER_LENGTH = 0xB1  # X = 4 * (byte at k & 0xf): the length of the IPv4 header at k
_X_IS = 0x01
_AND, _SHIFT_LEFT, _ADD_X, _TO_X = 0x54, 0x64, 0x0C, 0x07
_JUMP_EQUAL, _RETURN = 0x15, 0x06
_ALL = 0xFFFF

MOST_PORTS = 2000  # of which `answers` can choose: a program has at most 4096 instructions

# A step is an operation and its value, and for comparisons how many instructions to jump over if it holds
# and if it does not.
_Step = tuple[int, int, int, int]
_ACCEPT, _REJECT = (_RETURN, _ALL, 0, 0), (_RETURN, 0, 0, 0)

NOTHING = _INSTRUCTION.pack(_RETURN, 0, 0, 0)
"""The filter of a socket that only holds its port."""

# Raw IPv4 sockets see packets from their IP header on, those of IPv6 from behind it.
_TO_TRANSPORT: dict[int, list[_Step]] = {4: [(_LOAD_HEADER_LENGTH, 0, 0, 0)], 6: [(_X_IS, 0, 0, 0)]}
_TO_QUOTED_TRANSPORT: dict[int, list[_Step]] = {
    4: [
        (_LOAD_BYTE_X, 8, 0, 0),  # the first byte of the quoted header
        (_AND, 0xF, 0, 0),
        (_SHIFT_LEFT, 2, 0, 0),
        (_ADD_X, 0, 0, 0),
        (_TO_X, 0, 0, 0),
    ],
    6: [(_X_IS, 40, 0, 0)],
}
_QUOTED_PROTOCOL = {4: 8 + 9, 6: 8 + 6}  # counted from the start of the ICMP message
_QUOTED_TARGET = {4: 8 + 16, 6: 8 + 24 + 12}  # its last four bytes
_MOST_TARGETS = 16  # more are told apart when they are read
_QUOTE = 8  # where the transport begins from X on


@lru_cache(maxsize=64)
def errors(family: int, protocol: int, port: int, targets: tuple[bytes, ...] = ()) -> bytes:
    """Return the filter for a raw ICMP socket: errors about packets of *protocol* to *port* of *targets*.

    The quoted source port is left alone: a NAT may have put another one there.
    """
    return _program(
        [
            *_TO_TRANSPORT[family],
            *_about(family, protocol),
            *_to(family, targets),
            *_TO_QUOTED_TRANSPORT[family],
            (_LOAD_HALF_X, _QUOTE + 2, 0, 0),
            *_is(port),
            _ACCEPT,
        ]
    )


def echoes(family: int, identifier: int, targets: tuple[bytes, ...] = ()) -> bytes:
    """Return the filter for a raw ICMP socket: errors about echo requests, and replies to *identifier*."""
    return _program(
        [
            *_TO_TRANSPORT[family],
            (_LOAD_BYTE_X, 0, 0, 0),
            (_JUMP_EQUAL, icmp.ECHO_REPLY[family], 0, 3),
            (_LOAD_HALF_X, 4, 0, 0),
            (_JUMP_EQUAL, identifier, 0, 1),
            _ACCEPT,
            *_about(family, ip.ICMP if family == 4 else ip.ICMPV6),
            *_to(family, targets),
            *_TO_QUOTED_TRANSPORT[family],
            (_LOAD_BYTE_X, _QUOTE, 0, 0),
            (_JUMP_EQUAL, icmp.ECHO_REQUEST[family], 0, 1),
            _ACCEPT,
        ]
    )


def answers(family: int, port: int, own: Collection[int]) -> bytes:
    """Return the filter for a raw UDP or TCP socket: what comes from *port* to one of the *own*."""
    return _program(
        [
            *_TO_TRANSPORT[family],
            (_LOAD_HALF_X, 0, 0, 0),
            *_is(port),
            (_LOAD_HALF_X, 2, 0, 0),
            *(step for port in own for step in ((_JUMP_EQUAL, port, 0, 1), _ACCEPT)),
        ]
    )


def _about(family: int, protocol: int) -> list[_Step]:
    # What is behind IPv6's extension headers is not looked for here.
    extended = [step for number in ip.EXTENSIONS for step in ((_JUMP_EQUAL, number, 0, 1), _ACCEPT)]
    return [
        (_LOAD_BYTE_X, _QUOTED_PROTOCOL[family], 0, 0),
        *(extended if family == 6 else ()),
        (_JUMP_EQUAL, protocol, 1, 0),
        _REJECT,
    ]


def _to(family: int, targets: tuple[bytes, ...]) -> list[_Step]:
    if not targets or len(targets) > _MOST_TARGETS:
        return []
    words = [int.from_bytes(target[-4:], "big") for target in targets]
    return [
        (_LOAD_WORD_X, _QUOTED_TARGET[family], 0, 0),
        *((_JUMP_EQUAL, word, left, 0) for left, word in zip(range(len(words), 0, -1), words, strict=True)),
        _REJECT,
    ]


def _is(port: int) -> list[_Step]:
    return [(_JUMP_EQUAL, port, 1, 0), _REJECT]


def _program(steps: list[_Step]) -> bytes:
    """Return the steps as struct sock_filter[]; what gets to their end is rejected."""
    return b"".join(_INSTRUCTION.pack(code, yes, no, value) for code, value, yes, no in [*steps, _REJECT])
