"""The BPF ring buffer read in blocks: the whole unread stretch as one numpy array.

The kernel maps three parts behind the map's descriptor (kernel/bpf/ringbuf.c): a page with the consumer's
position, a page with the producer's, and the data twice in a row, so that a stretch across the end is
contiguous. Each record is an 8-byte header (length with two flag bits, page offset) and its payload, padded
to 8 bytes.

The kernel reads and writes the positions and the headers in order (smp_load_acquire(), smp_store_release(),
xchg()), and so has the reader to. numpy's loads and stores are plain ones: in order on x86, on ARM only where
something says so. libbpf's consumer does, and calls back once per record, which blocks are to avoid.
"""

from __future__ import annotations

import mmap
import threading

import numpy as np
import numpy.typing as npt

from netlab.closing import Closes
from netlab.errors import KernelError
from netlab.kernel import keys

_BUSY, _DISCARDED = 1 << 31, 1 << 30  # BPF_RINGBUF_BUSY_BIT, BPF_RINGBUF_DISCARD_BIT
_HEADER = 8


def _in_order() -> None:
    """Have all that this thread has read and written done before what it reads and writes from now on.

    What synchronizes memory in Python is a lock (POSIX.1-2017 XBD section 4.12): nothing before its release
    moves behind that, nothing behind its next acquisition moves before it.
    """
    lock = threading.Lock()
    for _ in range(2):
        with lock:
            pass


class RingBuffer(Closes):
    """Reads a ring buffer in which every record has one layout.

    Parameters
    ----------
    descriptor
        The map's file descriptor; stays the caller's.
    size
        Size of the data in bytes: pages times a power of two.
    record
        Layout of one record.
    """

    def __init__(self, descriptor: int, size: int, record: np.dtype[np.void]) -> None:
        page = mmap.PAGESIZE
        self._size = size
        padded = -(-record.itemsize // 8) * 8
        self._slot = np.dtype(
            {
                "names": ["length", "record"],
                "formats": ["u4", keys.raw(record)],  # numpy would copy it field by field
                "offsets": [0, _HEADER],
                "itemsize": _HEADER + padded,
            }
        )
        self._record, self._nothing = record, np.empty(0, record)
        self._consumer = mmap.mmap(descriptor, page)
        self._rest = mmap.mmap(descriptor, page + 2 * self._size, prot=mmap.PROT_READ, offset=page)
        self._position = np.frombuffer(self._consumer, np.uint64, 1)
        self._produced = np.frombuffer(self._rest, np.uint64, 1)
        self._data = np.frombuffer(self._rest, np.uint8, 2 * self._size, page)

    def read(self) -> npt.NDArray[np.void]:
        """Return every finished record since the last call, oldest first, and free its place."""
        start, end = int(self._position[0]), int(self._produced[0])
        if start == end:
            return self._nothing
        _in_order()  # the headers up to there
        offset, slots = start % self._size, (end - start) // self._slot.itemsize
        view = np.frombuffer(self._data[offset:].data, self._slot, slots)
        lengths = view["length"].copy()
        _in_order()  # the records that they say are finished
        if ((lengths & ~np.uint32(_BUSY | _DISCARDED)) != self._nothing.itemsize).any():
            del view, lengths  # the traceback would keep them, and they the buffer
            raise KernelError(
                f"a ring buffer for records of {self._nothing.itemsize} bytes has one of another length",
                fix="Send one kind of struct into each ring buffer",
            )
        busy = np.flatnonzero(lengths & _BUSY)
        if len(
            busy
        ):  # reserved by another CPU and not yet written: it and what follows waits for the next call
            view, lengths = view[: busy[0]], lengths[: busy[0]]
        records: npt.NDArray[np.void] = view["record"][(lengths & _DISCARDED) == 0].view(self._record)
        _in_order()  # before the kernel writes there again
        self._position[0] = start + len(view) * self._slot.itemsize
        return records

    @property
    def unread_bytes(self) -> int:
        """How much of the buffer is filled now."""
        return int(self._produced[0]) - int(self._position[0])

    def close(self) -> None:
        """Unmap the buffer; what was not read is left to the kernel."""
        if self._consumer.closed:
            return
        del self._position, self._produced, self._data
        self._consumer.close()
        self._rest.close()
