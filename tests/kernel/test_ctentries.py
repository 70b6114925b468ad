"""Every attribute of an entry, against what conntrack(8) says of entries it made and of real traffic."""

from __future__ import annotations

import os
import re
import socket
import struct
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cttext
import ctxml
import numpy as np
import pandas as pd
import pytest
from ctmessages import attribute

import netlab
from netlab.errors import KernelError
from netlab.frames import coverage
from netlab.kernel import conntrack as module, ctframe, netlink, netns, nlmessages

SPACE = f"netlab-cte{os.getpid()}"
CASES = tomllib.loads((Path(__file__).parent.parent / "data" / "conntrack_entries.toml").read_text())["entry"]
RULES = """
table inet netlab_cte {
    ct helper follows { type "ftp" protocol tcp; }
    chain out {
        type filter hook output priority 0
        tcp dport 2121 ct helper set "follows"
        tcp dport 2121 ct label set 5
        udp dport 9999 ct label set 127
    }
}
"""


def inside(*command: str, text: str | None = None) -> str:
    command = ("ip", "netns", "exec", SPACE, *command)
    return subprocess.run(command, input=text, text=True, check=True, capture_output=True).stdout


@pytest.fixture(scope="module")
def written() -> Iterator[str]:
    subprocess.run(["ip", "netns", "add", SPACE], check=True)
    try:
        for setting in ("acct=1", "timestamp=1", "udp_timeout=3600"):  # no entry is to end before the tests
            inside("sysctl", "-qw", f"net.netfilter.nf_conntrack_{setting}")
        for case in CASES:
            inside("conntrack", "-I", *case["add"].split(), "-t", "3600")
        inside("nft", "-f", "-", text=RULES)
        inside("ip", "link", "set", "lo", "up")
        with (
            netns.entered(SPACE),
            socket.create_server(("127.0.0.1", 2121)) as server,
            socket.create_connection(server.getsockname()),
            socket.socket(type=socket.SOCK_DGRAM) as udp,
        ):
            udp.sendto(b"x", ("127.0.0.1", 9999))
            yield SPACE
    finally:
        subprocess.run(["ip", "netns", "del", SPACE], check=True)


@pytest.fixture(scope="module")
def etc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ctxml.label_names(tmp_path_factory.mktemp("etc"))


@pytest.fixture(scope="module")
def truth(written: str, etc: Path) -> dict[int, dict[str, Any]]:
    """Return what conntrack(8) says, by id."""
    return cttext.listed(written, etc)


@pytest.mark.privileged
@pytest.mark.parametrize("column", cttext.COLUMNS)
def test_a_column_is_what_conntrack_says(written: str, truth: dict[int, dict[str, Any]], column: str) -> None:
    assert len(truth) >= len(CASES) + 2
    assert not cttext.differences(netlab.conntrack(netns=written), truth, column)


@pytest.mark.privileged
@pytest.mark.parametrize("column", ctxml.COLUMNS)
def test_a_column_is_what_the_xml_of_conntrack_says(written: str, etc: Path, column: str) -> None:
    assert not ctxml.differences(netlab.conntrack(netns=written), written, etc, column)


@pytest.mark.privileged
def test_timeouts_and_flags_are_those_of_conntrack(written: str, truth: dict[int, dict[str, Any]]) -> None:
    frame = netlab.conntrack(netns=written)

    for row in frame.itertuples():
        entry = truth[row.id]
        flags = set(row.status.split("|"))
        assert 0 <= int(entry["timeout_s"]) - row.timeout_s <= 60, entry["line"]
        assert ("ASSURED" in entry["flags"], "UNREPLIED" in entry["flags"]) == (
            "assured" in flags,
            "seen-reply" not in flags,
        )
    assert frame.status.str.contains("fixed-timeout").sum() == 1


@pytest.mark.privileged
def test_an_entry_made_without_timestamps_has_none(written: str) -> None:
    inside("sysctl", "-qw", "net.netfilter.nf_conntrack_timestamp=0")
    try:
        made = "conntrack -I -p udp -s 10.9.9.9 -d 10.9.9.8 --sport 9 --dport 8 -t 60"
        inside(*made.split())
        (row,) = netlab.conntrack(netns=written, src="10.9.9.9").itertuples()
        assert pd.isna(row.started_at)
    finally:
        inside("conntrack", "-D", "-s", "10.9.9.9")
        inside("sysctl", "-qw", "net.netfilter.nf_conntrack_timestamp=1")


