"""Packets of loopback as AF_PACKET has them: when requests and answers were on the wire, without netlab."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

_ETH_P_ALL = 3
_SOL_PACKET, _PACKET_IGNORE_OUTGOING = 263, 23  # on loopback a packet is sent and received
_SO_ATTACH_FILTER, _SO_RCVBUFFORCE, _SO_TIMESTAMPNS = 26, 33, 35
_INSTRUCTION = struct.Struct("HBBI")  # struct sock_filter
_LDB, _AND, _JEQ, _JA, _LDX_HEADER, _LDX, _LDH_X, _RET = 0x30, 0x54, 0x15, 0x05, 0xB1, 0x01, 0x48, 0x06
_H2_PREFACE = 24  # bytes

Begin: TypeAlias = tuple[
    int, int
]  # of a request or an answer: what pairs them, and where in its stream it is


class _Packet(NamedTuple):
    at_ns: int
    from_server: bool
    client: int  # port
    payload: bytes


@dataclass
class Wire:
    """What clients and the servers at *ports* said; nothing is lost where `drain` is called often enough."""

    ports: set[int]
    sniffer: socket.socket
    packets: dict[int, list[_Packet]] = field(default_factory=dict)  # by port of the server

    def drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                self._note(*self.sniffer.recvmsg(1 << 17, 64)[:2])

    def _note(self, data: bytes, told: list[tuple[int, int, bytes]]) -> None:
        if data[0] >> 4 == 6:
            place, is_tcp = 40, data[6] == socket.IPPROTO_TCP
        else:
            place, is_tcp = (data[0] & 15) * 4, data[9] == socket.IPPROTO_TCP
        if not is_tcp:
            return
        source, target = struct.unpack_from("!HH", data, place)
        payload = data[place + (data[place + 12] >> 4) * 4 :]
        server = source if source in self.ports else target
        if payload and server in self.ports:
            seconds, rest = struct.unpack("qq", told[0][2])
            packet = _Packet(seconds * 10**9 + rest, source == server, source + target - server, payload)
            self.packets.setdefault(server, []).append(packet)

    def latencies_ms(self, protocol: str, port: int) -> list[float]:
        """Return how long each request's answer took, from first byte to first byte, in order."""
        packets = self.packets[port]
        client = packets[-1].client  # the one that asks: brokers have others
        packets = [one for one in packets if one.client == client]
        return _by_number(packets, _BEGINS[protocol]) if protocol in _BEGINS else _in_turns(packets)


@contextlib.contextmanager
def sniffing(ports: set[int]) -> Iterator[Wire]:
    """Listen on loopback as long as the block lasts."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as sniffer:
        sniffer.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 26)
        sniffer.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        sniffer.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        program = ctypes.create_string_buffer(_to_or_from(sorted(ports)))
        count, place = len(program) // _INSTRUCTION.size, ctypes.addressof(program)
        sniffer.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", count, place))
        sniffer.bind(("lo", _ETH_P_ALL))
        sniffer.setblocking(False)
        yield Wire(ports, sniffer)


def _to_or_from(ports: list[int]) -> bytes:
    """Return a program that lets in what is to or from a port: all else on loopback would push it out."""
    rest = range(len(ports), 0, -1)
    sources = [(_JEQ, left + len(ports) + 1, 0, port) for left, port in zip(rest, ports, strict=True)]
    targets = [(_JEQ, left, 0, port) for left, port in zip(rest, ports, strict=True)]
    version = [(_LDB, 0, 0, 0), (_AND, 0, 0, 0xF0), (_JEQ, 2, 0, 0x60)]
    begin = [(_LDX_HEADER, 0, 0, 0), (_JA, 0, 0, 1), (_LDX, 0, 0, 40)]
    tests = [(_LDH_X, 0, 0, 0), *sources, (_LDH_X, 0, 0, 2), *targets]
    program = [*version, *begin, *tests, (_RET, 0, 0, 0), (_RET, 0, 0, 1 << 18)]
    return b"".join(_INSTRUCTION.pack(*one) for one in program)


def _in_turns(packets: list[_Packet]) -> list[float]:
    """Pair what a client says with what it hears, where it waits for each answer."""
    found, asked_ns, answered = [], 0, True
    for one in packets:
        if not one.from_server and answered:
            asked_ns, answered = one.at_ns, False
        elif one.from_server and not answered:
            found.append((one.at_ns - asked_ns) / 1e6)
            answered = True
    return found


def _by_number(packets: list[_Packet], begins: Callable[[bytes, bool], Iterator[Begin]]) -> list[float]:
    at: list[dict[int, int]] = []
    for from_server in (False, True):
        way = [one for one in packets if one.from_server is from_server]
        starts = [0]
        for one in way:
            starts.append(starts[-1] + len(one.payload))
        stream = b"".join(one.payload for one in way)
        first: dict[int, int] = {}
        for number, place in begins(stream, from_server):
            first.setdefault(number, way[bisect_right(starts, place) - 1].at_ns)
        at.append(first)
    asked, answered = at
    return [(answered[number] - at_ns) / 1e6 for number, at_ns in asked.items()]


def _headers(stream: bytes, from_server: bool) -> Iterator[Begin]:
    """Find the HEADERS of HTTP/2, by stream."""
    place = 0 if from_server else _H2_PREFACE
    while place + 9 <= len(stream):
        if stream[place + 3] == 1:
            yield int.from_bytes(stream[place + 5 : place + 9], "big"), place
        place += 9 + int.from_bytes(stream[place : place + 3], "big")


def _produced(stream: bytes, from_server: bool) -> Iterator[Begin]:
    """Find the requests of Kafka to produce, and answers, by correlation id."""
    place = 0
    while place + 12 <= len(stream):
        key = place + 4 if from_server else place + 8
        if from_server or stream[place + 4 : place + 6] == b"\0\0":
            yield int.from_bytes(stream[key : key + 4], "big"), place
        place += 4 + int.from_bytes(stream[place : place + 4], "big")


_BEGINS = {"http2": _headers, "grpc": _headers, "kafka": _produced}
