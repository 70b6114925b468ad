"""Polling outside of Linux, by psutil: tried on Linux, where sock_diag says what is true."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import elsewhere
import numpy as np
import ordinary
import pytest
from attempts import attempts
from loopback import LINGER_0, LOOPBACK
from programs import wait_until

import netlab
from netlab.kernel.elsewhere import Ends, Socket, of_own_processes, oldest
from netlab.kernel.keys import chosen
from netlab.tracer import portable, snapshot, system
from netlab.tracer.filters import Filter
from netlab.tracer.layout import Direction
from netlab.tracer.limits import Limits
from netlab.tracer.poll import Poll
from netlab.tracer.portable import Portable
from netlab.tracer.records import Attempts, has_peer

EVERY_S = 0.05
SYSTEMS = pytest.mark.parametrize("system", ["darwin", "win32"])
ROW = [
    "protocol", "family", "direction", "local_address", "local_port", "remote_address", "remote_port",
    "pid", "process", "seen", "state",
]  # fmt: skip
TOLD = {*ROW, "cmdline", "opened_at", "closed_at", "duration_s", "pid_source"}
LIFE = """
    import json, os, socket, sys, time
    import netlab

    KIND = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
    ADDRESS = {4: "127.0.0.1", 6: "::1"}
    FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
    ME, COMM = os.getpid(), open(PROC + "/self/comm").read().strip()
    servers, pairs, expected = {}, {}, {}

    def serve(protocol, family):
        server = servers[protocol, family] = socket.socket(FAMILY[family], KIND[protocol])
        server.bind((ADDRESS[family], 0))
        if protocol == "tcp":
            server.listen()

    def connect(name, protocol, family, seen):
        server, client = servers[protocol, family], socket.socket(FAMILY[family], KIND[protocol])
        client.connect(server.getsockname())
        pairs[name] = [client, server.accept()[0]] if protocol == "tcp" else [client]
        expected[name] = []
        for one, direction in zip(pairs[name], ["outgoing", "incoming"]):
            ends = [*one.getsockname()[:2], *one.getpeername()[:2]]
            expected[name].append([protocol, family, direction, *ends, ME, COMM, seen, "established"])

    def close(name):
        for one in pairs[name]:
            one.close()
        for row in expected[name]:
            row[-1] = "closed"

    def wait_for(holds):
        deadline = time.monotonic() + 20
        while not holds():
            assert time.monotonic() < deadline, capture.connections()
            time.sleep(0.02)

    for protocol in KIND:
        for family in FAMILY:
            serve(protocol, family)
    connect("before", "tcp", 4, "backfill")
    connect("kept before", "tcp", 6, "backfill")
    with netlab.capture(mode="poll", poll_every_s=0.05) as capture:
        capture.register("me")
        connect("kept4", "tcp", 4, "live")
        connect("short6", "tcp", 6, "live")
        connect("udp4", "udp", 4, "live")
        connect("udp6", "udp", 6, "live")
        wait_for(lambda: len(capture.connections()) == 10)
        first = capture.delta("me")
        for name in ("before", "short6", "udp6"):
            close(name)
        wait_for(lambda: (capture.connections()["state"] == "closed").sum() == 5)
        second = capture.delta("me")
        running = capture.connections()
        capture.pause()
        capture.resume()
    after, failures = capture.connections(), capture.failures()
    json.dump({
        "expected": [row for rows in expected.values() for row in rows],
        "running": json.loads(running.to_json(orient="records")),
        "after": json.loads(after.to_json(orient="records")),
        "coverage": netlab.coverage(after).to_dict("list") | {"count": None},
        "told": {column: bool(after[column].notna().any()) for column in after},
        "schema": {column: str(dtype) for column, dtype in after.dtypes.items()},
        "failures": len(failures),
        "first": [len(first), bool(first["new"].all())],
        "second": [len(second), second["state"].tolist(), bool(second["delta_bytes_sent"].isna().all())],
        "counts": capture.counts(),
    }, sys.stdout, default=str)
