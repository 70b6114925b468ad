"""Datagrams of a netlink socket, many per system call, as one block of words (recvmmsg(2))."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from dataclasses import dataclass

import numpy as np

from netlab.kernel.libc import libc
from netlab.kernel.nlmessages import Rows, Words

_SO_RCVBUFFORCE = 33  # asm-generic/socket.h
_MSG_DONTWAIT, _MSG_TRUNC = 0x40, 0x20
_BATCH = 512
_SLOT_BYTES = 2048  # a conntrack event has some 250 bytes, one with everything in it less than 1,000
_ADDRESS_BYTES = 12  # struct sockaddr_nl


def give_room(kernel: socket.socket, size: int) -> None:
    """Let *size* bytes wait; root of a user namespace only gets what net.core.rmem_max allows."""
    try:
        kernel.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)
    except PermissionError:
        kernel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)


class _Vector(ctypes.Structure):  # struct iovec
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class _Header(ctypes.Structure):  # struct msghdr
    _fields_ = [
        ("name", ctypes.c_void_p),
        ("name_bytes", ctypes.c_uint32),
        ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_bytes", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]


class _Message(ctypes.Structure):  # struct mmsghdr
    _fields_ = [("header", _Header), ("length", ctypes.c_uint32)]


@dataclass(frozen=True, slots=True)
class Block:
    """Messages of the kernel, one after another without a hole; *starts* in words."""

    words: Words
    starts: Rows
    refused: int  # messages that were cut, that contradict their own length, or that are not the kernel's


class Receiver:
    """Memory to receive into, used again for every batch. One thread at a time may use it."""

    def __init__(self) -> None:
        self._slots = np.zeros((_BATCH, _SLOT_BYTES // 4), np.uint32)
        self._senders = np.zeros((_BATCH, _ADDRESS_BYTES // 4), np.uint32)
        self._vectors = (_Vector * _BATCH)()
        self._messages = (_Message * _BATCH)()
        for place in range(_BATCH):
            self._vectors[place] = _Vector(self._slots[place].ctypes.data, _SLOT_BYTES)
            header = self._messages[place].header
            header.name = self._senders[place].ctypes.data
            header.vectors = ctypes.addressof(self._vectors[place])
            header.vector_count = 1
        self._results = np.frombuffer(memoryview(self._messages).cast("B"), _layout())

    def receive(self, descriptor: int) -> Block | None:
        """Return what waits in the socket, up to a batch; None when nothing does.

        Raises OSError, with ENOBUFS where the kernel had to throw messages away.
        """
        self._results["name_bytes"] = _ADDRESS_BYTES
        count = libc().recvmmsg(descriptor, self._messages, _BATCH, _MSG_DONTWAIT, None)
        if count < 0:
            code = ctypes.get_errno()
            if code == errno.EAGAIN:
                return None
            raise OSError(code, os.strerror(code))
        return self._block(count)

    def _block(self, count: int) -> Block:
        lengths = self._results["length"][:count]
        slots = self._slots[:count]
        whole = (self._results["flags"][:count] & _MSG_TRUNC) == 0
        whole &= (slots[:, 0] == lengths) & (lengths % 4 == 0) & (lengths > 0)
        whole &= self._senders[:count, 1] == 0  # nl_pid of the kernel
        words = np.where(whole, lengths // 4, 0).astype(np.intp)
        filled = np.arange(int(words.max(initial=0))) < words[:, None]
        starts = (np.cumsum(words) - words)[whole]
        return Block(slots[:, : filled.shape[1]][filled], starts, int(count - whole.sum()))


def _layout() -> np.dtype[np.void]:
    """Return struct mmsghdr for numpy: the lengths of a whole batch are one column."""
    offsets = {
        "name_bytes": _Header.name_bytes.offset,
        "flags": _Header.flags.offset,
        "length": _Message.length.offset,
    }
    return np.dtype(
        {
            "names": list(offsets),
            "formats": ["u4"] * len(offsets),
            "offsets": list(offsets.values()),
            "itemsize": ctypes.sizeof(_Message),
        }
    )
