"""A server of each protocol on both loopback addresses, and clients that note what they did."""

from __future__ import annotations

import contextlib
import http.client
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import confluent_kafka
import grpc
import httpx
import psycopg
import redis
from brokers import QUIET, kafka
from databases import postgres
from loopback import LOOPBACK
from overheard import free_port, nginx, overhearing, running

CODES = (grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE)
PATHS = {"/deep/a?token=1": "/deep/a", "/none": "/none", "/busy": "/busy", "/deep/12": "/deep/*"}


@dataclass(frozen=True, slots=True)
class Did:
    """What a client did, and how it went."""

    operation: str
    resource: str
    status: str
    took_ms: float


Ask: TypeAlias = Callable[[int], Did]


def timed(operation: str, resource: str, call: Callable[[], object]) -> Did:
    begun = time.monotonic_ns()
    status = str(call())
    return Did(operation, resource, status, (time.monotonic_ns() - begun) / 1e6)


@contextlib.contextmanager
def http1(port: int, family: int, client: http.client.HTTPConnection | None = None) -> Iterator[Ask]:
    """Ask with Python's own client."""
    client = client or http.client.HTTPConnection(LOOPBACK[family], port, timeout=30)

    def fetch(path: str) -> int:
        client.request("GET", path)
        with client.getresponse() as response:
            response.read()
            return response.status

    with contextlib.closing(client):
        yield lambda number: timed("GET", *_page(number, fetch))


@contextlib.contextmanager
def http2(port: int, family: int, tls: ssl.SSLContext | None = None) -> Iterator[Ask]:
    """Ask with httpx."""
    base = f"http{'s' * bool(tls)}://{'[::1]' if family == 6 else LOOPBACK[family]}:{port}"
    keep = httpx.Limits(keepalive_expiry=None)
    with httpx.Client(
        http1=False, http2=True, base_url=base, timeout=30, limits=keep, verify=tls or True
    ) as client:
        yield lambda number: timed("GET", *_page(number, lambda path: client.get(path).status_code))


def _page(number: int, fetch: Callable[[str], int]) -> tuple[str, Callable[[], int]]:
    path, masked = list(PATHS.items())[number % len(PATHS)]
    return masked, lambda: fetch(path)


@contextlib.contextmanager
def calls(port: int, family: int) -> Iterator[Ask]:
    """Ask with gRPC's own client."""
    with grpc.insecure_channel(f"{'[::1]' if family == 6 else LOOPBACK[family]}:{port}") as channel:

        def call(name: str) -> int:
            try:
                channel.unary_unary(f"/shop.v1.Cart/{name}")(b"x" * 100, timeout=30)
            except grpc.RpcError as error:
                return int(error.code().value[0])
            return 0

        def ask(number: int) -> Did:
            name = f"Get{CODES[number % len(CODES)].value[0]}"
            return timed(name, "shop.v1.Cart", lambda: call(name))

        yield ask


@contextlib.contextmanager
def commands(port: int, family: int, **options: Any) -> Iterator[Ask]:
    """Ask with redis-py: of four commands two fail."""

    def ask(number: int) -> Did:
        key = f"user:{number // 4}"
        words = (("SET", key, "secret"), ("LPUSH", key, "x"), ("GET", key), ("INCR", key))[number % 4]
        return timed(words[0], "user:*", lambda: once(*words))

    def once(*words: Any) -> str:
        try:
            client.execute_command(*words)
        except redis.ResponseError as error:
            return "WRONGTYPE" if "wrong kind" in str(error) else "ERR"
        return "OK"

    with redis.Redis(LOOPBACK[family], port, socket_timeout=30, **options) as client:
        yield ask


STATEMENTS: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("SELECT", "pg_class", "SELECT relname FROM pg_class WHERE oid = %s", {"prepare": False}),
    ("SELECT", "nowhere", "SELECT * FROM nowhere", {}),
    ("INSERT", "once", "INSERT INTO once VALUES (%s - %s)", {}),
    ("SELECT", "once", "SELECT 1 FROM once WHERE number = %s", {"prepare": True}),
)


