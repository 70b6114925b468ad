from __future__ import annotations

import re
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import ctxml
import pandas as pd
import pytest
from between import Between, between, inside, run

from netlab.errors import BadInput
from netlab.frames import coverage
from netlab.kernel import conntrack as module, ctframe, netlink, netns
from netlab.kernel.conntrack import conntrack
from netlab.kernel.nat import nat

NET = Between(77)
CLIENT, ROUTER, SERVER = NET.all
RULES = """
table inet netlab_ct {
    chain zones {
        type filter hook prerouting priority raw
        udp dport 5007 ct zone set 7
        udp sport 5007 ct zone set 7
    }
    chain marks {
        type filter hook prerouting priority mangle
        udp dport 5004 ct mark set 42
    }
    chain targets {
        type nat hook prerouting priority dstnat
        ip daddr 10.77.1.1 tcp dport 8080 dnat ip to 10.77.2.2:8000
        ip daddr 10.77.1.1 tcp dport 8081 dnat ip to 10.77.2.2:8001
        ip6 daddr fd77:1::1 tcp dport 8080 dnat ip6 to [fd77:2::2]:8000
    }
    chain sources {
        type nat hook postrouting priority srcnat
        tcp dport 8001 masquerade
        ip daddr 10.77.2.2 udp dport 5001 masquerade
        icmp type echo-request masquerade
    }
}
"""
LOSE = """
table inet netlab_ct {
    chain in {
        type filter hook input priority 0
        tcp dport 8009 drop
    }
}
"""
SETTINGS = (
    "net.netfilter.nf_conntrack_acct=1",
    *(f"net.netfilter.nf_conntrack_{kind}_timeout=3600" for kind in ("udp", "icmp", "icmpv6", "generic")),
)  # the timeouts outlive the tests
V4, V6 = "10.77.2.2", "fd77:2::2"
BECOME_NOBODY = "import os; os.setgroups([]); os.setresgid(*[65534] * 3); os.setresuid(*[65534] * 3)\n"
ECHO_REQUEST = {socket.IPPROTO_ICMP: 8, socket.IPPROTO_ICMPV6: 128}


def wire() -> None:
    inside(ROUTER, "nft", "-f", "-", text=RULES)
    inside(ROUTER, "sysctl", "-qw", *SETTINGS)  # some are there once a rule has loaded nf_conntrack
    inside(SERVER, "nft", "-f", "-", text=LOSE)


def talk(held: ExitStack) -> None:
    """Send one flow of every kind through the router; the sockets stay open until *held* closes."""
    with netns.entered(SERVER):
        for port in (8000, 8001, 8002):
            server = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
            held.enter_context(server)
        echo = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        echo.bind(("0.0.0.0", 5001))
    with netns.entered(CLIENT):
        for address, port in ((V4, 8000), (V4, 8001), ("10.77.1.1", 8080), ("10.77.1.1", 8081)):
            held.enter_context(socket.create_connection((address, port), timeout=10)).sendall(b"hello")
        for address, port in ((V6, 8000), (V6, 8001), ("fd77:1::1", 8080)):
            held.enter_context(socket.create_connection((address, port), timeout=10))
        finished = held.enter_context(socket.create_connection((V4, 8002), timeout=10))
        finished.shutdown(socket.SHUT_WR)
        lost = held.enter_context(socket.socket())
        lost.setblocking(False)
        lost.connect_ex((V4, 8009))
        asking = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        asking.settimeout(10)
        for port in (5001, 5004, 5007):
            asking.sendto(b"hello?", (V4, port))
        _, peer = echo.recvfrom(10)
        echo.sendto(b"hello!", peer)
        asking.recv(10)
        for family, protocol, address in (
            (socket.AF_INET, socket.IPPROTO_ICMP, V4),
            (socket.AF_INET6, socket.IPPROTO_ICMPV6, V6),
        ):
            ping = held.enter_context(socket.socket(family, socket.SOCK_DGRAM, protocol))
            ping.settimeout(10)
            ping.sendto(bytes([ECHO_REQUEST[protocol], 0, 0, 0, 0, 0, 0, 1]), (address, 0))
            ping.recv(100)
        unusual = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_RAW, 99))
        unusual.sendto(b"x", (V4, 0))
        inside(ROUTER, "sysctl", "-qw", "net.netfilter.nf_conntrack_acct=0")
        asking.sendto(b"uncounted", (V4, 5009))