"""


@dataclass
class Sockets:
    """A listening socket and both ends of connections to it."""

    server: socket.socket
    ends: list[socket.socket]

    @property
    def port(self) -> int:
        return int(self.server.getsockname()[1])

    def connect(self, local: tuple[str, int] | None = None) -> tuple[socket.socket, socket.socket]:
        client = socket.socket(self.server.family)
        self.ends.append(client)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)  # its ports are free at once
        if local:
            client.bind(local)
        client.connect(self.server.getsockname())
        accepted = self.server.accept()[0]
        self.ends.append(accepted)
        return client, accepted

    def close(self) -> None:
        while self.ends:
            self.ends.pop(0).close()  # the client first: its reset leaves nothing behind


@pytest.fixture(params=[4, 6])
def sockets(request: pytest.FixtureRequest) -> Iterator[Sockets]:
    family = socket.AF_INET if request.param == 4 else socket.AF_INET6
    with socket.create_server((LOOPBACK[request.param], 0), family=family) as server:
        made = Sockets(server, [])
        yield made
        made.close()


@pytest.fixture
def elsewhere_by_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have captures poll by psutil here."""
    monkeypatch.setattr(system, "LINUX", False)


def of_port(records: Attempts, port: int) -> Attempts:
    return chosen(records, (records["local_port"] == port) | (records["remote_port"] == port))


def facts(records: Attempts) -> set[tuple[Any, ...]]:
    names = ["protocol", "family", "local_port", "remote_port", "pid", "direction", "process"]
    ends = [records[f"{side}_address"].tobytes() for side in ("local", "remote")]
    size = 16
    return {
        (*(record[name].item() for name in names), *(end[size * i : size * (i + 1)] for end in ends))
        for i, record in enumerate(records)
    }


@pytest.mark.privileged
@SYSTEMS
def test_a_capture_on_another_system_has_every_connection_that_lasts(system: str, tmp_path: Path) -> None:
    found = json.loads(elsewhere.run(system, textwrap.dedent(LIFE), tmp_path))

    def rows(frame: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
        return sorted(tuple(row[name] for name in ROW) for row in frame)

    expected = sorted(map(tuple, found["expected"]))
    assert len(expected) == 10
    assert rows(found["running"]) == expected
    assert rows(found["after"]) == expected
    for row in found["after"]:
        assert (row["closed_at"] is not None) == (row["state"] == "closed")
        assert (row["opened_at"] is None) == (row["seen"] == "backfill")
        assert (row["pid_source"], "elsewhere.py" in row["cmdline"]) == ("socket", True)

    assert found["failures"] == 0
    assert found["first"] == [6, True]
    assert found["second"] == [5, ["closed"] * 5, True]
    assert found["counts"] == {"open": 5, "closed": 5, "clients": 1, "underflows": 0}


@pytest.mark.privileged
def test_what_another_system_does_not_tell_is_missing_and_the_coverage_says_why(tmp_path: Path) -> None:
    found = json.loads(elsewhere.run("darwin", textwrap.dedent(LIFE), tmp_path))

    assert {column for column, is_told in found["told"].items() if is_told} == TOLD
    empty = netlab.schemas.CONNECTIONS.empty()
    kinds = {column: str(dtype) for column, dtype in empty.dtypes.items()}
    assert found["schema"] == kinds
    gaps = found["coverage"]
    explained = {word for what in gaps["what"] for word in what.split(", ")}
    silent = set(found["schema"]) - TOLD - {"remote_name", "protocol_stack"}
    assert {name for name in silent if not name.startswith(("nat_", "via_"))} <= explained
    assert {"nat_*", "via_*"} <= explained
    text = "\n".join(gaps["detail"])
    for words in ("nobody counts on this system", "used again between two looks", "told from the ports"):
        assert words in text
    assert "mode='ebpf'" not in text


@pytest.mark.privileged
def test_on_another_system_an_owner_that_exits_is_known_by_pid_and_name(tmp_path: Path) -> None:
    code = """
        import socket, subprocess, sys, time
        import netlab
        child = "import socket, sys; c = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); input()"
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            with netlab.capture(mode="poll", poll_every_s=0.05, port=port, direction="outgoing") as capture:
                command = [sys.executable, "-S", "-c", child, str(port)]
                with subprocess.Popen(command, stdin=subprocess.PIPE) as other:
                    accepted = server.accept()[0]
                    while capture.connections().empty:
                        time.sleep(0.02)
                    print(capture.connections()["cmdline"][0] == " ".join(command))
                accepted.close()
                while capture.connections()["closed_at"].isna().any():
                    time.sleep(0.02)
                frame = capture.connections()
        print((frame["pid"] == other.pid).tolist(), frame["process"].str.startswith("python").tolist())
        print(netlab.coverage(frame)["detail"].str.contains("their process has exited").sum())
    """

    assert elsewhere.run("darwin", textwrap.dedent(code), tmp_path) == "True\n[True] [True]\n1\n"


@pytest.mark.privileged
@SYSTEMS
@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({}, "CapabilityError: cannot follow connections with eBPF: this system is not Linux. capture(mode="),
        ({"mode": "poll", "netns": "blue"}, "BadInput: netns is 'blue', and this system has no network"),
        ({"mode": "poll", "netns": None}, "BadInput: netns is None, and this system has no network"),
        ({"mode": "poll", "nat": "blue"}, "BadInput: nat is 'blue', and this system has no network"),
        ({"mode": "poll", "events": True}, "BadInput: events= needs eBPF"),
    ],
    ids=str,
)
def test_what_another_system_does_not_have_is_refused(
    system: str, options: dict[str, Any], error: str, tmp_path: Path
) -> None:
    code = f"""
        import netlab
        try:
            netlab.capture(**{options!r})
        except netlab.NetlabError as refusal:
            print(f"{{type(refusal).__name__}}: {{refusal}}")
    """

    assert error in elsewhere.run(system, textwrap.dedent(code), tmp_path)


