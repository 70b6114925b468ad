"""Netlink messages as numpy columns, without a Python step per message; no sockets.

The messages of a dump are found by their sequence number, which is random for each request, and the chain of
their lengths proves that none was missed or invented. Messages with the same layout (same length, same
attributes at the same places) then form a group, and each attribute of a group is one gather from the buffer.

The message format is that of include/uapi/linux/netlink.h: a 16-byte header, a body fixed by the message
type, then attributes, each a 4-byte header (length, type) and a payload padded to 4 bytes.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from netlab.errors import KernelError

Words = npt.NDArray[np.uint32]
Rows = npt.NDArray[np.intp]
Path = tuple[int, ...]

HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_HALVES, _WORD = struct.Struct("=HH"), struct.Struct("=I")
_HEADER_WORDS = 4
_FIRST_TYPE = 0x10  # NLMSG_MIN_TYPE: below it are control messages
_DUMP_INTERRUPTED = 0x10
_NESTED, _TYPE_MASK = 0x8000, 0x3FFF  # NLA_F_NESTED; the rest without NLA_F_NET_BYTEORDER
_CACHED = 1024  # messages that the processor's cache holds while every header of them is looked at


@dataclass(frozen=True, slots=True)
class Dump:
    """The messages of one dump: the raw words and where each message starts in them."""

    words: Words
    starts: Rows
    interrupted: bool  # the kernel's table changed under the dump: entries may be missing or doubled

    @classmethod
    def of(cls, words: Words) -> Dump:
        """Find the messages in what was received without a request, such as events."""
        return cls(words, _walk(words), interrupted=False)

    @classmethod
    def joined(cls, dumps: Sequence[Dump]) -> Dump:
        """Put the messages of several behind each other: those of one layout are then read together."""
        ends = np.cumsum([len(dump.words) for dump in dumps])
        starts = [dump.starts + end - len(dump.words) for dump, end in zip(dumps, ends, strict=True)]
        words = np.concatenate([dump.words for dump in dumps])
        return cls(words, np.concatenate(starts), any(dump.interrupted for dump in dumps))

    def __len__(self) -> int:
        return len(self.starts)

    def copied(self) -> Dump:
        """Return the same in just the memory it needs; a dump is received into one for large ones."""
        return Dump(self.words.copy(), self.starts, self.interrupted)

    def types(self) -> npt.NDArray[Any]:
        """Return the type of every message."""
        return _types_and_flags(self.words, self.starts)[0]

    def flags(self) -> npt.NDArray[Any]:
        """Return the flags of every message."""
        return _types_and_flags(self.words, self.starts)[1]

    def body(self, dtype: np.dtype[np.void]) -> npt.NDArray[np.void]:
        """Return the fixed body of every message as records of *dtype*."""
        if (self.words[self.starts] < HEADER.size + dtype.itemsize).any():
            raise KernelError("a netlink message is shorter than its body")
        return _gather(self.words, self.starts, _HEADER_WORDS, dtype.itemsize).view(dtype).ravel()

    def groups(self, body_size: int) -> Iterator[Group]:
        """Split the messages by the layout of their attributes, which follow *body_size* bytes of body."""
        lengths = self.words[self.starts]
        for length in np.unique(lengths):
            rest = np.flatnonzero(lengths == length)
            while len(rest):
                layout = _layout(self.words, int(self.starts[rest[0]]), _HEADER_WORDS + word_count(body_size))
                same = layout.fits(self.words, self.starts[rest])
                yield Group(self.words, self.starts[rest[same]], rest[same], layout.payloads)
                rest = rest[~same]


@dataclass(frozen=True, slots=True)
class Group:
    """Messages that have one layout; *rows* are their places in the dump."""

    words: Words
    starts: Rows
    rows: Rows
    payloads: dict[Path, tuple[int, int]]  # attribute path -> (offset in words, length in bytes)

    def pieces(self, most: int) -> Iterator[Group]:
        """Split the group into some of at most *most* messages, which the processor's cache holds."""
        for first in range(0, len(self.starts), most):
            some = slice(first, first + most)
            yield Group(self.words, self.starts[some], self.rows[some], self.payloads)

    def get(self, path: Path, dtype: str) -> npt.NDArray[np.generic] | None:
        """Return one attribute of every message as an array of *dtype*, or None where the layout has none.

        An attribute shorter than *dtype* (an older kernel's struct) is also None.
        """
        offset, length = self.payloads.get(path, (0, -1))
        size = np.dtype(dtype).itemsize
        if length < size:
            return None
        return _gather(self.words, self.starts, offset, size).view(dtype).ravel()

    def octets(self, path: Path) -> npt.NDArray[np.uint8]:
        """Return an attribute that every message must have, as (n, length) bytes."""
        offset, length = self.payloads.get(path, (0, -1))
        if length < 0:
            raise KernelError(f"a netlink message lacks attribute {'.'.join(map(str, path))}")
        return _gather(self.words, self.starts, offset, length)

    def prefix(self, path: Path, dtype: np.dtype[np.void]) -> npt.NDArray[np.void] | None:
        """Return a struct attribute as records of *dtype*, zero-filled past what this kernel gives."""
        offset, length = self.payloads.get(path, (0, -1))
        if length < 0:
            return None
        records = np.zeros((len(self.starts), dtype.itemsize), np.uint8)
        known = min(length, dtype.itemsize)
        records[:, :known] = _gather(self.words, self.starts, offset, known)
        return records.view(dtype).ravel()

    def length(self, path: Path) -> int:
        """Return the payload length of an attribute in bytes, -1 where the layout has none."""
        return self.payloads.get(path, (0, -1))[1]

    def types(self) -> npt.NDArray[Any]:
        """Return the type of every message."""
        return _types_and_flags(self.words, self.starts)[0]


