"""Captures as scapy writes and reads them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import PcapNgWriter, PcapWriter, RawPcapNgReader, rdpcap

from netlab.errors import DecodeError
from netlab.wire import pcapng
from netlab.wire.pcapng import Packet

PACKETS = [Ether() / IP(dst="192.0.2.1") / UDP(sport=1, dport=2) / (b"x" * size) for size in range(5)]
TIMES_NS = [1_763_688_632_123_456_000 + 1000 * place for place in range(5)]


def written(path: Path, kind: str) -> bytes:
    for packet, at_ns in zip(PACKETS, TIMES_NS, strict=True):
        packet.time = at_ns / 10**9
    if kind == "pcapng":
        with PcapNgWriter(str(path)) as writer:
            for packet in PACKETS:
                writer.write(packet)
    else:
        order = ">" if kind == "big-endian" else "<"
        with PcapWriter(str(path), nano=kind == "nanoseconds", endianness=order, linktype=1) as writer:
            writer.write_header(None)
            for packet, at_ns in zip(PACKETS, TIMES_NS, strict=True):
                ticks = at_ns % 10**9 // (1 if kind == "nanoseconds" else 1000)
                writer.write_packet(bytes(packet), sec=at_ns // 10**9, usec=ticks)
    return path.read_bytes()


def copied(data: bytes, comments: list[str]) -> bytes:
    found = pcapng.blocks(io.BytesIO(data).read)
    return b"".join(block.block(comments) if isinstance(block, Packet) else block for block in found)


@pytest.mark.parametrize("kind", ["microseconds", "nanoseconds", "big-endian"])
def test_packets_of_pcap_keep_bytes_and_times(tmp_path: Path, kind: str) -> None:
    data = written(tmp_path / "a", kind)

    found = [block for block in pcapng.blocks(io.BytesIO(data).read) if isinstance(block, Packet)]

    assert [packet.data for packet in found] == [bytes(packet) for packet in PACKETS]
    assert [packet.at_ns for packet in found] == TIMES_NS
    out = tmp_path / "out.pcapng"
    out.write_bytes(copied(data, []))
    assert [bytes(packet) for packet in rdpcap(str(out))] == [bytes(packet) for packet in PACKETS]


def test_a_pcapng_file_without_new_comments_stays_the_same(tmp_path: Path) -> None:
    data = written(tmp_path / "a", "pcapng")

    assert copied(data, []) == data


def test_comments_are_read_by_scapy_beside_those_that_were_there(tmp_path: Path) -> None:
    path = tmp_path / "a"
    PACKETS[0].comment = b"old"
    try:
        data = written(path, "pcapng")
    finally:
        PACKETS[0].comment = None

    path.write_bytes(copied(data, ["curl[7] é", "sshd[9]"]))

    with RawPcapNgReader(str(path)) as reader:
        told: list[Any] = [metadata.comments for _, metadata in reader]
    assert told[0] == ["curl[7] é".encode(), b"sshd[9]", b"old"]
    assert told[1:] == [["curl[7] é".encode(), b"sshd[9]"]] * 4


def test_a_file_cut_in_a_packet_has_those_before(tmp_path: Path) -> None:
    data = written(tmp_path / "a", "microseconds")
    found: list[Packet | bytes] = []

    with pytest.raises(EOFError):
        all(found.append(block) is None for block in pcapng.blocks(io.BytesIO(data[:-1]).read))

    assert sum(isinstance(block, Packet) for block in found) == 4


@given(st.data())
@settings(max_examples=300)
def test_any_bytes_are_packets_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = bytearray(
        written(tmp_path_factory.mktemp("pcap") / "a", data.draw(st.sampled_from(["pcapng", "us"])))
    )
    for _ in range(data.draw(st.integers(0, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])

    try:
        copied(cut, ["x"])
    except (DecodeError, EOFError):
        return


@pytest.mark.parametrize("data", [b"", b"PK", b"just some text that is long enough"])
def test_what_is_no_capture_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        list(pcapng.blocks(io.BytesIO(data).read))