def test_without_psutil_the_error_says_how_to_get_it() -> None:
    code = (
        "import sys, pandas, pyarrow; sys.platform = 'darwin'; sys.modules['psutil'] = None;"
        "import netlab; netlab.capture(mode='poll')"
    )

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    last = run.stderr.splitlines()[-1]
    assert "CapabilityError" in last, run.stderr
    assert last.endswith("-m pip install psutil")


def test_psutil_lists_the_connections_that_sock_diag_lists(sockets: Sockets) -> None:
    for _ in range(3):
        sockets.connect()

    ours, theirs = (of_port(take().attempts, sockets.port) for take in (Portable().take, snapshot.take))

    assert len(ours) == 6
    assert facts(ours) == facts(theirs)
    assert set(ours["pid"].tolist()) == {os.getpid()}
    assert not ours["netns"].any()


def test_psutil_lists_the_udp_sockets_that_have_a_peer(sockets: Sockets) -> None:
    with (
        socket.socket(sockets.server.family, socket.SOCK_DGRAM) as server,
        socket.socket(sockets.server.family, socket.SOCK_DGRAM) as client,
    ):
        server.bind(sockets.server.getsockname())
        client.connect(server.getsockname())
        ours, theirs = (
            of_port(take(protocol=socket.IPPROTO_UDP).attempts, sockets.port)
            for take in (Portable().take, snapshot.take)
        )

    assert len(ours) == 1
    assert facts(ours) == facts(chosen(theirs, has_peer(theirs)))
    assert ours["direction"].tolist() == [Direction.OUTGOING]


def test_a_mapped_address_finds_its_listener() -> None:
    with (
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server,
        socket.create_connection(("127.0.0.1", server.getsockname()[1])) as client,
        server.accept()[0],
    ):
        port = server.getsockname()[1]
        ours, theirs = (of_port(take().attempts, port) for take in (Portable().take, snapshot.take))
        expected = {client.getsockname()[1]: Direction.OUTGOING, port: Direction.INCOMING}

    assert facts(ours) == facts(theirs)
    assert dict(zip(ours["local_port"].tolist(), ours["direction"].tolist(), strict=True)) == expected


def test_of_a_socket_that_two_processes_hold_there_is_one_row_that_of_the_older_one(sockets: Sockets) -> None:
    client, accepted = sockets.connect()
    held = [one.fileno() for one in (client, accepted)]
    with subprocess.Popen(["sleep", "60"], pass_fds=held) as other:
        listed = portable.connected(of_own_processes())
        other.kill()

    ours = [one for ends, one in listed.items() if sockets.port in {ends.local_port, ends.remote_port}]
    assert [one.pid for one in ours] == [os.getpid()] * 2


def test_a_socket_that_is_handed_on_stays_the_same_row(sockets: Sockets) -> None:
    client, _ = sockets.connect()
    port, listing = client.getsockname()[1], Portable()

    def ours() -> np.void:
        records = listing.take().attempts
        (record,) = chosen(records, records["local_port"] == port)
        return record

    before = ours()
    with subprocess.Popen(["sleep", "60"], pass_fds=[client.fileno()]) as other:
        client.close()
        after = ours()
        other.kill()

    assert (before["pid"], after["pid"]) == (os.getpid(), other.pid)
    assert after["process"] == b"sleep"
    assert before["cookie"] == after["cookie"]