@pytest.fixture(scope="module")
def router() -> Iterator[str]:
    with between(NET.number), ExitStack() as held:
        wire()
        talk(held)
        yield ROUTER


LINE = re.compile(
    r"(?P<layer>ipv\d) +\d+ (?P<name>\w+) +(?P<number>\d+) (?P<timeout>\d+) (?P<state>[A-Z]\w+ )?(?P<rest>.*)"
)


def listed(space: str) -> dict[int, dict[str, Any]]:
    """Return what conntrack(8) says, by id; a key it prints twice is of the reply the second time."""
    entries = {}
    for line in inside(space, "conntrack", "-L", "-o", "extended,id").splitlines():
        found = LINE.match(line)
        assert found, line
        entry: dict[str, Any] = {
            "family": int(found["layer"][-1]),
            "number": int(found["number"]),
            "protocol": found["name"],
            "timeout_s": int(found["timeout"]),
            "state": (found["state"] or "").strip() or None,
            "marks": set(re.findall(r"\[(\w+)\]", found["rest"])),
        }
        for key, value in re.findall(r"(\w+)=(\S+)", found["rest"]):
            entry[f"reply_{key}" if key in entry else key] = value
        # ICMP identifiers are printed like the entry's own id, which is the last.
        ids = [int(number) for number in re.findall(r"\bid=(\d+)", found["rest"])]
        entries[ids[-1]] = entry | {"icmp_ids": ids[:2]}
    return entries


@pytest.mark.privileged
def test_the_entries_are_those_of_conntrack(router: str) -> None:
    frame, truth = conntrack(netns=router), listed(router)

    assert len(truth) >= 15
    assert set(frame.id) == set(truth)


@pytest.mark.privileged
def test_messages_become_rows_in_the_order_they_came_in(router: str) -> None:
    with netns.entered(router):
        dump = netlink.dump(12, 0x101, bytes(4), doing="list conntrack entries")

    frame = ctframe.frame_of(dump, inode=1)

    assert frame.id.tolist() == list(listed(router))  # conntrack(8) prints them as they come
    assert frame.index.tolist() == list(range(len(dump)))
    assert (coverage(frame)["count"] == 1).all()


@pytest.mark.privileged
@pytest.mark.parametrize("column", ["src", "dst", "reply_src", "reply_dst"])
def test_addresses_are_those_of_conntrack(router: str, column: str) -> None:
    frame, truth = conntrack(netns=router), listed(router)

    assert dict(zip(frame.id, frame[column], strict=True)) == {key: row[column] for key, row in truth.items()}


@pytest.mark.privileged
@pytest.mark.parametrize(
    "column",
    [
        "family",
        "sport",
        "dport",
        "reply_sport",
        "reply_dport",
        "packets",
        "bytes",
        "reply_packets",
        "reply_bytes",
    ],
)
def test_numbers_are_those_of_conntrack(router: str, column: str) -> None:
    frame, truth = conntrack(netns=router), listed(router)
    frame = frame[~frame.protocol.isin(["icmp", "icmpv6"])] if "sport" in column else frame

    for key, value in zip(frame.id, frame[column], strict=True):
        assert (None if pd.isna(value) else int(value)) == optional(truth[key].get(column)), truth[key]


def optional(number: str | None) -> int | None:
    return None if number is None else int(number)


@pytest.fixture(scope="module")
def etc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ctxml.label_names(tmp_path_factory.mktemp("etc"))


@pytest.mark.privileged
@pytest.mark.parametrize("column", ctxml.COLUMNS)
def test_a_column_is_what_the_xml_of_conntrack_says(router: str, etc: Path, column: str) -> None:
    assert not ctxml.differences(conntrack(netns=router), router, etc, column)


@pytest.mark.privileged
def test_marks_zones_states_and_protocols_are_those_of_conntrack(router: str) -> None:
    frame, truth = conntrack(netns=router), listed(router)

    for row in frame.itertuples():
        entry = truth[row.id]
        assert row.mark == int(entry.get("mark", 0))
        assert row.zone == int(entry.get("zone", 0))
        assert (None if pd.isna(row.state) else row.state) == entry["state"]
        assert row.protocol == (entry["protocol"] if entry["protocol"] != "unknown" else str(entry["number"]))
        assert abs(row.timeout_s - entry["timeout_s"]) <= 30
    assert {42, 0} == set(frame.mark)
    assert {7, 0} == set(frame.zone)
    assert {"ESTABLISHED", "SYN_SENT", "CLOSE_WAIT", "FIN_WAIT"} & set(frame.state.dropna()) >= {
        "ESTABLISHED"
    }
    assert {"tcp", "udp", "icmp", "icmpv6", "99"} == set(frame.protocol)


