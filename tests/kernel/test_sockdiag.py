from __future__ import annotations

import itertools
import os
import re
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from netlab.kernel import listening, netns, sockdiag, tcpinfo
from netlab.kernel.sockdiag import Sockets, State

SO_COOKIE = 57
LOOPBACKS = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
FIELDS = tcpinfo.TCP_INFO.fields or {}
Pair = tuple[socket.socket, socket.socket, socket.socket]


@pytest.fixture
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    family = getattr(request, "param", socket.AF_INET)
    with socket.create_server((LOOPBACKS[family], 0), family=family) as listener:
        client = socket.create_connection(listener.getsockname()[:2])
        server, _ = listener.accept()
        with client, server:
            yield listener, client, server


def cookie(sock: socket.socket) -> int:
    return int(struct.unpack("=Q", sock.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8))[0])


def own_tcp_info(sock: socket.socket) -> np.void:
    """Return what getsockopt(TCP_INFO) says now."""
    raw = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 512)
    return np.frombuffer(raw.ljust(512, b"\0"), tcpinfo.TCP_INFO, 1)[0]


def only(sockets: Sockets, sock: socket.socket) -> Sockets:
    found = sockets.where(sockets.cookie == cookie(sock))
    assert len(found) == 1
    return found


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("pair", [socket.AF_INET, socket.AF_INET6], ids=["v4", "v6"], indirect=True)
def test_a_connection_is_listed_as_its_own_socket_knows_it(pair: Pair) -> None:
    _, client, server = pair
    for sock, peer in ((client, server), (server, client)):
        found = only(sockdiag.tcp_sockets(), sock)
        record = found.records[0]

        assert record["inode"] == os.fstat(sock.fileno()).st_ino
        assert record["uid"] == os.getuid()
        assert found.state[0] == State.ESTABLISHED
        assert found.family[0] == (4 if sock.family == socket.AF_INET else 6)
        assert found.protocol[0] == socket.IPPROTO_TCP
        assert (record["local_port"], record["remote_port"]) == (sock.getsockname()[1], peer.getsockname()[1])
        packed = socket.inet_pton(sock.family, sock.getsockname()[0])
        assert record["local_address"].tobytes()[: len(packed)] == packed


def test_bytes_are_those_that_the_two_ends_exchanged(pair: Pair) -> None:
    _, client, server = pair
    client.sendall(b"x" * 70_001)
    server.sendall(b"y" * 123)
    until(lambda: len(server.recv(70_001, socket.MSG_PEEK | socket.MSG_WAITALL)) == 70_001)
    until(lambda: len(client.recv(123, socket.MSG_PEEK)) == 123)

    sockets = sockdiag.tcp_sockets()

    at_client, at_server = only(sockets, client), only(sockets, server)
    assert (at_client.bytes_sent[0], at_client.bytes_received[0]) == (70_001, 123)
    assert (at_server.bytes_sent[0], at_server.bytes_received[0]) == (123, 70_001)


def test_tcp_info_is_what_the_socket_itself_is_told(pair: Pair) -> None:
    _, client, server = pair
    client.sendall(b"x" * 5000)
    server.recv(5000, socket.MSG_WAITALL)
    server.sendall(b"y")
    client.recv(1)
    ages = {"last_data_sent", "last_ack_sent", "last_data_recv", "last_ack_recv"}
    until(lambda: only(sockdiag.tcp_sockets(), client).info("unacked")[0] == 0)

    listed, told = only(sockdiag.tcp_sockets(), client), own_tcp_info(client)

    length = len(client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 512))  # 240 bytes in Linux 6.1
    given = {name for name, (_, offset, *_) in FIELDS.items() if offset < length}

    assert {name for name in FIELDS if not listed.lacks(name)[0]} == given
    for field in given - ages:
        assert listed.info(field)[0] == told[field], field
    for field in ages:
        assert 0 <= told[field] - listed.info(field)[0] < 10_000, field


def test_tcp_info_is_what_ss_prints(pair: Pair) -> None:
    _, client, server = pair
    client.sendall(b"x" * 5000)
    server.recv(5000, socket.MSG_WAITALL)
    until(lambda: only(sockdiag.tcp_sockets(), client).info("unacked")[0] == 0)
    port = client.getsockname()[1]

    found = only(sockdiag.tcp_sockets(), client)
    printed = subprocess.check_output(["ss", "-H", "-tin", f"sport = :{port}"], text=True)

    numbers = dict(re.findall(r"(\w+):([\d.]+)", printed))
    for name in (
        "bytes_sent",
        "bytes_acked",
        "segs_out",
        "segs_in",
        "data_segs_out",
        "delivered",
        "rcv_space",
    ):
        assert found.info(name)[0] == int(numbers[name]), name
    assert found.info("snd_cwnd")[0] == int(numbers["cwnd"])
    assert found.rtt_us[0] == round(1000 * float(numbers["rtt"]))
    assert found.min_rtt_us[0] == round(1000 * float(numbers["minrtt"]))