def test_what_was_told_of_a_connection_stays_when_nothing_tells_it_any_more(sockets: Sockets) -> None:
    client, accepted = sockets.connect()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes(8))
    listing = Portable()

    def ours() -> np.void:
        records = listing.take().attempts
        (record,) = chosen(records, records["remote_port"] == port)
        return record

    port = accepted.getsockname()[1]
    before = ours()
    sockets.server.close()
    client.close()  # in FIN-WAIT-2, where no process has it
    after = ours()

    assert before["direction"] == after["direction"] == Direction.OUTGOING
    assert (after["pid"], after["process"]) == (before["pid"], before["process"])


def test_a_tuple_that_comes_again_after_its_end_is_another_row(sockets: Sockets) -> None:
    listing = Portable()
    watch = Poll(Limits(), 0, every_s=60, system=listing)

    def look() -> None:
        listed = listing.take()
        watch.look(
            snapshot.Snapshot(
                of_port(listed.attempts, sockets.port), np.empty(0, np.uint8), np.empty(0, np.uint64), {}, []
            )
        )

    local = sockets.connect()[0].getsockname()[:2]
    look()
    sockets.close()
    look()
    look()
    sockets.connect(local)
    look()

    ended, opened = watch.closed().attempts, watch.open()
    assert len(ended) == len(opened) == 2
    assert facts(ended) == facts(opened)
    assert not set(ended["cookie"].tolist()) & set(opened["cookie"].tolist())


def test_a_tuple_that_comes_again_between_two_looks_is_one_row(sockets: Sockets) -> None:
    listing = Portable()
    client, _ = sockets.connect()
    local = client.getsockname()[:2]
    before = of_port(listing.take().attempts, sockets.port)
    sockets.close()
    sockets.connect(local)

    after = of_port(listing.take().attempts, sockets.port)

    assert sorted(before["cookie"]) == sorted(after["cookie"])
    assert any("is one row" in gap.detail for gap in listing.missing)


@pytest.mark.privileged
def test_an_owner_that_is_not_told_is_not_known(sockets: Sockets, tmp_path: Path) -> None:
    client, _ = sockets.connect()
    port = client.getsockname()[1]
    code = f"""
        import netlab
        from netlab.tracer import system
        system.LINUX = False
        with netlab.capture(mode="poll", port={port}) as capture:
            frame = capture.connections()
        gaps = netlab.coverage(frame).set_index("detail")["count"]
        print(len(frame), frame[["pid", "process", "pid_source"]].isna().all().all())
        print(gaps[[detail for detail in gaps.index if "did not say whose" in detail]].tolist())
        with netlab.capture(mode="poll", pid=1, port={port}) as capture:
            frame = capture.connections()
        gaps = netlab.coverage(frame).set_index("detail")["count"]
        print(len(frame), gaps[[detail for detail in gaps.index if "may belong to" in detail]].tolist())
    """

    run = ordinary.run([sys.executable, "-c", textwrap.dedent(code)], tmp_path, timeout_s=60)

    assert run.stdout == "2 True\n[2]\n0 [2]\n"


@pytest.mark.privileged
def test_where_only_root_is_told_of_all_the_own_sockets_are_listed(sockets: Sockets, tmp_path: Path) -> None:
    sockets.connect()
    code = """
        import os, socket
        from netlab.kernel import elsewhere
        with socket.create_server(("127.0.0.1", 0)) as server:
            with socket.create_connection(server.getsockname()) as client:
                found = list(elsewhere.of_own_processes())
                ports = [client.getsockname()[1], server.getsockname()[1]]
        print({one.pid for one in found} == {os.getpid()})
        print(sorted(one.ends.local_port for one in found) == sorted(ports))
    """

    run = ordinary.run([sys.executable, "-c", textwrap.dedent(code)], tmp_path, timeout_s=60)

    assert run.stdout == "True\nTrue\n"


@pytest.mark.usefixtures("elsewhere_by_flag")
def test_filters_select_rows_that_psutil_lists(sockets: Sockets) -> None:
    sockets.connect()
    address = sockets.server.getsockname()[0]
    name = Path("/proc/self/comm").read_text(encoding="ascii").strip()

    def count(**options: Any) -> int:
        with netlab.capture(mode="poll", **{"port": sockets.port, **options}) as capture:
            return len(capture.connections())

    assert count() == count(pid=os.getpid()) == count(process=name) == count(protocol="tcp") == 2
    assert count(remote=address) == count(local=[address]) == 2
    assert count(direction="incoming") == count(direction="outgoing") == 1
    assert count(pid=os.getppid()) == count(process="nobody") == count(protocol="udp") == 0
    assert count(remote="192.0.2.1") == count(exclude_remote={address: "*"}) == 0
    assert count(exclude_local={"*": str(sockets.port)}) == 1