FILTERS: list[tuple[dict[str, Any], Callable[[pd.DataFrame], pd.Series]]] = [
    ({"mark": 0x42}, lambda frame: frame.mark == 0x42),
    ({"mark": "0x40/0xf0"}, lambda frame: frame.mark // 16 % 16 == 4),
    ({"mark": "0/0x40"}, lambda frame: frame.mark // 64 % 2 == 0),
    ({"zone": 0}, lambda frame: frame.zone == 0),
    ({"zone": 5}, lambda frame: frame.zone == 5),
    ({"zone": 7}, lambda frame: frame.zone == 7),
    ({"status": "assured"}, lambda frame: frame.status.str.contains("assured")),
    (
        {"status": ["seen-reply", "confirmed"]},
        lambda frame: frame.status.str.contains("seen-reply") & frame.status.str.contains("confirmed"),
    ),
    ({"family": 6}, lambda frame: frame.family == 6),
    ({"family": 4, "protocol": "tcp"}, lambda frame: (frame.family == 4) & (frame.protocol == "tcp")),
    ({"family": 4, "protocol": 99}, lambda frame: frame.protocol == "99"),
    ({"family": 4, "protocol": "icmp"}, lambda frame: frame.protocol == "icmp"),
    ({"src": "10.0.0.9"}, lambda frame: frame.src == "10.0.0.9"),
    ({"dst": "fd00:0::2"}, lambda frame: frame.dst == "fd00::2"),
    ({"src": "fd00::1"}, lambda frame: frame.src == "fd00::1"),
    (
        {"src": "fd00::1", "protocol": "sctp", "dport": 80},
        lambda frame: (frame.family == 6) & (frame.dport == 80),
    ),
    ({"src": "10.0.0.9", "dst": "10.0.0.3"}, lambda frame: frame.dst == "10.0.0.3"),
    (
        {"family": 4, "protocol": "udp", "dport": 5353},
        lambda frame: (frame.dport == 5353) & (frame.family == 4),
    ),
    (
        {"src": "10.0.0.1", "protocol": "udp", "sport": 53, "dport": 5353},
        lambda frame: frame.sport == 53,
    ),
    ({"dport": 5353}, lambda frame: frame.dport == 5353),
    ({"family": 4, "protocol": "icmp", "sport": 76}, lambda frame: frame.protocol == "icmp"),
    ({"address": "192.0.2.1"}, lambda frame: frame.reply_dst == "192.0.2.1"),
]


@pytest.mark.privileged
@pytest.mark.parametrize(
    ("options", "test"), FILTERS, ids=lambda value: str(value) if isinstance(value, dict) else ""
)
@pytest.mark.parametrize("kernel", ["filters", "refuses to filter", "passes over filters"])
def test_a_filter_gives_the_same_rows_with_and_without_the_kernel(
    written: str,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    test: Callable[[pd.DataFrame], pd.Series],
    kernel: str,
) -> None:
    everything = netlab.conntrack(netns=written)
    keep = test(everything).fillna(value=False).astype(bool)
    real = netlink.dump

    def older(protocol: int, message_type: int, body: bytes, **more: Any) -> nlmessages.Dump:
        if len(body) > 4 and kernel == "refuses to filter":
            raise KernelError("EOPNOTSUPP")
        return real(protocol, message_type, body[:4], **more)

    if kernel != "filters":
        monkeypatch.setattr(module.netlink, "dump", older)

    assert 0 < keep.sum() < len(everything)
    assert set(netlab.conntrack(netns=written, **options).id) == set(everything[keep].id)


@pytest.mark.privileged
@pytest.mark.parametrize(
    ("options", "most"),
    [
        ({"mark": 0x42}, 1),
        ({"status": "assured"}, 3),
        ({"zone": 5}, 1),
        ({"src": "10.0.0.9"}, 3),
        ({"family": 4, "protocol": "udp", "sport": 53}, 1),
    ],
)
def test_the_kernel_leaves_out_what_it_can(
    written: str, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], most: int
) -> None:
    sent: list[int] = []
    real = netlink.dump

    def counted(*arguments: Any, **more: Any) -> nlmessages.Dump:
        dump = real(*arguments, **more)
        sent.append(len(dump))
        return dump

    monkeypatch.setattr(module.netlink, "dump", counted)
    netlab.conntrack(netns=written, **options)

    assert len(sent) == 1
    assert 0 < sent[0] <= most


@pytest.mark.privileged
def test_several_namespaces_are_listed_each_once(written: str) -> None:
    several = netlab.conntrack(netns=[written, f"/run/netns/{written}", None])

    assert set(several.netns) <= {netns.inode(written), netns.inode()}
    assert (several.netns == netns.inode(written)).sum() == len(netlab.conntrack(netns=written))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mark": "0x4z"}, "mark '0x4z' is no mark"),
        ({"mark": -1}, "mark -1"),
        ({"zone": 65536}, "zone 65536"),
        ({"status": "asured"}, "Did you mean 'assured'"),
        ({"src": "10.0.0.1", "dst": "::1"}, "not of family 4"),
        ({"sport": 0}, "sport 0"),
        ({"netns": []}, "netns is an empty list"),
        ({"netns": ["no-such-namespace"]}, "no network namespace 'no-such-namespace'"),
    ],
)
def test_bad_input_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(netlab.BadInput, match=re.escape(said)):
        netlab.conntrack(**options)


