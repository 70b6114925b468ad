"""Header fields of HTTP/2 (HPACK, RFC 7541), as far as they can be known from what was seen.

A reader that comes late does not know the dynamic table: a field that names an entry from before is unknown,
and what follows is read all the same. New entries are counted from the front, so those that were seen have
their right numbers. Nothing is evicted but to bound memory: an encoder never names an entry that is gone.
"""

from __future__ import annotations

from dataclasses import dataclass

from netlab.checks import needing

LONGEST_BLOCK = 65536  # bytes: what decoders of browsers and servers accept, and more

_MOST_KEPT = 65536  # bytes of the dynamic table, by the measure of section 4.1
_OVERHEAD = 32
_LONGEST_VALUE = 4096
_STATUSES = {
    bytes((first,)) for first in (*range(0x88, 0x8F), 0x48, 0x08, 0x18)
}  # the static table's 8 to 14
_OTHER = b"", b""  # a field that nobody asks for

READ = {b":method", b":scheme", b":path", b":authority", b"host", b":status", b"content-type", b"grpc-status"}

with needing("protocols", "HTTP/2 cannot be read without hpack"):
    from hpack.exceptions import HPACKError
    from hpack.huffman_table import decode_huffman
    from hpack.table import HeaderTable

_STATIC = [(name, value) if name in READ else _OTHER for name, value in HeaderTable.STATIC_TABLE]


class _DamagedError(Exception):
    """A block that is none."""


@dataclass(slots=True)
class Fields:
    """What a block of header fields says."""

    known: dict[bytes, bytes]
    unknown: int = 0  # fields that name what was not seen; which fields these are is not known either

    def text(self, name: bytes) -> str | None:
        """Return the value of *name*, None where it is not there or not known."""
        value = self.known.get(name)
        return None if value is None else value.decode("latin-1")


def begins_answer(block: bytes) -> bool:
    """Return whether a block begins with :status, as answers do and trailers may not; no table is needed."""
    return block[:1] in _STATUSES


class Decoder:
    """Reads the header blocks of one side. Values that nobody asks for are not kept."""

    def __init__(self) -> None:
        self._table: list[tuple[bytes, bytes] | None] = []  # the newest last
        self._kept = 0

    def forget(self) -> None:
        """Take note that blocks were not seen: no entry has the number that it had."""
        self._table.clear()
        self._kept = 0

    def decode(self, block: bytes) -> Fields | None:
        """Read one block; None: it is none, and what came before it is forgotten."""
        found = Fields({})
        try:
            place = 0
            while place < len(block):
                place = self._field(block, place, found)
        except (_DamagedError, HPACKError):
            self.forget()
            return None
        return found

    def _field(self, block: bytes, place: int, found: Fields) -> int:
        """Read the field at *place* and return the place behind it (section 6)."""
        first = block[place]
        if first & 0x80:
            number, place = _integer(block, place, 7)
            field = self._entry(number)
        elif first & 0xE0 == 0x20:  # the table's new size, at which nothing is evicted here
            return _integer(block, place, 5)[1]
        else:
            is_kept = bool(first & 0x40)
            field, place = self._literal(block, place, 6 if is_kept else 4)
            if is_kept:
                self._keep(field)
        if field is None:
            found.unknown += 1
        elif field is not _OTHER:
            found.known.setdefault(*field)
        return place

    def _literal(self, block: bytes, place: int, bits: int) -> tuple[tuple[bytes, bytes] | None, int]:
        number, place = _integer(block, place, bits)
        if number:
            named = self._entry(number)
            name = named[0] if named else None
        else:
            raw, is_packed, place = _string(block, place)
            name = decode_huffman(raw) if is_packed else raw
        raw, is_packed, place = _string(block, place)
        if name is None:
            return None, place
        if name not in READ:
            return _OTHER, place
        value = decode_huffman(raw) if is_packed else raw
        if name == b":path":
            value = value.partition(b"?")[0]
        return (name, value[:_LONGEST_VALUE]), place

    def _entry(self, number: int) -> tuple[bytes, bytes] | None:
        """Return a field by its number in both tables (section 2.3.3); None: it is from before."""
        if number == 0:
            raise _DamagedError
        if number <= len(_STATIC):
            return _STATIC[number - 1]
        back = number - len(_STATIC)
        return self._table[-back] if back <= len(self._table) else None

    def _keep(self, field: tuple[bytes, bytes] | None) -> None:
        self._table.append(field)
        self._kept += _size(field)
        while self._kept > _MOST_KEPT:
            self._kept -= _size(self._table.pop(0))


def _size(field: tuple[bytes, bytes] | None) -> int:
    return _OVERHEAD + (len(field[0]) + len(field[1]) if field else 0)


def _integer(block: bytes, place: int, bits: int) -> tuple[int, int]:
    """Read the number that begins in the last *bits* of a byte (section 5.1), and the place behind it."""
    most = (1 << bits) - 1
    number = block[place] & most
    place += 1
    if number < most:
        return number, place
    for shift in range(0, 28, 7):
        if place == len(block):
            break
        number += (block[place] & 0x7F) << shift
        place += 1
        if block[place - 1] < 0x80:
            return number, place
    raise _DamagedError


def _string(block: bytes, place: int) -> tuple[bytes, bool, int]:
    """Return the string at *place* (section 5.2), whether it is Huffman's code, and the place behind it."""
    if place >= len(block):
        raise _DamagedError
    is_packed = block[place] >= 0x80
    length, place = _integer(block, place, 7)
    if place + length > len(block):
        raise _DamagedError
    return block[place : place + length], is_packed, place + length
