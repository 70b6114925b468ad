"""The Internet checksum (RFC 1071), with the pseudo-headers of IPv4 and IPv6."""

from __future__ import annotations

import struct


def ones_sum(data: bytes) -> int:
    """Return the one's complement sum of *data* as 16-bit words, an odd last byte padded with zero.

    2**16 is 1 modulo 65535, so the number that the bytes spell has the same remainder as the sum of its
    words: one big-number division instead of a loop. 0 and 0xFFFF are the two zeros of one's complement;
    adding words that are not all zero gives the second (RFC 1071 section 2).
    """
    number = int.from_bytes(data, "big") << (8 * (len(data) % 2))
    return number % 0xFFFF or (0xFFFF if number else 0)


def internet(data: bytes) -> int:
    """Return the checksum of *data*; over data that contain their own correct checksum it is 0."""
    return ~ones_sum(data) & 0xFFFF


def pseudo_header(source: bytes, destination: bytes, protocol: int, length: int) -> bytes:
    """Return what TCP, UDP and ICMPv6 checksum in front of *length* bytes (RFC 8200 section 8.1).

    The IPv4 pseudo-header (RFC 9293 section 3.1) orders and pads the same words differently, which leaves
    their sum alone, so one form serves both families.
    """
    return source + destination + struct.pack("!II", length, protocol)


def transport(source: bytes, destination: bytes, protocol: int, segment: bytes) -> int:
    """Return the checksum of *segment*, whose own checksum field is zero, between two packed addresses."""
    return internet(pseudo_header(source, destination, protocol, len(segment)) + segment)


def word_for(wanted: int, data: bytes) -> int:
    """Return the 16-bit word that, added to *data*, makes its checksum *wanted* (1 to 0xFFFE)."""
    return (-wanted - ones_sum(data)) % 0xFFFF  # complementing is negating modulo 65535


def updated(value: int, before: bytes, after: bytes) -> int:
    """Return what the checksum *value* becomes where the words *before* turn into *after* (RFC 1624)."""
    total = (~value & 0xFFFF) + (~ones_sum(before) & 0xFFFF) + ones_sum(after)
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