def answers(words: Words, sequence: int) -> Dump:
    """Find the messages of a dump, and prove by their lengths that they follow each other without a hole."""
    starts = np.flatnonzero(words[2:] == sequence)
    after = starts + word_count(words[starts])
    if not (len(starts) and starts[0] == 0 and after[-1] == len(words) and (after[:-1] == starts[1:]).all()):
        starts = _walk(words)  # the sequence number also stands in a payload
    types, flags = _types_and_flags(words, starts)
    return Dump(words, starts[types >= _FIRST_TYPE], bool((flags & _DUMP_INTERRUPTED).any()))


def _types_and_flags(words: Words, starts: Rows) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    header = words[starts + 1]
    low, high = header & 0xFFFF, header >> 16
    return (low, high) if sys.byteorder == "little" else (high, low)


def _walk(words: Words) -> Rows:
    starts, at = [], 0
    while at < len(words):
        length = int(words[at])
        if length < HEADER.size or at + word_count(length) > len(words):
            raise KernelError("a netlink dump has a message that does not fit into it")
        starts.append(at)
        at += word_count(length)
    return np.array(starts, np.intp)


@dataclass(frozen=True, slots=True)
class _Layout:
    headers: list[tuple[int, int]]  # (offset in words, attribute header word)
    payloads: dict[Path, tuple[int, int]]

    def fits(self, words: Words, starts: Rows) -> npt.NDArray[np.bool_]:
        """Tell which of one or more messages of one length have every attribute header in its place."""
        same = np.empty(len(starts), bool)
        whole = sliding_window_view(words, word_count(int(words[starts[0]])))
        places, headers = [place for place, _ in self.headers], [header for _, header in self.headers]
        for first in range(0, len(starts), _CACHED):
            some = slice(first, first + _CACHED)
            same[some] = (whole[starts[some]][:, places] == np.array(headers, np.uint32)).all(axis=1)
        return same

    def forget(self, path: Path) -> None:
        """Leave out an attribute and what is nested in it."""
        if path in self.payloads:
            for known in [known for known in self.payloads if known[: len(path)] == path]:
                del self.payloads[known]


def _layout(words: Words, start: int, first: int) -> _Layout:
    """Read where the attributes of the message at *start* are, from *first* (in words) on.

    Of an attribute that stands twice in one place the last counts, as in the kernel's own nla_parse().
    """
    layout = _Layout([], {})
    nests: list[tuple[Path, int, int]] = [((), first, int(words[start]))]  # the end is in bytes
    while nests:
        parent, at, end = nests.pop()
        while 4 * at < end:
            header = int(words[start + at])
            length, kind = _HALVES.unpack(_WORD.pack(header))
            if length < _WORD.size or 4 * at + length > end:
                raise KernelError("a netlink message has an attribute that does not fit into it")
            path = (*parent, kind & _TYPE_MASK)
            layout.headers.append((at, header))
            layout.forget(path)
            layout.payloads[path] = (at + 1, length - _WORD.size)
            after = at + word_count(length)
            if kind & _NESTED:
                nests.append((parent, after, end))
                parent, at, end = path, at + 1, 4 * at + length
            else:
                at = after
    return layout


def _gather(words: Words, starts: Rows, offset: int, size: int) -> npt.NDArray[np.uint8]:
    """Return the *size* bytes *offset* words after each start as a contiguous (n, size) array."""
    if not len(starts) or not size:
        return np.empty((len(starts), size), np.uint8)
    block = sliding_window_view(words[offset:], word_count(size))[starts]  # copies whole runs of words
    return np.ascontiguousarray(block.view(np.uint8)[:, :size])


def word_count(size: Any) -> Any:
    """Return how many 4-byte words hold *size* bytes, for a number or an array."""
    return (size + 3) // 4