@pytest.mark.privileged
def test_status_has_the_flags_that_conntrack_shows(router: str) -> None:
    frame, truth = conntrack(netns=router), listed(router)

    for key, status in zip(frame.id, frame.status, strict=True):
        flags = set(status.split("|"))
        assert ("assured" in flags) == ("ASSURED" in truth[key]["marks"])
        assert ("seen-reply" not in flags) == ("UNREPLIED" in truth[key]["marks"])
        assert "confirmed" in flags
    assert frame.status.str.contains("assured").any()
    assert not frame.status.str.contains("seen-reply").all()


@pytest.mark.privileged
def test_an_echo_has_its_type_code_and_identifier(router: str) -> None:
    frame, truth = conntrack(netns=router), listed(router)

    for protocol, kind in (("icmp", 8), ("icmpv6", 128)):
        (row,) = frame[(frame.protocol == protocol) & (frame.icmp_type == kind)].itertuples()
        entry = truth[row.id]
        assert (row.icmp_type, row.icmp_code) == (int(entry["type"]), int(entry["code"]))
        assert [row.sport, row.reply_sport] == entry["icmp_ids"]
        assert pd.isna(row.dport)
    assert frame[~frame.protocol.isin(["icmp", "icmpv6"])].icmp_type.isna().all()


@pytest.mark.privileged
@pytest.mark.parametrize(
    ("flow", "kind"),
    [
        (("tcp", V4, 8000), None),
        (("tcp", V4, 8001), "snat"),
        (("tcp", "10.77.1.1", 8080), "dnat"),
        (("tcp", "10.77.1.1", 8081), "both"),
        (("tcp", V6, 8000), None),
        (("tcp", V6, 8001), "snat"),
        (("tcp", "fd77:1::1", 8080), "dnat"),
        (("udp", V4, 5001), "snat"),
        (("udp", V4, 5004), None),
        (("icmp", V4, None), "snat"),
        (("icmpv6", V6, None), None),
        (("99", V4, None), None),
    ],
)
def test_the_kind_of_translation_is_what_the_rules_did(
    router: str, flow: tuple[str, str, int | None], kind: str | None
) -> None:
    protocol, dst, dport = flow
    frame = conntrack(netns=router, address=dst)
    ports = frame.dport.isna() if dport is None else (frame.dport == dport).fillna(value=False)
    echo = frame.icmp_type.isin([8, 128]) | frame.icmp_type.isna()  # not neighbour discovery
    (found,) = frame[(frame.protocol == protocol) & (frame.dst == dst) & ports & echo].nat

    assert (None if pd.isna(found) else found) == kind


@pytest.mark.privileged
def test_a_changed_port_alone_is_a_translation(router: str) -> None:
    (row,) = nat(netns=router, port=8081).itertuples()

    assert (row.dport, row.reply_sport, row.nat) == (8081, 8001, "both")


@pytest.mark.privileged
def test_nat_lists_exactly_the_translated_flows(router: str) -> None:
    everything, translated = conntrack(netns=router), nat(netns=router)

    assert set(translated.id) == set(everything[everything.nat.notna()].id)
    assert len(translated) == 7
    changed = everything.status.str.split("|").map(lambda names: bool({"src-nat", "dst-nat"} & set(names)))
    assert set(everything[changed].id) == set(translated.id)


@pytest.mark.privileged
@pytest.mark.parametrize(
    "options",
    [
        {"family": 6},
        {"protocol": "udp"},
        {"protocol": 99},
        {"port": 8001},
        {"port": 5007},
        {"address": "10.77.2.1"},
        {"address": "fd77:1:0::2"},
        {"address": "::ffff:10.77.2.1"},
        {"address": V4, "protocol": "tcp", "port": 8000, "family": 4},
    ],
)
def test_a_filter_keeps_the_entries_that_have_it_and_no_other(router: str, options: dict[str, Any]) -> None:
    everything, found = conntrack(netns=router), conntrack(netns=router, **options)
    address = options.get("address", "").replace("::ffff:", "").replace(":0::", "::")
    tests = {
        "family": everything.family == options.get("family"),
        "protocol": everything.protocol == str(options.get("protocol")),
        "port": everything.filter(like="port").eq(options.get("port", 0)).any(axis=1),
        "address": everything[["src", "dst", "reply_src", "reply_dst"]].eq(address).any(axis=1),
    }
    keep = pd.concat([tests[name] for name in options], axis=1).all(axis=1)

    assert 0 < len(found) < len(everything)
    assert set(found.id) == set(everything[keep].id)