def lose(rule: str) -> None:
    """Drop what *rule* matches, in the calling thread's namespace; an empty rule drops nothing more."""
    ruleset = (
        f"flush ruleset\ntable ip lossy {{\nchain in {{\ntype filter hook input priority 0\n{rule}\n}}\n}}"
    )
    subprocess.run(["nft", "-f", "-"], input=ruleset, text=True, check=True)


@pytest.fixture
def space() -> Iterator[str]:
    name = f"netlab-sd{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
    with netns.entered(name):
        yield name
    subprocess.run(["ip", "netns", "del", name], check=True)


STEPS = {
    State.CLOSE_WAIT: ["peer closes"],
    State.LAST_ACK: ["peer closes", "lose", "close"],
    State.FIN_WAIT_1: ["lose", "close"],
    State.FIN_WAIT_2: ["close"],
    State.CLOSING: ["lose", "close", "peer closes"],
}


@pytest.mark.privileged
@pytest.mark.usefixtures("space")
@pytest.mark.parametrize("state", STEPS)
def test_a_fin_is_no_byte_of_payload_in_any_state(state: State, pair: Pair) -> None:
    _, peer, sock = pair
    peer.sendall(b"abc")
    sock.sendall(b"defgh")
    sock.recv(3, socket.MSG_WAITALL)
    peer.recv(5, socket.MSG_WAITALL)
    actions = {
        "peer closes": lambda: peer.shutdown(socket.SHUT_WR),
        "close": lambda: sock.shutdown(socket.SHUT_WR),
        "lose": lambda: lose(f"tcp sport {sock.getsockname()[1]} drop"),
    }
    for step in STEPS[state]:
        actions[step]()
    until(lambda: only(sockdiag.tcp_sockets(), sock).state[0] == state)

    found = only(sockdiag.tcp_sockets(), sock)

    assert (found.bytes_sent[0], found.bytes_received[0]) == (5, 3)
    fin_received = int("peer closes" in STEPS[state])
    assert found.info("bytes_received")[0] == 3 + fin_received  # the kernel's own count


@pytest.mark.privileged
@pytest.mark.usefixtures("space")
def test_bytes_sent_again_are_counted_once(pair: Pair) -> None:
    _, client, server = pair
    lose(f"tcp dport {server.getsockname()[1]} drop")
    client.sendall(b"x" * 1000)
    until(lambda: only(sockdiag.tcp_sockets(), client).info("bytes_retrans")[0] > 0)
    lose("")
    assert len(server.recv(1000, socket.MSG_WAITALL)) == 1000

    found = only(sockdiag.tcp_sockets(), client)

    assert found.bytes_sent[0] == 1000 < found.info("bytes_sent")[0]
    assert found.info("total_retrans")[0] == own_tcp_info(client)["total_retrans"] > 0


@pytest.mark.privileged
@pytest.mark.usefixtures("space")
def test_an_unanswered_syn_has_no_round_trip_time() -> None:
    lose("tcp dport 9 drop")
    with socket.socket() as sock:
        sock.setblocking(False)
        sock.connect_ex(("127.0.0.1", 9))
        found = only(sockdiag.tcp_sockets(), sock)

    assert found.state[0] == State.SYN_SENT
    assert found.bytes_sent[0] == 0
    for times in (found.rtt_us, found.rtt_var_us, found.min_rtt_us):
        assert np.ma.getmaskarray(times).all()


@pytest.mark.privileged
@pytest.mark.usefixtures("space")
def test_a_half_open_connection_has_no_owner_and_no_counters() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        port = listener.getsockname()[1]
        lose(f"tcp dport {port} tcp flags & (syn | ack) == ack drop")
        client.connect(("127.0.0.1", port))
        sockets = sockdiag.tcp_sockets()
        found = sockets.where(sockets.state == State.SYN_RECV)

    assert found.records["local_port"].tolist() == [port]
    assert_only_its_addresses_are_known(found)