@contextlib.contextmanager
def statements(port: int, family: int, sslmode: str = "disable") -> Iterator[Ask]:
    """Ask with psycopg: simple and extended protocol, prepared or not; of four statements two fail."""
    options = {"host": LOOPBACK[family], "port": port, "user": "postgres", "sslmode": sslmode}

    def ask(number: int) -> Did:
        operation, table, text, how = STATEMENTS[number % len(STATEMENTS)]
        values = [number] * text.count("%s") or None
        return timed(operation, table, lambda: once(text, values, how))

    def once(text: str, values: Any, how: dict[str, Any]) -> str:
        try:
            connection.execute(text, values, **how)
        except psycopg.Error as error:
            return str(error.sqlstate)
        return "OK"

    with psycopg.connect(**options, autocommit=True) as connection:
        yield ask


@contextlib.contextmanager
def messages(port: int, family: int) -> Iterator[Ask]:
    """Ask with librdkafka: each message alone.

    Asked for one family, it would not even take 127.0.0.1 where only loopback has addresses (AI_ADDRCONFIG).
    """
    told: list[Any] = []
    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": f"{'[::1]' if family == 6 else LOOPBACK[family]}:{port}",
            "linger.ms": 0,
            "message.timeout.ms": 20_000,  # an end waits for what is not delivered, else five minutes
            "on_delivery": lambda error, _: told.append(error),
        },
        logger=QUIET,
    )

    def send() -> str:
        producer.produce("orders", b"hunter2", partition=1)
        assert producer.flush(30) == 0
        error = told.pop()
        return "OK" if error is None else str(error.name())

    with producer:
        yield lambda _: timed("Produce", "orders", send)


CLIENTS = {
    "http": http1,
    "http2": http2,
    "grpc": calls,
    "redis": commands,
    "postgres": statements,
    "kafka": messages,
}


def _answering(code: grpc.StatusCode) -> Callable[[bytes, grpc.ServicerContext], bytes]:
    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        if code is not grpc.StatusCode.OK:
            context.abort(code, "no")
        return request

    return answer


@contextlib.contextmanager
def cart() -> Iterator[int]:
    """Serve gRPC."""
    server = grpc.server(futures.ThreadPoolExecutor(2))
    methods = {f"Get{code.value[0]}": grpc.unary_unary_rpc_method_handler(_answering(code)) for code in CODES}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("shop.v1.Cart", methods)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.add_insecure_port(f"[::1]:{port}")
    server.start()
    yield port
    server.stop(None).wait()


@contextlib.contextmanager
def _store(place: Path) -> Iterator[int]:
    port = free_port()
    command = ("redis-server", "--port", str(port), "--save", "", "--dir", str(place))
    with running(command, port):
        yield port


@contextlib.contextmanager
def database(*, tls: bool = False) -> Iterator[int]:
    """Run PostgreSQL with a table that takes no second row."""
    with postgres(tls=tls) as port:
        options = {"host": "127.0.0.1", "port": port, "user": "postgres", "sslmode": "disable"}
        with psycopg.connect(**options, autocommit=True) as connection:
            connection.execute("CREATE TABLE once (number int PRIMARY KEY)")
            connection.execute("INSERT INTO once VALUES (0)")
        yield port


@contextlib.contextmanager
def servers(place: Path) -> Iterator[dict[tuple[str, int], int]]:
    """Run a server of each protocol; yield their ports by protocol and family.

    librdkafka's broker listens on 127.0.0.1 only: over IPv6 clients speak to a relay in front of one.
    """
    for name in ("http", "http2", "redis"):
        (place / name).mkdir()
    with contextlib.ExitStack() as running_:
        enter = running_.enter_context
        both = {
            "http": enter(nginx(place / "http")),
            "http2": enter(nginx(place / "http2", protocol="http2")),
            "grpc": enter(cart()),
            "redis": enter(_store(place / "redis")),
            "postgres": enter(database()),
            "kafka": enter(kafka()),
        }
        relay = enter(overhearing(enter(kafka()), family=6, own_address=True))
        yield {(name, family): port for name, port in both.items() for family in LOOPBACK} | {
            ("kafka", 6): relay.port
        }