@pytest.mark.privileged
@pytest.mark.parametrize(
    "options",
    [
        {"src": "10.77.1.2"},
        {"dst": V6, "dport": 8001},
        {"sport": 5001, "protocol": "udp"},
        {"status": ["src-nat", "dst-nat"]},
        {"mark": 0},
        {"zone": 0, "family": 6},
    ],
)
def test_nat_takes_the_filters_of_conntrack(router: str, options: dict[str, Any]) -> None:
    listed = conntrack(netns=router, **options)

    assert set(nat(netns=router, **options).id) == set(listed[listed.nat.notna()].id)


@pytest.mark.privileged
def test_entries_without_counters_are_missing_them_and_coverage_says_why(router: str) -> None:
    frame = conntrack(netns=router)
    (gap,) = coverage(frame).itertuples()

    assert frame.packets.isna().sum() == gap.count == 1
    assert frame[frame.packets.isna()].dport.tolist() == [5009]
    assert "sysctl -w net.netfilter.nf_conntrack_acct=1" in gap.detail
    assert coverage(conntrack(netns=router, port=5001)).empty


@pytest.mark.privileged
def test_a_namespace_without_entries_gives_an_empty_frame_of_the_same_types(router: str) -> None:
    full, empty = conntrack(netns=router), conntrack(netns=router, port=1)

    assert len(empty) == 0
    assert list(empty.columns) == list(full.columns)
    assert all(str(one) == str(other) for one, other in zip(full.dtypes, empty.dtypes, strict=True))


@pytest.mark.privileged
def test_the_namespace_is_the_one_asked_for(router: str) -> None:
    with netns.entered(router):
        here = conntrack()

    assert set(conntrack(netns=router).netns) == set(here.netns) == {netns.inode(router)}


@pytest.mark.privileged
def test_all_namespaces_are_listed_in_one_frame(router: str) -> None:
    frame = conntrack(netns="all", address=V4)

    assert {netns.inode(router)} <= set(frame.netns)
    here = frame[frame.netns == netns.inode(router)]
    assert set(here.id) == set(conntrack(netns=router, address=V4).id)


@pytest.mark.privileged
def test_without_the_privilege_it_is_refused_with_what_to_do() -> None:
    code = (
        "import netlab\n"
        "from netlab.kernel.conntrack import conntrack\n"
        f"{BECOME_NOBODY}"
        "try: conntrack()\n"
        "except netlab.CapabilityError as error: print(error)"
    )
    said = run(sys.executable, "-c", code)

    assert "refused to list conntrack entries: EPERM" in said
    assert "CAP_NET_ADMIN" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"family": 5}, "family 5"),
        ({"family": 4, "address": "::1"}, "not of family 4"),
        ({"protocol": "tpc"}, "Did you mean 'tcp'"),
        ({"protocol": 256}, "from 0 to 255"),
        ({"protocol": True}, "from 0 to 255"),
        ({"port": 70_000}, "port 70000"),
        ({"port": "80"}, "port '80'"),
        ({"address": "10.0.0"}, "not an IP address"),
        ({"address": 10}, "not an IP address"),
        ({"address": "fe80::1%eth0"}, "names an interface"),
        ({"dst": "fe80::1%eth0"}, "dst 'fe80::1%eth0' names an interface"),
        ({"mark": "0x41/0xf0"}, "bits outside of its mask"),
        ({"family": [4]}, "family [4]"),
        ({"status": 1}, "status 1 is no list"),
        ({"status": 0}, "status 0 is no list"),
        ({"netns": pd.NA}, "netns <NA> is neither"),
        ({"netns": b"443"}, "netns b'443' is neither"),
        ({"netns": (1 << 32) - 1}, "has the network namespace 4294967295"),
        ({"netns": "no-such-namespace"}, "no network namespace 'no-such-namespace'"),
    ],
)
@pytest.mark.parametrize("listing", [conntrack, nat])
def test_bad_input_is_refused_before_the_kernel_is_asked(
    listing: Any, options: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(module.netlink, "dump", lambda *_, **options: asked.append(options))

    with pytest.raises(BadInput, match=re.escape(said)):
        listing(**options)
    assert not asked
