"""What eBPF hands from one socket to the other does not pass TCP: the coverage says so."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
from collections.abc import Iterator

import pytest

import netlab

pytestmark = [pytest.mark.privileged, pytest.mark.alone]  # the coverage of all who look would say so
MAP_CREATE, MAP_UPDATE_ELEM, PROG_LOAD, PROG_ATTACH = 0, 2, 5, 8  # include/uapi/linux/bpf.h
SOCKMAP, SK_MSG, SK_MSG_VERDICT, MSG_REDIRECT_MAP = 15, 16, 7, 60


def bpf(command: int, attributes: bytes) -> int:
    """Call bpf(2) without netlab."""
    whole = ctypes.create_string_buffer(attributes.ljust(72, b"\0"), 72)
    numbers = {"x86_64": 321, "aarch64": 280}
    answer = ctypes.CDLL(None, use_errno=True).syscall(numbers[os.uname().machine], command, whole, 72)
    assert answer >= 0, os.strerror(ctypes.get_errno())
    return int(answer)


@contextlib.contextmanager
def redirecting(*sockets: socket.socket) -> Iterator[None]:
    """Put what any of *sockets* sends into the receive queue of the last one, as proxies and meshes do."""
    table = bpf(MAP_CREATE, struct.pack("=IIII", SOCKMAP, 4, 4, len(sockets)))
    steps = b"".join(
        [
            struct.pack("=BBhiBBhi", 0x18, 0x12, 0, table, 0, 0, 0, 0),  # r2 = the map
            struct.pack("=BBhi", 0xB7, 3, 0, len(sockets) - 1),  # r3 = where in it
            struct.pack("=BBhi", 0xB7, 4, 0, 1),  # r4 = BPF_F_INGRESS
            struct.pack("=BBhi", 0x85, 0, 0, MSG_REDIRECT_MAP),
            struct.pack("=BBhi", 0x95, 0, 0, 0),
        ]
    )
    code, licence = ctypes.create_string_buffer(steps), ctypes.create_string_buffer(b"GPL")
    places = ctypes.addressof(code), ctypes.addressof(licence)
    program = bpf(PROG_LOAD, struct.pack("=IIQQ44xI", SK_MSG, len(steps) // 8, *places, SK_MSG_VERDICT))
    try:
        bpf(PROG_ATTACH, struct.pack("=IIII", table, program, SK_MSG_VERDICT, 0))
        for place, one in enumerate(sockets):
            key, value = ctypes.c_uint32(place), ctypes.c_uint32(one.fileno())
            entry = ctypes.addressof(key), ctypes.addressof(value)
            bpf(MAP_UPDATE_ELEM, struct.pack("=I4xQQQ", table, *entry, 0))
        yield
    finally:
        os.close(program)
        os.close(table)


def test_bytes_that_a_map_of_sockets_redirects_are_not_counted_and_said(ports: tuple[int, int]) -> None:
    with (
        socket.create_server(("127.0.0.1", ports[0])) as listening,
        netlab.capture(port=ports[0]) as capture,
        socket.create_connection(listening.getsockname()) as client,
        listening.accept()[0] as server,
        redirecting(client, server),
    ):
        client.sendall(bytes(1000))
        assert len(server.recv(1000, socket.MSG_WAITALL)) == 1000
        frames = capture.connections(), netlab.connections(port=ports[0])

    for frame in frames:
        assert frame["bytes_sent"].tolist() == [0, 0]
        said = netlab.coverage(frame).query("what == 'bytes, packets of TCP'")
        assert said["kind"].tolist() == ["approximate"]
        assert said["count"].item() >= 1
