"""Netlink dumps read in blocks: bytes to numpy columns without a Python step per message.

A dump is received into one growing buffer. The messages in it are found by their sequence number, which
is random for each request, and the chain of their lengths proves that none was missed or invented. Messages
with the same layout (same length, same attributes at the same places) then form a group, and each
attribute of a group is one gather from the buffer.

The message format is that of include/uapi/linux/netlink.h: a 16-byte header, a body fixed by the message
type, then attributes, each a 4-byte header (length, type) and a payload padded to 4 bytes.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import secrets
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from netlab.errors import CapabilityError, KernelError
from netlab.frames import Gap, Missing

Words = npt.NDArray[np.uint32]
Rows = npt.NDArray[np.intp]
Path = tuple[int, ...]

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_CLOSING = struct.Struct("=IHHIIi")  # a header and the errno that DONE and ERROR carry
_HALVES, _WORD = struct.Struct("=HH"), struct.Struct("=I")
_HEADER_WORDS = 4
_ERROR, _DONE = 2, 3
_FIRST_TYPE = 0x10  # NLMSG_MIN_TYPE: below it are control messages
_REQUEST, _DUMP = 0x001, 0x300
_DUMP_INTERRUPTED = 0x10
_NESTED, _TYPE_MASK = 0x8000, 0x3FFF  # NLA_F_NESTED; the rest without NLA_F_NET_BYTEORDER
_LARGEST_BLOCK = 32 * 1024  # the kernel never fills more of one dump block (net/netlink/af_netlink.c)
_FIRST_BUFFER = 1 << 21
_CACHED = 4096  # messages that the processor's cache holds while every header of them is looked at
_SILENCE_S = 10.0  # a dump that stalls this long will not go on
# No such netlink family; no such subsystem in nfnetlink; no such handler in sock_diag.
_NOBODY_ANSWERS = {errno.EPROTONOSUPPORT, errno.EINVAL, errno.ENOENT, errno.EOPNOTSUPP}

INTERRUPTED = Missing(
    "entries",
    Gap.APPROXIMATE,
    None,
    "the kernel's table changed while it was read: some entries may be missing or listed twice",
)


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

    def __len__(self) -> int:
        return len(self.starts)

    def body(self, dtype: np.dtype[np.void]) -> npt.NDArray[np.void]:
        """Return the fixed body of every message as records of *dtype*."""
        if (self.words[self.starts] < _HEADER.size + dtype.itemsize).any():
            raise KernelError("a netlink message is shorter than its body")
        return _gather(self.words, self.starts, _HEADER_WORDS, dtype.itemsize).view(dtype).ravel()

    def groups(self, body_size: int) -> Iterator[Group]:
        """Split the messages by the layout of their attributes, which follow *body_size* bytes of body."""
        lengths = self.words[self.starts]
        for length in np.unique(lengths):
            rest = np.flatnonzero(lengths == length)
            while len(rest):
                layout = _layout(self.words, int(self.starts[rest[0]]), _HEADER_WORDS + _words(body_size))
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


def dump(protocol: int, message_type: int, body: bytes, *, doing: str, module: str = "") -> Dump:
    """Request a dump and read it whole, in the network namespace of the calling thread.

    Parameters
    ----------
    protocol
        Netlink family, such as `socket.NETLINK_NETFILTER` (12).
    message_type
        The request's type; the answers' type is the kernel's affair.
    body
        What follows the netlink header.
    doing
        What the caller is about to do, for error messages: "list TCP sockets".
    module
        The kernel module that answers, for the advice when none does.

    Raises
    ------
    CapabilityError
        If the kernel refuses this process.
    KernelError
        If the kernel refuses for another reason, stops answering, or answers what is no netlink message.
    """
    try:
        kernel = opened(protocol)
    except OSError as error:
        raise refusal(error.errno, doing, module=module) from error
    with kernel:
        return dump_over(kernel, message_type, body, doing=doing, module=module)


def opened(protocol: int) -> socket.socket:
    """Return a netlink socket of the calling thread's namespace that does not wait for ever."""
    kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    try:
        kernel.settimeout(_SILENCE_S)
        kernel.bind((0, 0))
    except BaseException:
        kernel.close()
        raise
    return kernel


def dump_over(kernel: socket.socket, message_type: int, body: bytes, *, doing: str, module: str = "") -> Dump:
    """Do what `dump` does over a socket that is open already, in the namespace it was opened in."""
    sequence = secrets.randbits(32) | 1  # 0 stands in too many payloads
    header = _HEADER.pack(_HEADER.size + len(body), message_type, _REQUEST | _DUMP, sequence, 0)
    try:
        kernel.send(header + body)
        words = _receive(kernel, sequence)
    except TimeoutError as error:
        raise KernelError(f"the kernel stopped answering while netlab tried to {doing}") from error
    except OSError as error:
        raise refusal(error.errno, doing, module=module) from error
    return _messages(words, sequence)