@pytest.mark.usefixtures("elsewhere_by_flag")
def test_without_backfill_only_what_opens_later_is_a_row(sockets: Sockets) -> None:
    sockets.connect()
    with (
        netlab.capture(mode="poll", poll_every_s=EVERY_S, port=sockets.port, backfill=False) as capture,
        contextlib.ExitStack() as later,
    ):
        late = sockets.connect()[0].getsockname()[1]
        later.callback(sockets.close)
        wait_until(lambda: len(capture.connections()))
        frame = capture.connections()

    assert late in set(frame["local_port"]) | set(frame["remote_port"])
    assert set(frame["seen"]) == {"live"}
    assert len(frame) == 2


@pytest.mark.usefixtures("elsewhere_by_flag")
def test_a_recording_has_each_connection_once(sockets: Sockets, tmp_path: Path) -> None:
    sockets.connect()
    path = tmp_path / "portable.netlab"
    with (
        netlab.capture(mode="poll", poll_every_s=EVERY_S, port=sockets.port) as capture,
        netlab.record(path, capture, every_s=60) as recording,
    ):
        recording.write()
        sockets.close()
        wait_until(lambda: capture.connections()["closed_at"].notna().all())
        recording.write()

    loaded = netlab.load(path)["connections"]
    assert loaded["state"].tolist() == ["closed", "closed"]
    assert loaded["cookie"].isna().all()


HERE, THERE = ip_address("192.0.2.1").packed, ip_address("192.0.2.2").packed


def told(*others: Socket, state: str = "ESTABLISHED", local: int, remote: int) -> Direction:
    """Return the direction of a connection from port *local* here to port *remote* there."""
    one = Socket(Ends(socket.IPPROTO_TCP, HERE, local, THERE, remote), state, None)
    return portable.Servers.of([one, *others]).direction(one)


def listener(address: bytes, port: int, protocol: int = socket.IPPROTO_TCP) -> Socket:
    return Socket(Ends(protocol, address, port, b"", 0), "LISTEN" if protocol == 6 else "NONE", None)


@pytest.mark.parametrize(
    ("direction", "expected"),
    [
        (told(local=50_000, remote=443), Direction.OUTGOING),
        (told(local=50_000, remote=50_001), Direction.UNKNOWN),  # either may be the client's
        (told(local=5000, remote=443), Direction.UNKNOWN),
        (told(local=5000, remote=5001, state="SYN_SENT"), Direction.OUTGOING),
        (told(listener(HERE, 50_000), local=50_000, remote=443), Direction.INCOMING),
        (told(listener(bytes(4), 50_000), local=50_000, remote=443), Direction.INCOMING),
        (told(listener(bytes(16), 50_000), local=50_000, remote=443), Direction.INCOMING),
        (told(listener(THERE, 5000), local=5000, remote=5001), Direction.UNKNOWN),  # another address
        (told(listener(HERE, 5000, 17), local=5000, remote=5001), Direction.UNKNOWN),  # UDP's
        (told(listener(bytes(4), 5001), local=5000, remote=5001), Direction.UNKNOWN),  # the peer is elsewhere
        (told(listener(THERE, 5001), local=5000, remote=5001), Direction.OUTGOING),
    ],
)
def test_the_direction_is_told_where_the_list_shows_it(direction: Direction, expected: Direction) -> None:
    assert direction is expected


def test_filters_by_address_do_not_ask_how_the_system_numbers_families(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "AF_INET6", 30)  # as on macOS
    ours = np.frombuffer(ip_address("::1").packed, np.uint8)
    record = attempts({"family": 10, "remote_address": ours, "remote_port": 80})

    assert Filter.of(remote="::1").keeps(record).tolist() == [True]
    assert Filter.of(remote="::/64", exclude_remote={"::1": "80"}).keeps(record).tolist() == [False]


def test_on_linux_nothing_asks_psutil() -> None:
    code = (
        "import sys, netlab\nwith netlab.capture(mode='poll') as capture: capture.connections()\n"
        "print({'psutil', 'netlab.tracer.portable'} & set(sys.modules))"
    )

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert run.stdout == "set()\n"


def test_the_oldest_process_is_told_by_its_start_not_by_its_number() -> None:
    with subprocess.Popen(["sleep", "60"]) as younger:
        found = oldest([younger.pid, os.getpid(), 1])
        younger.kill()

    assert found == 1
    assert oldest([younger.pid, os.getpid()]) == os.getpid()  # the other one is gone
