from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from scapy.layers.inet import IP, TCP
from scapy.utils import PcapWriter, RawPcapNgReader, wrpcap

import netlab
from netlab.errors import BadInput, BundleError, DecodeError
from netlab.schemas import CONNECTIONS, DOCTOR

T0_S = 1_763_688_632
RAW = 101


def comments(path: Path) -> list[list[str]]:
    with RawPcapNgReader(str(path)) as reader:
        return [[text.decode() for text in metadata.comments or []] for _, metadata in reader]


def sniffed(sniffer: socket.socket, path: Path, ports: set[int]) -> None:
    """Write what *sniffer* has of *ports* to a pcap file."""
    sniffer.setblocking(False)
    with PcapWriter(str(path), linktype=1) as writer:
        writer.write_header(None)
        while True:
            try:
                data = sniffer.recv(65536)
            except BlockingIOError:
                return
            if {int.from_bytes(data[34:36], "big"), int.from_bytes(data[36:38], "big")} & ports:
                writer.write_packet(data, sec=int(time.time()), usec=0)


@pytest.mark.privileged
def test_each_packet_on_loopback_names_both_ends(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        netlab.capture(port=server.getsockname()[1]) as cap,
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sniffer,  # hears nothing until it is bound
    ):
        sniffer.bind(("lo", 0x0003))
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client, server.accept()[0] as peer:
            client.sendall(b"hello")
            assert peer.recv(10) == b"hello"
        sniffed(sniffer, tmp_path / "lo.pcap", {port})
    rows = cap.connections().query("local_port == @port or remote_port == @port")

    told = netlab.annotate_pcap(tmp_path / "lo.pcap", rows, tmp_path / "lo.pcapng")

    name = Path("/proc/self/comm").read_text().strip()
    assert len(rows) == 2
    assert told.packets == told.named >= 5
    expected = {f"{name}[{os.getpid()}] attempt {place}" for place in rows.index}
    assert all(set(each) == expected for each in comments(tmp_path / "lo.pcapng"))


# -- whose it is, by tuple and time ----------------------------------------------------------------------


def connections(*lives: tuple[str, float, float | None], **more: Any) -> pd.DataFrame:
    """Return connections that had one tuple one after the other: name, start and end in seconds."""
    count = len(lives)

    def at(seconds: float | None) -> pd.Timestamp | None:
        return None if seconds is None else pd.Timestamp(T0_S + seconds, unit="s", tz="UTC")

    columns = {
        "protocol": ["tcp"] * count,
        "process": [name for name, *_ in lives],
        "pid": [7] * count,
        "local_address": ["192.0.2.1"] * count,
        "local_port": [40000] * count,
        "remote_address": ["192.0.2.2"] * count,
        "remote_port": [443] * count,
        "opened_at": [at(start) for _, start, _ in lives],
        "closed_at": [at(end) for *_, end in lives],
    }
    return CONNECTIONS.frame(columns | {name: [value] * count for name, value in more.items()})


def owner(tmp_path: Path, frame: pd.DataFrame, packet: Any, at_s: float) -> list[str]:
    packet.time = T0_S + at_s
    wrpcap(str(tmp_path / "a.pcap"), [packet], linktype=RAW)
    netlab.annotate_pcap(tmp_path / "a.pcap", frame, tmp_path / "a.pcapng", overwrite=True)
    (told,) = comments(tmp_path / "a.pcapng")
    return [text.partition("[")[0] for text in told]


OUT = IP(src="192.0.2.1", dst="192.0.2.2") / TCP(sport=40000, dport=443, flags="A")
SYN = IP(src="192.0.2.1", dst="192.0.2.2") / TCP(sport=40000, dport=443, flags="S")
BACK = IP(src="192.0.2.2", dst="192.0.2.1") / TCP(sport=443, dport=40000, flags="A")


@pytest.mark.parametrize(
    ("packet", "at_s", "expected"),
    [
        (OUT, 12, ["first"]),
        (BACK, 12, ["first"]),
        (OUT, 25, ["first"]),  # the last acknowledgments
        (SYN, 29, ["second"]),  # an accepted one is known from the end of its handshake
        (OUT, 31, ["second"]),
        (OUT, 39, ["second"]),
        (OUT, 120, []),
        (SYN, 5, []),
        (SYN, 8, ["first"]),
    ],
)
def test_a_tuple_used_again_is_told_apart_by_time(
    tmp_path: Path, packet: Any, at_s: float, expected: list[str]
) -> None:
    frame = connections(("second", 30, 40), ("first", 10, 20))

    assert owner(tmp_path, frame, packet, at_s) == expected


def test_a_connection_of_unknown_start_and_end_has_all_its_packets(tmp_path: Path) -> None:
    assert owner(tmp_path, connections(("old", 0, None)).assign(opened_at=pd.NaT), OUT, 5) == ["old"]


def test_packets_beyond_the_translation_are_found_too(tmp_path: Path) -> None:
    frame = connections(("curl", 0, 10), nat_local_address="198.51.100.9", nat_local_port=61000)
    outside = IP(src="192.0.2.2", dst="198.51.100.9") / TCP(sport=443, dport=61000, flags="A")

    assert owner(tmp_path, frame, outside, 5) == ["curl"]


def test_a_failure_is_in_the_comment_and_an_unknown_owner_is_unknown(tmp_path: Path) -> None:
    frame = connections(("curl", 0, 1), error="ECONNREFUSED", reason="refused: by a reset")
    frame["process"], frame["pid"] = pd.array([None], "string"), pd.array([None], "Int64")
    SYN.time = T0_S
    wrpcap(str(tmp_path / "a.pcap"), [SYN], linktype=RAW)

    netlab.annotate_pcap(tmp_path / "a.pcap", frame, tmp_path / "a.pcapng")

    assert comments(tmp_path / "a.pcapng") == [
        ["unknown process attempt 0, ECONNREFUSED: refused: by a reset"]
    ]


def test_packets_are_counted_by_what_became_of_them(tmp_path: Path) -> None:
    other = IP(src="192.0.2.77", dst="192.0.2.2") / TCP(sport=1, dport=2)
    for packet in (OUT, other):
        packet.time = T0_S + 1
    path = tmp_path / "a.pcap"
    wrpcap(
        str(path), [OUT, other, IP(src="192.0.2.1", dst="192.0.2.2", proto=1) / b"ping", OUT], linktype=RAW
    )
    path.write_bytes(path.read_bytes()[:-3])

    told = netlab.annotate_pcap(path, connections(("curl", 0, 2)), tmp_path / "a.pcapng")

    assert (told.packets, told.named, told.other, told.unreadable, told.cut) == (3, 1, 1, 1, True)


# -- errors ----------------------------------------------------------------------------------------------


def test_what_is_no_capture_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    path.write_text("not packets")

    with pytest.raises(DecodeError, match="neither pcap nor pcapng"):
        netlab.annotate_pcap(path, connections(), tmp_path / "out.pcapng")

    assert [file.name for file in tmp_path.iterdir()] == ["a.pcap"]


def test_other_frames_missing_files_and_existing_ones_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "out.pcapng"
    with pytest.raises(BadInput, match="doctor"):
        netlab.annotate_pcap(tmp_path / "a", DOCTOR.empty(), out)
    with pytest.raises(BundleError, match=r"cannot read .*No such file"):
        netlab.annotate_pcap(tmp_path / "a", connections(), out)
    out.write_text("precious")
    with pytest.raises(BundleError, match="exists already"):
        netlab.annotate_pcap(tmp_path / "a", connections(), out)
    assert out.read_text() == "precious"
