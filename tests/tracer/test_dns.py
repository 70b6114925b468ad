"""DNS lookups read from packets, against dnsmasq and what dig, glibc and dnspython say of them."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dns.message
import nameservers
import pandas as pd
import pytest
from loopback import LOOPBACK, REQUESTS
from nameservers import DEAD, DELAY_S, OWN, PATIENCE_S, V4, V6, Place
from overheard import until
from places import told
from shares import told_apart

import netlab
from netlab.tracer.session import Capture

pytestmark = pytest.mark.privileged

CASES = tomllib.loads((Path(__file__).parent / "dns.toml").read_text(encoding="utf-8"))["case"]
TIMEOUT_S = 3.0
RECVERR = {4: (socket.IPPROTO_IP, 11), 6: (socket.IPPROTO_IPV6, 25)}  # include/uapi/linux/in.h, in6.h
ASK_MANY = f"""
import json, time, dns.message, dns.query, dns.rcode
log = []
for server in ("{V4}", "{V6}"):
    for number in range({REQUESTS}):
        name = f"n{{number}}.many.test" if number % 2 else f"n{{number}}.test"
        query = dns.message.make_query(name, "A")
        begun = time.monotonic()
        answer = dns.query.udp(query, server, timeout={PATIENCE_S})
        waited = time.monotonic() - begun
        log.append((server, name, dns.rcode.to_text(answer.rcode()), waited * 1000, answer.time * 1000))
print(json.dumps(log))
"""
ASK_IN_TLS = f"""
import json, socket, ssl, time, dns.message, dns.query, dns.rcode
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
log = []
for server in ("{V4}", "{V6}"):
    for number in range({REQUESTS}):
        if number % 50 == 0:  # dnsmasq answers 100 on one connection
            sealed = context.wrap_socket(socket.create_connection((server, 853)))
            sealed.setblocking(False)
        name = f"n{{number}}.many.test" if number % 2 else f"n{{number}}.test"
        query = dns.message.make_query(name, "A")
        begun = time.monotonic()
        answer = dns.query.tls(query, server, timeout={PATIENCE_S}, sock=sealed)
        waited = time.monotonic() - begun
        log.append((server, name, dns.rcode.to_text(answer.rcode()), waited * 1000, answer.time * 1000))
        if number % 50 == 49:
            sealed.close()
print(json.dumps(log))
"""
LOG = ["server_address", "name", "rcode", "waited_ms", "time_ms"]  # the last by dnspython itself
GETADDRINFO = "import socket; print(socket.getaddrinfo('www.test', 80, proto=socket.IPPROTO_TCP))"
CONNECT = """
import socket
socket.socket().connect_ex(("127.0.0.1", 853))
with socket.create_server(("192.0.2.7", 443)) as web, socket.create_connection(("192.0.2.7", 443)) as client:
    client.sendall(b"hello")
