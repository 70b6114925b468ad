"""Classic BPF programs that let only the answers to one flow into a raw socket.

A raw ICMP socket gets every ICMP message of the host, a raw TCP socket every segment; under load that
wakes the trace for nothing and overflows its buffer. What passes is still checked byte by byte in
`netlab.path.probes`. A load past the end of a packet rejects it (Documentation/networking/filter.rst).
"""

from __future__ import annotations

import struct

from netlab.path.probes import Flow

_INSTRUCTION = struct.Struct("=HBBI")

_LOAD_HALF, _LOAD_HALF_X, _LOAD_BYTE_X = 0x28, 0x48, 0x50  # A = 2 bytes at k | at X+k | 1 byte at X+k
_LOAD_HEADER_LENGTH = 0xB1  # X = 4 * (byte at k & 0xf): the length of the IPv4 header at k
_AND, _SHIFT_LEFT, _ADD_X, _TO_X = 0x54, 0x64, 0x0C, 0x07
_JUMP_EQUAL, _RETURN = 0x15, 0x06
_ALL = 0xFFFF

_Step = tuple[int, int]


def errors(flow: Flow) -> bytes:
    """Return the filter for a raw ICMP or ICMPv6 socket: errors that quote a packet with *flow*'s ports."""
    if flow.family == 6:  # the message starts at 0, the quoted header at 8 and what it carries at 48
        return _program(
            [(_LOAD_HALF, 48), (_JUMP_EQUAL, flow.source_port), (_LOAD_HALF, 50), (_JUMP_EQUAL, flow.port)]
        )
    return _program(
        [
            (_LOAD_HEADER_LENGTH, 0),  # IPv4 raw sockets see the packet from its IP header on
            (_LOAD_BYTE_X, 8),  # first byte of the quoted header
            (_AND, 0xF),
            (_SHIFT_LEFT, 2),
            (_ADD_X, 0),
            (_TO_X, 0),
            (_LOAD_HALF_X, 8),
            (_JUMP_EQUAL, flow.source_port),
            (_LOAD_HALF_X, 10),
            (_JUMP_EQUAL, flow.port),
        ]
    )


def segments(flow: Flow) -> bytes:
    """Return the filter for a raw TCP socket: segments from *flow*'s port to its source port."""
    if flow.family == 6:
        return _program(
            [(_LOAD_HALF, 0), (_JUMP_EQUAL, flow.port), (_LOAD_HALF, 2), (_JUMP_EQUAL, flow.source_port)]
        )
    return _program(
        [
            (_LOAD_HEADER_LENGTH, 0),
            (_LOAD_HALF_X, 0),
            (_JUMP_EQUAL, flow.port),
            (_LOAD_HALF_X, 2),
            (_JUMP_EQUAL, flow.source_port),
        ]
    )


def _program(steps: list[_Step]) -> bytes:
    """Return the steps as struct sock_filter[], every failed comparison jumping to the final reject."""
    reject = len(steps) + 1
    code = [
        _INSTRUCTION.pack(operation, 0, reject - at - 1 if operation == _JUMP_EQUAL else 0, value)
        for at, (operation, value) in enumerate(steps)
    ]
    return b"".join([*code, _INSTRUCTION.pack(_RETURN, 0, 0, _ALL), _INSTRUCTION.pack(_RETURN, 0, 0, 0)])