@pytest.mark.privileged
@pytest.mark.usefixtures("space")
def test_a_connection_in_time_wait_has_no_owner_and_no_counters(pair: Pair) -> None:
    _, client, server = pair
    port = client.getsockname()[1]
    client.close()
    server.close()
    until(lambda: bool((sockdiag.tcp_sockets().state == State.TIME_WAIT).any()))
    sockets = sockdiag.tcp_sockets()
    found = sockets.where(sockets.state == State.TIME_WAIT)

    assert found.records["local_port"].tolist() == [port]
    assert_only_its_addresses_are_known(found)
    others = sockdiag.tcp_sockets(without=[State.TIME_WAIT])
    assert not (others.state == State.TIME_WAIT).any()
    assert len(others) == len(sockets) - 1


def assert_only_its_addresses_are_known(found: Sockets) -> None:
    assert not found.owned.any()
    for column in (found.bytes_sent, found.bytes_received, found.rtt_us, found.info("segs_out")):
        assert np.ma.getmaskarray(column).all()


def test_a_listening_socket_has_no_traffic_of_its_own(pair: Pair) -> None:
    found = only(sockdiag.tcp_sockets(), pair[0])

    assert found.state[0] == State.LISTEN
    assert found.records["remote_port"][0] == 0
    assert found.bytes_sent.mask.all()
    assert found.info("snd_cwnd").mask.all()


@pytest.mark.privileged
@pytest.mark.usefixtures("space", "pair")
def test_the_sockets_are_those_of_the_namespace() -> None:
    inside = sockdiag.tcp_sockets()
    listed = subprocess.check_output(["ss", "-H", "-tan"], text=True).splitlines()

    assert len(inside) == len(listed) == 3


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["v4", "v6"])
def test_udp_sockets_are_listed_connected_or_not(family: socket.AddressFamily) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as bound, socket.socket(family, socket.SOCK_DGRAM) as sock:
        bound.bind((LOOPBACKS[family], 0))
        sock.connect(bound.getsockname()[:2])
        sockets = sockdiag.udp_sockets()
        waiting, connected = only(sockets, bound), only(sockets, sock)

        assert (waiting.state[0], connected.state[0]) == (State.CLOSE, State.ESTABLISHED)
        assert connected.records["remote_port"][0] == bound.getsockname()[1]
        assert connected.records["inode"][0] == os.fstat(sock.fileno()).st_ino
        assert connected.bytes_sent.mask.all()


def test_bytes_that_wait_to_be_read_are_in_the_receive_queue(pair: Pair) -> None:
    _, client, server = pair
    client.sendall(b"x" * 777)
    until(lambda: only(sockdiag.tcp_sockets(), server).records["rqueue"][0] == 777)


@pytest.mark.parametrize(
    ("known", "given"),
    [
        (0, set()),
        (104, {"rtt"}),  # Linux 3.14
        (200, {"rtt", "min_rtt"}),  # Linux 4.18
        (240, {"rtt", "min_rtt", "bytes_sent"}),  # Linux 6.1
        (252, {"rtt", "min_rtt", "bytes_sent", "total_rto"}),
    ],
)
def test_what_an_older_kernel_does_not_give_is_masked_and_told_from_no_tcp_info(
    known: int, given: set[str]
) -> None:
    sockets = Sockets(
        np.full(1, socket.IPPROTO_TCP, np.uint8),
        np.zeros(1, sockdiag.MESSAGE),
        np.ones(1, tcpinfo.TCP_INFO),
        np.full(1, known),
        np.ma.zeros(1, np.uint32),
        interrupted=False,
    )

    names = {"rtt", "min_rtt", "bytes_sent", "total_rto"}
    assert {name for name in names if not sockets.info(name).mask[0]} == given
    assert {name for name in names if sockets.lacks(name)[0]} == (names - given if known else set())


@pytest.mark.parametrize(
    "listed",
    [sockdiag.udp_sockets, lambda: listening.listeners([socket.IPPROTO_UDP]).sockets],
    ids=["sockets", "listeners"],
)
def test_a_socket_is_listed_once_while_others_take_its_port(listed: Callable[[], Sockets]) -> None:
    def bound(address: tuple[str, int]) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
        return sock

    first = bound(("127.0.0.1", 0))
    address, over = first.getsockname(), threading.Event()
    socks = [first, *(bound(address) for _ in range(400))]  # more than one block of the kernel's lists

    def take_turns() -> None:
        for place in itertools.cycle(range(1, len(socks))):
            if over.is_set():
                return
            socks[place].close()
            socks[place] = bound(address)

    others = threading.Thread(target=take_turns)
    others.start()
    try:
        lists = [listed().cookie for _ in range(100)]
    finally:
        over.set()
        others.join()
        for sock in socks:
            sock.close()

    assert [len(cookies) - len(np.unique(cookies)) for cookies in lists] == [0] * len(lists)