DCCP = "NONE REQUEST RESPOND PARTOPEN OPEN CLOSEREQ CLOSING TIMEWAIT IGNORE INVALID"

# What this kernel cannot make (flow tables, security contexts, DCCP) is made here, byte by byte.


def message(protocol: int, *more: bytes, status: int = 0xE) -> bytes:
    def side(kind: int, source: str, target: str) -> bytes:
        addresses = attribute(1, socket.inet_aton(source)) + attribute(2, socket.inet_aton(target))
        ports = attribute(1, bytes([protocol])) + attribute(2, b"\0\1") + attribute(3, b"\0\2")
        return attribute(
            kind, attribute(1, addresses, nested=True) + attribute(2, ports, nested=True), nested=True
        )

    tuples = side(1, "10.0.0.1", "10.0.0.2") + side(2, "10.0.0.2", "10.0.0.1")
    body = bytes([2, 0, 0, 0]) + tuples + attribute(3, struct.pack(">I", status)) + b"".join(more)
    return struct.pack("=IHHII", 16 + len(body), 0x100, 2, 1, 0) + body


def framed(*messages: bytes) -> pd.DataFrame:
    words = np.frombuffer(b"".join(messages), np.uint32)
    return ctframe.frame_of(nlmessages.Dump.of(words), inode=1)


@pytest.mark.parametrize(("place", "name"), list(enumerate(DCCP.split())))
def test_a_dccp_state_has_its_name(place: int, name: str) -> None:
    state = attribute(4, attribute(2, attribute(1, bytes([place])), nested=True), nested=True)

    assert framed(message(33, state))[["protocol", "state"]].to_numpy().tolist() == [["dccp", name]]


def test_an_offloaded_flow_says_by_what_and_has_no_timeout() -> None:
    timeout = attribute(7, struct.pack(">I", 60))
    flows = framed(
        message(6, timeout), message(6, status=0xE | 1 << 14), message(6, status=0xE | 1 << 14 | 1 << 15)
    )

    assert [None if pd.isna(by) else by for by in flows.offload] == [None, "software", "hardware"]
    assert flows.timeout_s.isna().tolist() == [False, True, True]
    assert flows.status.tolist()[2].endswith("|offload|hw-offload")


def test_a_security_context_is_text() -> None:
    context = attribute(19, attribute(1, b"system_u:object_r:http_t\0"), nested=True)

    assert framed(message(6), message(6, context)).secctx.tolist()[1] == "system_u:object_r:http_t"


def test_entries_without_counters_are_counted() -> None:
    (gap,) = coverage(framed(message(6), message(17))).itertuples()

    assert gap.count == 2
