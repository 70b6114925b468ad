"""The PROXY protocol of load balancers (HAProxy's specification): whom they speak for, before all else."""

from __future__ import annotations

import re

_LINE = re.compile(rb"PROXY (?:TCP4|TCP6|UNKNOWN)[ -~]*\r\n")
_LONGEST_LINE = 107  # bytes, with its end
_WORD = b"PROXY "
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED = 16  # bytes of version 2: signature, version and command, family, length of the rest
_COMMANDS = {0x20, 0x21}  # version 2: the balancer's own check, or somebody's connection


def header_bytes(data: bytes) -> int | None:
    r"""Return how long the header is that a connection's first bytes begin with: 0 if with none.

    None: they may yet become one.

    >>> header_bytes(b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\r\nGET / HTTP/1.1\r\n")
    40
    """
    if data.startswith(_SIGNATURE):
        return _binary_bytes(data)
    if data.startswith(_WORD):
        return _line_bytes(data)
    return None if data and (_SIGNATURE.startswith(data) or _WORD.startswith(data)) else 0


def _line_bytes(data: bytes) -> int | None:
    line = _LINE.match(data[:_LONGEST_LINE])
    if line:
        return line.end()
    return None if len(data) < _LONGEST_LINE and b"\n" not in data else 0


def _binary_bytes(data: bytes) -> int | None:
    if len(data) < _FIXED:
        return None
    size = _FIXED + int.from_bytes(data[14:16], "big")
    if data[12] not in _COMMANDS:
        return 0
    return size if len(data) >= size else None