def get(protocol: int, message_type: int, body: bytes, *, doing: str, module: str = "") -> Dump:
    """Request one object, in the network namespace of the calling thread.

    Takes and raises what `dump` does; without such an object (ENOENT) the answer has no message.
    """
    sequence = secrets.randbits(32) | 1
    header = _HEADER.pack(_HEADER.size + len(body), message_type, _REQUEST, sequence, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol) as kernel:
            kernel.settimeout(_SILENCE_S)
            kernel.bind((0, 0))
            kernel.send(header + body)
            answer = kernel.recv(_LARGEST_BLOCK)
        _closes(memoryview(answer), 0, sequence)  # raises the error it may be
    except TimeoutError as error:
        raise KernelError(f"the kernel stopped answering while netlab tried to {doing}") from error
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise refusal(error.errno, doing, module=module) from error
        answer = b""
    words = np.frombuffer(answer, np.uint32, len(answer) // 4)
    return _messages(words, sequence) if len(words) else Dump.of(words)


def _receive(kernel: socket.socket, sequence: int) -> Words:
    """Receive blocks up to and including the one that closes the dump."""
    buffer, used = _memory(), 0
    while True:
        if len(buffer) - used < _LARGEST_BLOCK:
            buffer.resize(2 * len(buffer))  # mremap(2): no byte is copied
        with memoryview(buffer) as whole, whole[used:] as free:
            got = kernel.recv_into(free, 0, socket.MSG_TRUNC)  # MSG_TRUNC: the length that was sent
            if got > len(free):
                raise KernelError(f"a netlink block of {got} bytes is larger than the kernel's own limit")
            used += _words(got) * 4
            if _closes(free, 0, sequence) or _closes(free, got - _CLOSING.size, sequence):
                return np.frombuffer(buffer, np.uint32, used // 4)


def _memory() -> mmap.mmap:
    """Return memory that can grow in place, in huge pages where the host allows: a dump may be 100 MB."""
    memory = mmap.mmap(-1, _FIRST_BUFFER, flags=mmap.MAP_PRIVATE)
    with contextlib.suppress(OSError):  # a kernel without huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def _closes(block: memoryview, at: int, sequence: int) -> bool:
    """Tell whether the message at *at* ends the dump; raise the error it carries."""
    if not 0 <= at <= len(block) - _CLOSING.size:
        return False
    length, kind, _, answered, _, code = _CLOSING.unpack_from(block, at)
    if answered != sequence or kind not in {_ERROR, _DONE} or length < _CLOSING.size:
        return False
    if code < 0:
        raise OSError(-code, os.strerror(-code))
    return True


def refusal(code: int | None, doing: str, *, module: str = "") -> KernelError | CapabilityError:
    """Return the error for a netlink request that the kernel refused with errno *code*."""
    code = code or 0
    reason = f"the kernel refused to {doing}: {errno.errorcode.get(code, code)} ({os.strerror(code)})"
    if code in {errno.EPERM, errno.EACCES}:
        return CapabilityError(reason, fix="Run as root, or grant CAP_NET_ADMIN in this network namespace")
    if module and code in _NOBODY_ANSWERS:
        return KernelError(reason, fix=f"Load the kernel's part for it: `modprobe {module}`")
    return KernelError(reason, fix="netlab.doctor() tells what works on this kernel")


def _messages(words: Words, sequence: int) -> Dump:
    """Find the messages, and prove by their lengths that they follow each other without a hole."""
    starts = np.flatnonzero(words[2:] == sequence)
    after = starts + _words(words[starts])
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
        if length < _HEADER.size or at + _words(length) > len(words):
            raise KernelError("a netlink dump has a message that does not fit into it")
        starts.append(at)
        at += _words(length)
    return np.array(starts, np.intp)


@dataclass(frozen=True, slots=True)
class _Layout:
    headers: list[tuple[int, int]]  # (offset in words, attribute header word)
    payloads: dict[Path, tuple[int, int]]

    def fits(self, words: Words, starts: Rows) -> npt.NDArray[np.bool_]:
        """Tell which of the messages, all of one length, have every attribute header in its place."""
        same = np.ones(len(starts), bool)
        for first in range(0, len(starts), _CACHED):
            some = slice(first, first + _CACHED)
            for offset, header in self.headers:
                same[some] &= words[offset:][starts[some]] == header
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
            after = at + _words(length)
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
    block = sliding_window_view(words[offset:], _words(size))[starts]  # copies whole runs of words
    return np.ascontiguousarray(block.view(np.uint8)[:, :size])


def _words(size: Any) -> Any:
    """Return how many 4-byte words hold *size* bytes, for a number or an array."""
    return (size + 3) // 4
