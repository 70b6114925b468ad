"""Where the functions that a library offers are in its file: ELF's dynamic symbols.

Source: elf(5); System V ABI, chapters 4 and 5.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

_DYNSYM, _LOAD, _FUNCTION = 11, 1, 2  # SHT_DYNSYM, PT_LOAD, STT_FUNC
_CLASS_64, _LITTLE = 2, 1
_HEADER_BYTES = 64


class _Table(NamedTuple):
    """Where a table of the file is."""

    at: int
    entry_bytes: int
    entries: int


def functions(descriptor: int, names: Iterable[str]) -> dict[str, int]:
    """Return the offsets in an open file of those of the functions *names* that it offers to others.

    A file that is no ELF file of 64 bits, or is damaged, offers none.
    """
    try:
        with mmap.mmap(descriptor, 0, prot=mmap.PROT_READ) as image:
            return _functions(image, frozenset(name.encode() for name in names))
    except (OSError, ValueError, OverflowError, struct.error):
        # mmap raises ValueError for an empty file, struct OverflowError where a place is beyond 63 bits
        return {}


def _functions(image: mmap.mmap, names: frozenset[bytes]) -> dict[str, int]:
    header = image[:_HEADER_BYTES]
    if header[:4] != b"\x7fELF" or len(header) < _HEADER_BYTES or header[4] != _CLASS_64:
        return {}
    order = "<" if header[5] == _LITTLE else ">"
    programs_at, sections_at = struct.unpack_from(f"{order}QQ", header, 32)
    programs, sections = (
        _Table(at, *struct.unpack_from(f"{order}HH", header, place))
        for at, place in ((programs_at, 54), (sections_at, 58))
    )
    loaded = _loaded(image, programs, order)
    for section in range(sections.entries):
        kind, at, size, link = _section(image, sections, section, order)
        if kind == _DYNSYM:
            _, names_at, names_size, _ = _section(image, sections, link, order)
            found = _named(image[at : at + size], image[names_at : names_at + names_size], names, order)
            return {
                name: address - begin + offset
                for name, address in found.items()
                for begin, offset, length in loaded
                if begin <= address < begin + length
            }
    return {}


def _loaded(image: mmap.mmap, table: _Table, order: str) -> list[tuple[int, int, int]]:
    """Return the stretches that are mapped: address, place in the file, length."""
    found = []
    for number in range(table.entries):
        at = table.at + number * table.entry_bytes
        kind, _, offset, address, _, length = struct.unpack_from(f"{order}IIQQQQ", image, at)
        if kind == _LOAD:
            found.append((address, offset, length))
    return found


def _section(image: mmap.mmap, table: _Table, number: int, order: str) -> tuple[int, int, int, int]:
    """Return the kind of a section, where it is, its size and its link."""
    _, kind, _, _, at, size, link = struct.unpack_from(
        f"{order}IIQQQQI", image, table.at + number * table.entry_bytes
    )
    return kind, at, size, link


def _named(table: bytes, texts: bytes, names: frozenset[bytes], order: str) -> dict[str, int]:
    layout = np.dtype(
        [
            ("name", f"{order}u4"),
            ("info", "u1"),
            ("other", "u1"),
            ("section", f"{order}u2"),
            ("value", f"{order}u8"),
            ("size", f"{order}u8"),
        ]
    )
    if not any(name + b"\0" in texts for name in names):
        return {}
    symbols = np.frombuffer(table, layout, len(table) // layout.itemsize)
    symbols = symbols[(symbols["info"] & 15 == _FUNCTION) & (symbols["section"] != 0)]
    found = {}
    for at, value in zip(symbols["name"].tolist(), symbols["value"].tolist(), strict=True):
        name = texts[at : texts.find(b"\0", at)]
        if name in names:
            found[name.decode()] = value
    return found
