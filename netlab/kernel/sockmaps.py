"""Sockets that eBPF joins to each other: what a map of sockets redirects does not pass TCP.

Service meshes and proxies do so (BPF_MAP_TYPE_SOCKMAP, BPF_MAP_TYPE_SOCKHASH). Source: net/ipv4/tcp_bpf.c,
where tcp_bpf_sendmsg() puts the data into the queue of the other socket and leaves the counters of both.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from functools import lru_cache

from netlab.frames import Gap, Missing
from netlab.kernel import syscall
from netlab.kernel.syscall import Command

_KINDS = {15, 18}  # enum bpf_map_type, include/uapi/linux/bpf.h
_READ_ONLY = 1 << 3  # BPF_F_RDONLY
_DETAIL = (
    "maps of sockets are on this host (sockmap, sockhash): what eBPF redirects by them from socket to socket "
    "does not pass TCP, and is neither counted nor read"
)


def missing() -> list[Missing]:
    """Say that counters of TCP need not be all, if there are such maps; nothing without CAP_SYS_ADMIN."""
    count = sum(_kind(number) in _KINDS for number in _numbers())
    return [Missing("bytes, packets of TCP", Gap.APPROXIMATE, count, _DETAIL)] if count else []


def _numbers() -> Iterator[int]:
    """Return the ids of all maps, none of them where it is not allowed to ask."""
    number = 0
    while True:
        request = ctypes.create_string_buffer(struct.pack("=III", number, 0, 0), 12)
        if syscall.bpf(Command.MAP_GET_NEXT_ID, request):
            return
        (number,) = struct.unpack_from("=I", request, 4)
        yield number


@lru_cache(maxsize=65536)
def _kind(number: int) -> int | None:
    """Return which kind of map that is, None if it is gone. Numbers go up and come around at 2^31."""
    descriptor = syscall.bpf(Command.MAP_GET_FD_BY_ID, struct.pack("=III", number, 0, _READ_ONLY))
    if descriptor < 0:
        return None
    try:
        kind = ctypes.c_uint32()
        size = ctypes.sizeof(kind)
        request = struct.pack("=IIQ", descriptor, size, ctypes.addressof(kind))
        return None if syscall.bpf(Command.OBJ_GET_INFO_BY_FD, request) else kind.value
    finally:
        os.close(descriptor)