listening = socket.create_server(("192.0.2.7", 0))
port = listening.getsockname()[1]
socket.create_connection(("192.0.2.7", port)).close()
socket.create_connection(("app.test", port)).close()
socket.getaddrinfo("later.test", port)
"""
PRINTER = "printer._ipp._tcp.local"
ASK_LINK = f"""
import socket
from zeroconf import ServiceInfo, Zeroconf
one = Zeroconf(interfaces=["192.0.2.33"])
known = ServiceInfo(
    "_ipp._tcp.local.", "{PRINTER}.", 631, addresses=[socket.inet_aton("192.0.2.33")], server="printer.local."
)
one.register_service(known)  # ends with its last announcement: who comes later has to ask
other = Zeroconf(interfaces=["192.0.2.34"])
found = other.get_service_info("_ipp._tcp.local.", "{PRINTER}.", {PATIENCE_S * 1000})
one.close()
other.close()
print(found.port, found.server)
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was done, and the frames of it."""

    said: list[str]  # what dig printed, case by case
    many: pd.DataFrame  # lookups as their asker has them
    lookups: pd.DataFrame
    names: pd.DataFrame
    connections: pd.DataFrame

    def of(self, name: str, **columns: object) -> pd.DataFrame:
        """Return the outgoing rows of *name*."""
        rows = self.lookups[(self.lookups["name"] == name) & (self.lookups["direction"] == "outgoing")]
        for column, value in columns.items():
            rows = rows[rows[column] == value]
        return rows


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with nameservers.place(tmp_path_factory.mktemp("nameservers")) as found:
        yield found


@pytest.fixture(scope="module")
def seen(here: Place) -> Seen:
    python = [sys.executable, "-c"]
    with netlab.capture(protocols="dns", dns_timeout_s=TIMEOUT_S, netns=here.name) as cap:
        asked = [*(case["ask"] for case in CASES), [f"@{OWN}", "slow.own"], [f"@{V4}", "servfail.own"]]
        with ThreadPoolExecutor(max_workers=8) as together:
            said = list(together.map(lambda words: here.dig(*words), asked))
        many = here.run(*python, ASK_MANY)
        with here.resolv_conf(f"nameserver {DEAD}", f"nameserver {V4}", "options timeout:1 attempts:1"):
            assert "192.0.2.1" in here.run(*python, GETADDRINFO).stdout
        here.run("ip", "address", "add", "192.0.2.7/32", "dev", "lo").check_returncode()
        with here.resolv_conf(f"nameserver {V4}"):
            here.run(*python, CONNECT).check_returncode()
        _wait_until_nothing_is_pending(cap)
        lookups = cap.dns()
    return Seen(
        said, pd.DataFrame(json.loads(many.stdout), columns=LOG), lookups, cap.names(), cap.connections()
    )


def _wait_until_nothing_is_pending(cap: Capture) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while (cap.dns()["rcode"] == "pending").any():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["what"])
def test_what_dig_asks_is_one_row_that_says_what_it_was_answered(seen: Seen, case: dict[str, Any]) -> None:
    row, name = case["row"], case["row"].get("name", case["ask"][1])
    wanted = {key: row[key] for key in ("edns_bytes", "type") if key in row and row[key] != "NA"}

    rows = seen.of(name, process="dig", **wanted)
    if row.get("edns_bytes") == "NA":
        rows = rows[rows["edns_bytes"].isna()]
    if "server_address" in row:
        rows = rows[rows["server_address"] == row["server_address"]]

    assert told(rows, list(row)) == [row]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["what"])
def test_code_and_size_are_those_that_dig_tells(seen: Seen, case: dict[str, Any]) -> None:
    said = seen.said[CASES.index(case)]
    status = re.search(r"status: (\w+)", said)
    size = re.search(r"MSG SIZE  rcvd: (\d+)", said)
    if status is None or size is None:
        assert case["row"]["rcode"] == "timeout", said
        return

    answers = seen.lookups[seen.lookups["process"] == "dig"]

    assert ((answers["rcode"] == status[1]) & (answers["answer_bytes"] == int(size[1]))).any(), said


@pytest.mark.parametrize("server", [V4, V6])
def test_each_of_many_lookups_is_one_row_no_longer_than_its_asker_waited(seen: Seen, server: str) -> None:
    log = seen.many[seen.many["server_address"] == server].reset_index(drop=True)
    rows = seen.lookups[
        (seen.lookups["direction"] == "outgoing") & (seen.lookups["server_address"] == server)
    ]
    rows = rows[rows["name"].isin(log["name"])].reset_index(drop=True)

    assert rows["name"].tolist() == log["name"].tolist()
    assert rows["rcode"].tolist() == log["rcode"].tolist()
    for whose in ("waited_ms", "time_ms"):
        told_apart(f"dns at {server}: {whose}", (log[whose] - rows["latency_ms"].astype(float)).to_numpy())
    assert (log["waited_ms"] >= rows["latency_ms"].astype(float)).all()


@pytest.mark.parametrize("family", [4, 6])
def test_a_lookup_that_nobody_listens_to_is_unreachable_as_its_asker_is_told(
    closed_port: int, family: int
) -> None:
    kind = {4: socket.AF_INET, 6: socket.AF_INET6}[family]
    with (
        netlab.capture(protocols="dns", dns_ports=closed_port, port=closed_port) as cap,
        socket.socket(kind, socket.SOCK_DGRAM) as untold,
        socket.socket(kind, socket.SOCK_DGRAM) as told_if_asked,
        socket.socket(kind, socket.SOCK_DGRAM) as asker,
    ):
        server = LOOPBACK[family], closed_port
        untold.sendto(dns.message.make_query("not.connected", "A").to_wire(), server)
        told_if_asked.setsockopt(*RECVERR[family], 1)
        told_if_asked.sendto(dns.message.make_query("has.asked", "A").to_wire(), server)
        with pytest.raises(ConnectionRefusedError):
            told_if_asked.recv(512)
        asker.connect(server)
        asker.send(dns.message.make_query("first.test", "A").to_wire())
        with pytest.raises(ConnectionRefusedError):
            asker.recv(512)
        asker.send(dns.message.make_query("second.test", "AAAA").to_wire())
        with pytest.raises(ConnectionRefusedError):
            asker.recv(512)
        rows = cap.dns()
        totals = cap.totals()

    assert told(rows.sort_values("asked_at"), ["name", "rcode", "pid"]) == [
        {"name": "not.connected", "rcode": "pending", "pid": os.getpid()},
        {"name": "has.asked", "rcode": "unreachable", "pid": os.getpid()},
        {"name": "first.test", "rcode": "unreachable", "pid": os.getpid()},
        {"name": "second.test", "rcode": "unreachable", "pid": os.getpid()},
    ]
    assert rows["latency_ms"].isna().all()
    assert cap.dns_stats(by="server_address")["timeouts"].tolist() == [3]
    assert totals
    assert totals.queries == {"unreachable": 3}


def test_the_server_s_side_of_a_lookup_is_a_row_of_the_server(seen: Seen) -> None:
    rows = seen.lookups[(seen.lookups["direction"] == "incoming") & (seen.lookups["name"] == "far.test")]

    assert told(rows, ["process", "rcode", "cname", "server_address", "local_port"]) == [
        {
            "process": "dnsmasq", "rcode": "NOERROR", "cname": "alias.test www.test", "server_address": V4,
            "local_port": 53,
        }
    ]  # fmt: skip


def test_a_forwarder_s_own_query_is_a_row_of_the_forwarder(seen: Seen) -> None:
    assert set(seen.of("servfail.own", process="dnsmasq")["server_address"]) == {OWN}


def test_a_slow_server_shows_as_slow(seen: Seen) -> None:
    (latency_ms,) = seen.of("slow.own", process="dig")["answer_ms"]

    assert latency_ms >= DELAY_S * 1000


def test_glibc_s_two_questions_on_one_socket_are_two_rows_and_go_to_the_next_server_after_a_timeout(
    seen: Seen,
) -> None:
    rows = seen.of("www.test", silent_servers=DEAD).sort_values("type")

    assert told(rows, ["type", "rcode", "retries", "server_address"]) == [
        {"type": kind, "rcode": "NOERROR", "retries": 1, "server_address": V4} for kind in ("A", "AAAA")
    ]
    assert rows["latency_ms"].min() >= 1000
    assert rows["answer_ms"].max() < rows["latency_ms"].min()


def test_answers_that_were_not_wanted_or_could_not_be_read_are_counted(seen: Seen) -> None:
    gaps = netlab.coverage(seen.lookups).set_index("detail")["count"]

    assert gaps.filter(like="late, a second one").sum() >= 1
    assert gaps.filter(like="could not be read").sum() == 2  # sent and received


def test_an_address_has_the_names_it_was_asked_for_by(seen: Seen) -> None:
    names = seen.names[seen.names["address"] == "192.0.2.1"]

    assert {"www.test", "far.test"} <= set(names["name"])
    assert names.set_index("name").loc["far.test", "cname"] == "alias.test www.test"


def test_a_connection_has_the_name_that_was_looked_up_before_it_and_never_a_later_one(seen: Seen) -> None:
    rows = seen.connections.sort_values("opened_at")
    opened = rows[~rows["remote_port"].isin([53, 443]) & (rows["remote_address"] == "192.0.2.7")]
    theirs = opened[(opened["protocol"] == "tcp") & (opened["direction"] == "outgoing")]

    assert told(theirs, ["remote_name"]) == [{"remote_name": "NA"}, {"remote_name": "app.test"}]


def test_a_name_under_a_mask_is_nowhere(here: Place, tmp_path: Path) -> None:
    (tmp_path / "names").write_text("vault7.test\nfar.test\n", encoding="ascii")
    with netlab.capture(protocols="dns", mask_names=["test"], netns=here.name) as cap:
        here.dig(f"@{V4}", "-f", str(tmp_path / "names"))
        frames = {"dns": cap.dns(), "connections": cap.connections()}
        text = "".join(frame.to_csv() for frame in (*frames.values(), cap.names(), cap.dns_stats()))
    netlab.save(tmp_path / "run.netlab", **frames)

    assert set(frames["dns"]["name"]) == {"*.test"}
    assert "vault7" not in text
    assert "alias" not in text
    assert b"vault7" not in (tmp_path / "run.netlab").read_bytes()


def test_what_the_link_is_asked_is_matched_to_whoever_answers(here: Place) -> None:
    for words in (
        "link add link0 type veth peer name link1", "link set link1 up", "link set link0 up multicast on",
        "address add 192.0.2.33/32 dev link0", "address add 192.0.2.34/32 dev link0",
        "route add 224.0.0.0/4 dev link0",
    ):  # fmt: skip
        here.run("ip", *words.split()).check_returncode()
    with netlab.capture(protocols="dns", netns=here.name) as cap:
        assert here.run(sys.executable, "-c", ASK_LINK).stdout == "631 printer.local.\n"
        lookups = cap.dns()

    rows = lookups[(lookups["name"] == PRINTER) & (lookups["type"] == "SRV")]
    columns = ["service", "direction", "rcode", "answers", "server_address"]
    assert told(rows.sort_values("direction"), columns) == [
        {
            "service": "mdns", "direction": direction, "rcode": "NOERROR", "answers": "0 0 631 printer.local",
            "server_address": "224.0.0.251",
        }
        for direction in ("incoming", "outgoing")
    ]  # fmt: skip


def test_silence_around_a_pause_and_behind_the_end_proves_nothing(here: Place) -> None:
    with netlab.capture(protocols="dns", dns_timeout_s=2, netns=here.name) as cap, here.asker() as asker:
        asker.sendto(nameservers.query("silent.own"), (OWN, 53))
        cap.pause()
        asker.sendto(nameservers.query("www.test"), (V4, 53))
        asker.recv(512)
        cap.resume()
        _wait_until_nothing_is_pending(cap)
        asker.sendto(nameservers.query("silent.last"), (OWN, 53))
    time.sleep(2.1)

    assert _outcomes(cap) == {"silent.own": "missed", "silent.last": "pending"}


def _outcomes(cap: Capture) -> dict[str, str]:
    lookups = cap.dns()
    outcomes: dict[str, str] = (
        lookups[lookups["direction"] == "outgoing"].set_index("name")["rcode"].to_dict()
    )
    return outcomes


def test_other_connections_are_not_read_where_dns_alone_is_asked_for(seen: Seen) -> None:
    others = netlab.coverage(seen.lookups)["detail"].str.contains("something else|too little")

    assert len(seen.connections[seen.connections["remote_port"] == 443])
    assert not others.any()


def test_lookups_that_are_encrypted_are_counted(seen: Seen) -> None:
    gaps = netlab.coverage(seen.lookups).set_index("detail")["count"]

    assert gaps.filter(like="port 853").tolist() == [1]


def test_lookups_in_tls_are_read_where_clear_text_is_asked_for(here: Place, tmp_path: Path) -> None:
    options = {"protocols": "dns", "clear_text": True, "netns": here.name}
    with nameservers.sealed(here, tmp_path), netlab.capture(**options) as cap:
        asked = here.run(sys.executable, "-c", ASK_IN_TLS)
        assert not asked.returncode, asked.stderr
        log = pd.DataFrame(json.loads(asked.stdout), columns=LOG)
        until(lambda: min(len(_in_tls(cap, way)) for way in ("outgoing", "incoming")) >= len(log))
        lookups = {way: _in_tls(cap, way) for way in ("outgoing", "incoming")}
        gaps = netlab.coverage(cap.dns())

    for rows in lookups.values():
        assert told(rows, ["name", "rcode", "server_address"]) == told(
            log, ["name", "rcode", "server_address"]
        )
        assert set(rows["server_port"]) == {853}
    assert set(lookups["incoming"]["process"]) == {"nginx"}
    waited = (log["waited_ms"] - lookups["outgoing"]["latency_ms"].astype(float)).to_numpy()
    told_apart("dns in TLS", waited)
    assert (waited >= 0).all()
    assert not gaps["detail"].str.contains("port 853").any()


def _in_tls(cap: Capture, direction: str) -> pd.DataFrame:
    rows = cap.dns()
    return rows[(rows["transport"] == "tls") & (rows["direction"] == direction)].reset_index(drop=True)
