"""PostgreSQL, Kafka and TLS, read from packets of real servers and clients, over IPv4 and IPv6."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pandas as pd
import psycopg
import pytest
from brokers import kafka
from confluent_kafka import Producer
from databases import postgres
from overheard import free_port, running

import netlab
from netlab.tracer.session import Capture

pytestmark = pytest.mark.privileged

COUNT = 50
LOOPBACKS = ("127.0.0.1", "::1")


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def database() -> Iterator[int]:
    with postgres(tls=True) as port:
        yield port


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    place = tmp_path_factory.mktemp("tls")
    subject = [
        "-subj",
        "/CN=shop.example",
        "-days",
        "30",
        "-keyout",
        str(place / "key"),
        "-out",
        str(place / "cert"),
    ]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject],
        check=True,
        capture_output=True,
    )
    port = free_port()
    options = ["-cert", str(place / "cert"), "-key", str(place / "key"), "-alpn", "h2", "-quiet"]
    with running(["openssl", "s_server", "-port", str(port), *options], port):
        yield port


def shake(port: int, address: str, version: ssl.TLSVersion) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((address, port)) as plain,
        context.wrap_socket(plain, server_hostname="shop.example") as client,
    ):
        client.sendall(b"x")


@pytest.fixture(scope="module")
def capture(database: int, secured: int) -> Iterator[Capture]:
    """Watch clients of all three."""
    with kafka() as broker, netlab.capture(protocols=("postgres", "kafka", "tls")) as watching:
        for address in LOOPBACKS:
            options = {"host": address, "port": database, "user": "postgres", "sslmode": "disable"}
            with psycopg.connect(**options, autocommit=True) as connection:
                for number in range(COUNT):
                    connection.execute("SELECT relname FROM pg_class WHERE oid = %s", [number], prepare=False)
                with pytest.raises(psycopg.errors.UndefinedTable):
                    connection.execute("SELECT * FROM nowhere")
        sealed = psycopg.connect(
            host="127.0.0.1", port=database, user="postgres", dbname="template1", sslmode="require"
        )
        sealed.close()
        producer = Producer({"bootstrap.servers": f"127.0.0.1:{broker}", "linger.ms": 0})
        for _ in range(COUNT):
            producer.produce("orders", b"hunter2", partition=1)
            assert producer.flush(30) == 0
        for address in LOOPBACKS:
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                shake(secured, address, version)
        until(lambda: len(answered(watching, "postgres")) >= 2 * 2 * (COUNT + 2))
        until(lambda: (answered(watching, "kafka")["operation"] == "Produce").sum() >= 2 * COUNT)
        until(lambda: len(answered(watching, "tls")) >= 2 * 5)
        yield watching


def answered(capture: Capture, protocol: str) -> pd.DataFrame:
    requests = capture.requests(protocol)
    return requests[(requests["outcome"] == "answered") & (requests["pid"].notna())]


def test_statements_are_those_of_the_client_at_both_ends(capture: Capture) -> None:
    requests = answered(capture, "postgres")

    assert requests.groupby(
        ["direction", "operation", "resource", "status"], observed=True
    ).size().to_dict() == {
        (direction, *rest): count
        for direction in ("outgoing", "incoming")
        for rest, count in {
            ("CONNECT", "postgres", "OK"): 2,
            ("SELECT", "pg_class", "OK"): 2 * COUNT,
            ("SELECT", "nowhere", "42P01"): 2,
        }.items()
    }
    outgoing = requests[requests["direction"] == "outgoing"]
    assert set(outgoing["remote_address"]) == set(LOOPBACKS)
    assert set(outgoing["pid"]) == {os.getpid()}
    assert set(requests.loc[requests["direction"] == "incoming", "process"]) == {"postgres"}
    assert (requests["latency_ms"] >= 0).all()


def test_messages_sent_alone_are_produce_requests_at_both_ends(capture: Capture) -> None:
    requests = answered(capture, "kafka")
    produced = requests[requests["operation"] == "Produce"]

    assert produced.groupby("direction", observed=True)["records"].sum().to_dict() == {
        "incoming": COUNT,
        "outgoing": COUNT,
    }
    assert set(produced["resource"]) == {"orders"}
    assert set(produced["partition"]) == {1}
    assert set(produced["status"]) == {"OK"}
    assert "hunter2" not in requests.to_csv()


def test_connections_have_the_stack_that_their_bytes_tell(
    capture: Capture, database: int, secured: int
) -> None:
    connections = capture.connections()

    for port, stacks in ((database, {"postgres", "tls+postgres"}), (secured, {"tls+http2"})):
        theirs = connections[(connections["remote_port"] == port) & (connections["bytes_sent"] > 0)]
        assert len(theirs) >= 2
        assert set(theirs["protocol_stack"]) == stacks
    assert (connections["protocol_stack"] == "kafka").any()


def test_a_handshake_behind_a_question_in_clear_is_told_and_nothing_of_what_it_hides(
    capture: Capture, database: int
) -> None:
    tls, requests = capture.tls(), capture.requests("postgres")
    tls = tls[(tls["remote_port"] == database) | (tls["local_port"] == database)]

    assert set(tls["protocol_stack"]) == {"tls+postgres"}
    assert set(tls["status"]) == {"OK"}
    assert sorted(tls["direction"]) == ["incoming", "outgoing"]
    assert "template1" not in set(requests["resource"])


def test_handshakes_tell_their_facts_at_both_ends(capture: Capture, secured: int) -> None:
    tls = capture.tls()
    tls = tls[(tls["remote_port"] == secured) | (tls["local_port"] == secured)]

    assert tls.groupby("tls_version", observed=True).size().to_dict() == {"TLS 1.2": 4, "TLS 1.3": 4}
    assert set(tls["tls_server_name"]) == {"shop.example"}
    assert set(tls["tls_alpn"]) == {"h2"}
    assert set(tls["protocol_stack"]) == {"tls+http2"}
    assert set(tls["status"]) == {"OK"}
    older = tls[tls["tls_version"] == "TLS 1.2"]
    left = older["tls_certificate_expires_at"] - pd.Timestamp(datetime.now(UTC))
    assert left.between(pd.Timedelta(days=29), pd.Timedelta(days=30)).all()
    assert tls.loc[tls["tls_version"] == "TLS 1.3", "tls_certificate_expires_at"].isna().all()
    assert tls.groupby("tls_version", observed=True)["tls_ja4"].nunique().eq(1).all()
    assert set(tls.loc[tls["direction"] == "outgoing", "pid"]) == {os.getpid()}
    assert set(tls.loc[tls["direction"] == "incoming", "process"]) == {"openssl"}
