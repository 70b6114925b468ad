"""What filters keep: as numpy, as programs in the kernel with real sockets, and by a slow reference."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st
from loopback import AF, Echo, cookie, finish

import netlab
from netlab.errors import BadInput
from netlab.kernel import netns as namespaces
from netlab.lab import PracticeNetwork
from netlab.tracer.filters import MOST_IN_KERNEL, Filter
from netlab.tracer.keeping import Kept
from netlab.tracer.layout import ATTEMPT, Direction
from netlab.tracer.live import Live
from netlab.tracer.tcp import TcpSource

DATA = tomllib.loads(Path(__file__).with_name("filters.toml").read_text(encoding="utf-8"))
CONNECTIONS: dict[str, dict[str, Any]] = DATA["connections"]
LINGER_0 = b"\1\0\0\0\0\0\0\0"  # struct linger: close by reset, which leaves no TIME_WAIT behind
CASES = pytest.mark.parametrize("case", DATA["cases"], ids=lambda case: case["name"])


def packed(address: str, family: int) -> bytes:
    parsed = ipaddress.ip_address(address)
    mapped = family == 6 and parsed.version == 4
    return (b"\0" * 10 + b"\xff\xff" if mapped else b"") + parsed.packed


def record(
    family: int, local: tuple[str, int], remote: tuple[str, int], protocol: int = 6, direction: int = 0
) -> np.ndarray:
    made = np.zeros(1, ATTEMPT)
    made["family"], made["protocol"], made["direction"] = AF[family], protocol, direction
    for side, (address, port) in (("local", local), ("remote", remote)):
        octets = packed(address, family)
        made[f"{side}_address"][0, : len(octets)] = np.frombuffer(octets, np.uint8)
        made[f"{side}_port"] = port
    return made


def table() -> dict[str, np.ndarray]:
    """Every attempt of the data file as a record, by name."""
    records = {}
    for name, ends in CONNECTIONS.items():
        client, server = ((end["address"], end["port"]) for end in (ends["client"], ends["server"]))
        records[f"{name}-client"] = record(
            ends["client"]["family"], client, server, direction=Direction.OUTGOING
        )
        if not ends["server"].get("refuses"):
            records[f"{name}-server"] = record(
                ends["server"]["family"], server, client, direction=Direction.INCOMING
            )
    return records


def by_ports(local: int, remote: int) -> str:
    """Name an attempt by its ports: the client's is above the server's."""
    port = max(local, remote)
    name = next(name for name, ends in CONNECTIONS.items() if ends["client"]["port"] == port)
    return f"{name}-{'client' if local == port else 'server'}"


@CASES
def test_a_filter_keeps_the_records_that_the_data_file_names(case: dict[str, Any]) -> None:
    records = table()

    keeps = Filter.of(**case["filter"]).keeps(np.concatenate(list(records.values())))

    assert {name for name, kept in zip(records, keeps, strict=True) if kept} == set(case["keeps"])


@pytest.fixture(scope="module")
def network() -> Iterator[PracticeNetwork]:
    """A practice network whose client has the addresses of the data file on its loopback interface."""
    with netlab.lab.practice() as net:
        for ends in CONNECTIONS.values():
            for end in ends.values():
                bits = ipaddress.ip_address(end["address"]).max_prefixlen
                net.client.run(["ip", "addr", "replace", f"{end['address']}/{bits}", "dev", "lo"])
        yield net


def talk(net: PracticeNetwork) -> None:
    """Make every connection of the data file once, and end it by a reset of the client."""
    with net.client.entered(), contextlib.ExitStack() as stack:
        listeners = {
            ("10.2.0.1", 80): stack.enter_context(listening(4, "10.2.0.1", 80)),
            ("2001:db8:2::1", 80): stack.enter_context(listening(6, "2001:db8:2::1", 80)),
        }
        dual = stack.enter_context(listening(6, "::", 8080))
        for ends in CONNECTIONS.values():
            server = (ends["server"]["address"], ends["server"]["port"])
            connect(ends["client"], server, listeners.get(server, dual))


def listening(family: int, address: str, port: int) -> socket.socket:
    dual = address == "::"
    return socket.create_server((address, port), family=AF[family], dualstack_ipv6=dual)


def connect(client: dict[str, Any], server: tuple[str, int], listener: socket.socket) -> None:
    def as_given(address: str) -> str:
        return f"::ffff:{address}" if client["family"] == 6 and ":" not in address else address

    with socket.socket(AF[client["family"]]) as end:
        end.settimeout(10)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        end.bind(("::" if client.get("unbound") else as_given(client["address"]), client["port"]))
        if server[1] == 81:
            with pytest.raises(ConnectionRefusedError):
                end.connect((as_given(server[0]), server[1]))
            return
        end.connect((as_given(server[0]), server[1]))
        accepted, _ = listener.accept()
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
        end.close()
        with accepted, contextlib.suppress(ConnectionResetError):
            accepted.recv(1)


@pytest.mark.privileged
@CASES
def test_the_kernel_reports_what_the_filter_keeps_and_nothing_else(
    case: dict[str, Any], network: PracticeNetwork
) -> None:
    with netlab.capture(**case["filter"], netns=network.client.netns, backfill=False) as capture:
        watch = capture._watch
        assert isinstance(watch, Live)
        for source in watch._sources.values():
            if isinstance(source, TcpSource):
                source._wanted = (
                    Filter()
                )  # what the kernel passes is not looked at again before it is counted
        talk(network)

    reported = watch.closed().attempts[["local_port", "remote_port"]].tolist()
    rows = capture.connections()[["local_port", "remote_port"]].itertuples(index=False)
    assert sorted(by_ports(*ports) for ports in reported) == sorted(case["keeps"])
    assert sorted(by_ports(*ports) for ports in rows) == sorted(case["keeps"])
    assert watch.open().tolist() == []


@pytest.mark.privileged
def test_the_records_of_real_sockets_are_those_of_the_data_file(network: PracticeNetwork) -> None:
    with netlab.capture(netns=network.client.netns, backfill=False) as capture:
        talk(network)

    assert isinstance(capture._watch, Live)
    fields = ["family", "protocol", "direction", "local_port", "remote_port"]
    seen = {by_ports(row["local_port"], row["remote_port"]): row for row in capture._watch.closed().attempts}
    expected = table()
    assert set(seen) == set(expected)
    for name, row in expected.items():
        assert seen[name][fields].item() == row[0][fields].item(), name
        for side in ("local_address", "remote_address"):
            assert seen[name][side].tobytes() == row[0][side].tobytes(), (name, side)


@pytest.mark.privileged
@pytest.mark.parametrize(
    ("filter_", "failures"),
    [
        ({"remote": "198.18.0.0/16"}, ["198.18.0.1"]),
        ({"exclude_remote": {"198.18.0.0/16": "80"}, "protocol": "tcp"}, ["198.19.0.1"]),
    ],
)
def test_attempts_that_never_leave_are_filtered_by_where_they_were_to_go(
    network: PracticeNetwork, filter_: dict[str, Any], failures: list[str]
) -> None:
    network.client.run(["ip", "route", "replace", "unreachable", "198.18.0.0/15"])
    with (
        netlab.capture(**filter_, netns=network.client.netns, backfill=False) as capture,
        network.client.entered(),
    ):
        for address in ("198.18.0.1", "198.19.0.1"):
            with pytest.raises(OSError, match="No route to host"):
                socket.create_connection((address, 80), timeout=10)

    assert capture.failures()["remote_address"].tolist() == failures


@pytest.mark.privileged
def test_more_networks_than_fit_into_the_kernel_keep_the_same_rows(network: PracticeNetwork) -> None:
    many = [f"192.0.2.{2 * number}" for number in range(MOST_IN_KERNEL)]
    with netlab.capture(
        remote=[*many, "10.2.0.1"],
        exclude_remote=dict.fromkeys([*many, "10.2.0.1"], "80"),
        netns=network.client.netns,
        backfill=False,
    ) as capture:
        talk(network)

    rows = capture.connections()[["local_port", "remote_port"]].itertuples(index=False)
    assert {by_ports(*ports) for ports in rows} == {"mapped-client", "refused-client"}
    assert capture._options.wanted.macros()["NETLAB_WANTED_PEERS(attempt)"] == "1"


@pytest.mark.privileged
def test_the_largest_filters_that_go_into_the_kernel_are_accepted_by_its_verifier(
    network: PracticeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Kept, "keep", lambda *_: None)  # most of the namespaces are none
    numbers = range(MOST_IN_KERNEL)
    v6 = [f"2001:db8:{2 * number:x}:1:2:3:4:{number:x}" for number in numbers[1:]]
    excluded = {address: f"{100 + 10 * n}-{105 + 10 * n}" for n, address in enumerate(v6)}
    with netlab.capture(
        remote=[*v6, "10.2.0.1"],
        local=[*v6, "10.1.0.0/16"],
        exclude_remote=excluded | {"10.2.0.1": "80"},
        exclude_local=excluded | {"10.2.0.1": "tcp 80"},
        port=[*(20_000 + 2 * number for number in numbers[2:]), 80, 8080],
        pid=[*(number + 4_000_000 for number in numbers[1:]), os.getpid()],
        netns=[*(5_000_000 + number for number in numbers[1:]), network.client.inode],
        protocol="tcp",
        direction="outgoing",
        backfill=False,
    ) as capture:
        talk(network)

    rows = capture.connections()[["local_port", "remote_port"]].itertuples(index=False)
    assert [by_ports(*ports) for ports in rows] == ["mapped-client"]
    assert "1" not in capture._options.wanted.macros().values()


@pytest.mark.privileged
def test_a_namespace_filter_leaves_out_the_same_tuples_elsewhere(
    network: PracticeNetwork, echo: Echo
) -> None:
    with netlab.capture(netns=[network.client.inode], port=[echo.port, 80]) as capture:
        echo.talk(4, 1)
        talk(network)

    frame = capture.connections()
    assert set(frame["netns"]) == {network.client.inode}
    assert len(frame) == 4


@pytest.mark.privileged
def test_a_namespace_is_the_same_by_name_path_process_and_inode(network: PracticeNetwork) -> None:
    name, inode = network.client.netns, network.client.inode

    assert Filter.of(netns=[name, f"/run/netns/{name}", inode]).netns == (inode,)
    assert Filter.of(netns=os.getpid()) == Filter.of(netns=None)
    assert Filter.of(netns=None).netns == (namespaces.inode(),)
    assert Filter.of(netns="all") == Filter()


def test_namespaces_are_taken_out_of_a_frame_as_they_are_there() -> None:
    column = pd.Series([namespaces.inode(), namespaces.inode()], dtype="Int64")

    assert Filter.of(netns=column) == Filter.of(netns=column.iloc[0]) == Filter.of(netns=None)  # type: ignore[arg-type]


@pytest.mark.privileged
def test_connections_open_before_the_capture_are_filtered_too(echo: Echo) -> None:
    with echo.connect(4) as old, echo.connect(6) as other:
        with netlab.capture(
            remote="127.0.0.0/8", direction="outgoing", protocol="tcp", port=echo.port
        ) as capture:
            pass
        frame = capture.connections()
        numbers = cookie(old), cookie(other)

    assert frame["cookie"].tolist() == [numbers[0]]
    assert frame["seen"].tolist() == ["backfill"]


@pytest.mark.privileged
def test_a_connection_from_before_that_ends_in_the_capture_keeps_the_direction_it_was_listed_with(
    echo: Echo,
) -> None:
    with echo.connect(4) as old:
        number = cookie(old)
        with netlab.capture(direction="outgoing", exclude_remote={"::1": "*"}, port=echo.port) as capture:
            old.sendall(b"x")
            finish(old)
            old.close()

    frame = capture.connections()
    assert frame["cookie"].tolist() == [number]
    assert frame["state"].tolist() == ["closed"]


@pytest.mark.privileged
@pytest.mark.parametrize(("direction", "rows"), [("incoming", []), ("outgoing", ["outgoing"])])
def test_a_socket_that_connects_to_itself_accepts_nothing(
    ports: tuple[int, int], direction: str, rows: list[str]
) -> None:
    itself = ("127.0.0.1", ports[0])
    with netlab.capture(protocol="tcp", port=ports[0], direction=direction) as capture:
        with socket.socket() as alone:
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind(itself)
            alone.connect(itself)
            assert alone.getpeername() == itself
        frame = capture.connections()

    assert frame["direction"].tolist() == rows


@pytest.mark.privileged
@pytest.mark.parametrize("direction", ["incoming", "outgoing"])
def test_an_end_of_the_other_direction_is_no_row(echo: Echo, direction: str) -> None:
    with netlab.capture(direction=direction, port=echo.port) as capture:
        echo.talk(4, 1)

    assert capture.connections()["direction"].tolist() == [direction]


def test_an_address_that_is_not_known_yet_passes() -> None:
    unknown = np.concatenate([record(4, ("0.0.0.0", 0), ("10.0.0.1", 80)), record(6, ("::", 0), ("::1", 80))])

    assert Filter.of(local="10.9.0.0/16").keeps(unknown).all()
    assert Filter.of(exclude_local={"0.0.0.0/0": "*", "::/0": "*"}).keeps(unknown).all()


def test_an_address_that_is_not_known_does_not_hide_an_excluded_port() -> None:
    unknown = record(6, ("::", 40_000), ("::1", 80))

    assert not Filter.of(exclude_local={"*": "40000"}).keeps(unknown).any()


def test_a_direction_that_nobody_saw_passes() -> None:
    assert Filter.of(direction="incoming").keeps(record(4, ("10.0.0.1", 1), ("10.0.0.2", 2))).all()


@pytest.mark.parametrize("case", DATA["refused"], ids=lambda case: str(case["filter"]))
def test_a_bad_filter_is_refused_with_the_entry_and_the_fix(case: dict[str, Any]) -> None:
    with pytest.raises(BadInput) as refusal:
        netlab.capture(**case["filter"])

    for words in case["words"]:
        assert words in str(refusal.value)


def test_a_name_is_cut_where_the_kernel_cuts_it() -> None:
    records = np.zeros(2, ATTEMPT)
    records["process"] = ["äöüäöüäö".encode()[:15], b"another"]

    assert Filter.of(process="äöüäöüäö").keeps(records).tolist() == [True, False]


def test_only_numbers_get_into_the_programs() -> None:
    hostile = Filter.of(
        process='");evil(("', remote="2001:db8::/33", exclude_local={"10.0.0.0/9": "tcp 5-6"}, port=[1, 2, 9]
    )

    for condition in hostile.macros().values():
        assert "evil" not in condition
        assert '"' not in condition


def test_neighbouring_ports_are_one_range() -> None:
    assert (
        Filter.of(port=range(1, 65_536)).macros()["NETLAB_WANTED_PORT(p)"] == "(((p) >= 1 && (p) <= 65535))"
    )


# The slow reference: Python's ipaddress, one address at a time.
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
NEAR = ["10.0.0.0", "10.0.0.1", "10.0.0.128", "10.0.1.0", "10.128.0.0", "127.0.0.1", "255.255.255.255"]
NEAR_V6 = ["::", "::1", "2001:db8::", "2001:db8::1", "2001:db8:0:1::", "2001:db8:8000::", "ffff::ffff:0"]
v4_addresses = st.sampled_from(NEAR).map(ipaddress.IPv4Address) | st.ip_addresses(v=4)
v6_addresses = (
    st.sampled_from(NEAR_V6).map(ipaddress.IPv6Address)
    | st.ip_addresses(v=6)
    | v4_addresses.map(lambda address: ipaddress.IPv6Address(packed(str(address), 6)))
)
networks = st.one_of(
    st.builds(
        lambda address, bits: ipaddress.ip_network((address, bits), strict=False),
        v4_addresses,
        st.integers(0, 32),
    ),
    st.builds(
        lambda address, bits: ipaddress.ip_network((address, bits), strict=False),
        v6_addresses,
        st.integers(0, 128),
    ),
)
ports = st.sampled_from([0, 1, 79, 80, 81, 8080, 65_535])
ranges = st.tuples(ports.filter(bool), ports.filter(bool)).map(sorted)
entries = st.tuples(st.sampled_from(["", "tcp ", "UDP "]), ranges | st.none())
excludes = st.dictionaries(networks, st.lists(entries, min_size=1, max_size=3), max_size=4)
ends = st.one_of(
    st.tuples(st.just(4), v4_addresses, v4_addresses), st.tuples(st.just(6), v6_addresses, v6_addresses)
)
tuples = st.tuples(ends, ports, ports, st.sampled_from([6, 17]))


def plain(address: Any) -> Any:
    return getattr(address, "ipv4_mapped", None) or address


def inside(address: Any, network: Network) -> bool:
    first = getattr(network.network_address, "ipv4_mapped", None)
    if first is not None and network.prefixlen >= 96:
        network = ipaddress.IPv4Network((first, network.prefixlen - 96))
    known = plain(address) != type(plain(address))(0)
    return known and plain(address) in network


def left_out(address: Any, port: int, protocol: int, rules: dict[Network, list[Any]]) -> bool:
    return any(
        inside(address, network)
        and (allowed is None or allowed[0] <= port <= allowed[1])
        and (not word or {"tcp ": 6, "udp ": 17}[word.lower()] == protocol)
        for network, entries in rules.items()
        for word, allowed in entries
    )


def written(rules: dict[Network, list[Any]]) -> dict[Any, list[str]] | None:
    return {
        network: [
            f"{word}{'*' if allowed is None else f'{allowed[0]}-{allowed[1]}'}" for word, allowed in some
        ]
        for network, some in rules.items()
    } or None


@given(st.lists(tuples, min_size=1, max_size=8), st.lists(networks, max_size=4), excludes, excludes)
def test_filters_agree_with_ipaddress(
    rows: list[Any],
    remote: list[Network],
    exclude_remote: dict[Network, list[Any]],
    exclude_local: dict[Network, list[Any]],
) -> None:
    chosen = Filter.of(
        remote=remote or None,
        exclude_remote=written(exclude_remote),
        exclude_local=written(exclude_local),
    )
    records = np.concatenate(
        [
            record(family, (str(near), local), (str(far), peer), protocol)
            for (family, near, far), local, peer, protocol in rows
        ]
    )

    assert chosen.keeps(records).tolist() == [
        (not remote or plain(far) == type(plain(far))(0) or any(inside(far, network) for network in remote))
        and not left_out(far, peer, protocol, exclude_remote)
        and not left_out(near, local, protocol, exclude_local)
        for (_, near, far), local, peer, protocol in rows
    ]
