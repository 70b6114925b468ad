"""BPF maps, read and written in blocks as numpy arrays.

Source: include/uapi/linux/bpf.h, and bpf_map_lookup_batch() in kernel/bpf/syscall.c.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from netlab.errors import KernelError
from netlab.kernel import syscall
from netlab.kernel.keys import joined
from netlab.kernel.syscall import Command

_BATCH = struct.Struct("=QQQQIIQQ")
_COUNT_AT = 32
_TAKES = 'UDP flows need Linux 5.14, which can take entries from hash maps; capture(protocol="tcp") does not'
_CHUNK = 8192


class Map:
    """A BPF hash or array map behind *descriptor*, with room for so many *entries*."""

    def __init__(self, descriptor: int, entries: int, key: np.dtype[Any], value: np.dtype[Any]) -> None:
        self._descriptor = descriptor
        self.entries, self._key, self._value = entries, key, value

    def items(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Return all keys and values by BPF_MAP_LOOKUP_BATCH, which takes no snapshot: a busy map moves."""
        keys, values = list[npt.NDArray[Any]](), list[npt.NDArray[Any]]()
        position, chunk = ctypes.create_string_buffer(max(self._key.itemsize, 8)), min(self.entries, _CHUNK)
        started = False
        while True:
            some_keys, some_values = np.empty(chunk, self._key), np.empty(chunk, self._value)
            following = ctypes.create_string_buffer(len(position))
            request = ctypes.create_string_buffer(
                _BATCH.pack(
                    ctypes.addressof(position) if started else 0,
                    ctypes.addressof(following),
                    some_keys.ctypes.data,
                    some_values.ctypes.data,
                    chunk,
                    self._descriptor,
                    0,
                    0,
                ),
                _BATCH.size,
            )
            code = ctypes.get_errno() if syscall.bpf(Command.MAP_LOOKUP_BATCH, request) else 0
            (count,) = struct.unpack_from("=I", request, _COUNT_AT)  # the kernel has put it there
            if code == errno.ENOSPC and chunk < self.entries:  # one hash bucket holds more than the chunk
                chunk = min(self.entries, chunk * 4)
                continue
            if code not in {0, errno.ENOENT}:
                raise KernelError(f"a BPF map could not be read: {os.strerror(code)}")
            keys.append(some_keys[:count])
            values.append(some_values[:count])
            if code == errno.ENOENT:
                return joined(keys, self._key), joined(values, self._value)
            position, started = following, True

    def take(self, keys: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Remove the entries of *keys* and return the values they had at that moment; some may be gone."""
        keys, values = np.ascontiguousarray(keys), np.empty(len(keys), self._value)
        found, key_size, value_size = 0, self._key.itemsize, self._value.itemsize
        for key in range(keys.ctypes.data, keys.ctypes.data + len(keys) * key_size, key_size or 1):
            into = values.ctypes.data + found * value_size
            request = struct.pack("=IIQQQ", self._descriptor, 0, key, into, 0)
            if not syscall.bpf(Command.MAP_LOOKUP_AND_DELETE_ELEM, request):
                found += 1
            elif ctypes.get_errno() != errno.ENOENT:
                raise KernelError(f"a BPF map's entry could not be taken: {syscall.last_error()}", fix=_TAKES)
        return values[:found]

    def set(self, key: int, value: int | np.void) -> None:
        """Write one entry."""
        keys, values = np.array([key], self._key), np.array([value], self._value)
        if self._asked(Command.MAP_UPDATE_ELEM, keys, values):
            raise KernelError(f"a BPF map could not be written: {syscall.last_error()}")

    def get(self, key: int) -> np.void | None:
        """Return one entry; None where there is none."""
        keys, values = np.array([key], self._key), np.empty(1, self._value)
        if not self._asked(Command.MAP_LOOKUP_ELEM, keys, values):
            found: np.void = values[0]
            return found
        if ctypes.get_errno() != errno.ENOENT:
            raise KernelError(f"a BPF map could not be read: {syscall.last_error()}")
        return None

    def delete(self, key: int) -> None:
        """Remove one entry of a hash map; no matter if it is not there."""
        keys = np.array([key], self._key)
        if self._asked(Command.MAP_DELETE_ELEM, keys) and ctypes.get_errno() != errno.ENOENT:
            raise KernelError(f"a BPF map could not be written: {syscall.last_error()}")

    def _asked(self, command: Command, keys: npt.NDArray[Any], values: npt.NDArray[Any] | None = None) -> int:
        """Do something with one entry; not 0 if that failed."""
        into = 0 if values is None else values.ctypes.data
        return syscall.bpf(command, struct.pack("=IIQQQ", self._descriptor, 0, keys.ctypes.data, into, 0))
