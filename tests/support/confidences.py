"""Secrets, and clients and servers that say them: in URLs, headers, SQL, keys, records, metadata, names."""

from __future__ import annotations

import contextlib
import secrets
import socket
import ssl
import threading
import urllib.parse
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path

import dns.message
import dns.rrset
import grpc
import httpx
import psycopg
import redis
from brokers import kafka
from confluent_kafka import Producer
from databases import postgres
from overheard import free_port, nginx, running

TENANT = "velvetmoose"  # a word like others: hidden by a rule of one's own
ZONE = "corp.example"  # whose names are masked


@dataclass
class Said:
    """Every secret that was sent, by the place it was sent in."""

    where: dict[str, str] = field(default_factory=dict)

    def new(self, place: str) -> str:
        """Return a secret for *place*, which no word is."""
        self.where[place] = f"s3cr{secrets.token_hex(8)}"
        return self.where[place]

    def forms(self) -> Iterator[tuple[str, bytes]]:
        """Yield each of them as it may look in some file, in lower case."""
        for place, secret in {**self.where, "tenant": TENANT}.items():
            encoded = "".join(f"%{byte:02x}" for byte in secret.encode())
            for form in (secret, encoded, secret.encode().hex()):
                yield place, form.encode()

    def found_in(self, data: bytes) -> list[str]:
        """Return the places whose secrets are in *data*."""
        lower = data.lower()
        wide = lower.replace(b"\0", b"")  # UTF-16 and UTF-32
        return [place for place, form in self.forms() if form in lower or form in wide]


def browse(said: Said, port: int) -> None:
    """Say secrets in every part of HTTP requests."""
    new = said.new
    encoded = "".join(f"%{byte:02X}" for byte in new("percent-encoded path").encode())
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        client.get(f"/orders/{new('path')}?token={new('query')}#{new('fragment')}")
        client.get(f"/orders/{encoded}")
        client.get(f"/ORDERS/{new('path in capitals').upper()};session={new('parameter')}")
        client.get(f"/{TENANT.upper()}/orders")
        client.get(f"/orders/{urllib.parse.quote_plus(new('quoted') + '/&')}")
        client.get("/orders/2", headers={"Host": f"{new('host')}.{ZONE}"})
        client.get("/orders/3", auth=(new("user"), new("password")))
        headers = {"Authorization": f"Bearer {new('bearer')}", "Cookie": f"session={new('cookie')}"}
        client.post("/orders/1", content=new("body"), headers=headers | {"X-Api-Key": new("header")})
    with socket.create_connection(("127.0.0.1", port), timeout=30) as raw:
        target = f"http://{new('user of a URL')}:{new('password of a URL')}@web/orders/4?{new('its query')}"
        raw.sendall(f"GET {target} HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n".encode())
        while raw.recv(65536):
            pass


def command(said: Said, port: int) -> None:
    """Say secrets in keys, values, passwords and what is no command; some come back in errors."""
    new = said.new
    fail = "return {err = ARGV[1] .. ' ' .. ARGV[2]}"
    with redis.Redis(port=port) as client:
        client.set(f"user:{new('key')}", new("value"))
        client.get(f"{TENANT}:7")
        client.get(new("key without a prefix"))
        for words in (
            ("AUTH", "default", new("password of redis")),
            (new("no command"), new("argument")),
            ("INCR", f"user:{said.where['key']}"),
            ("EVAL", fail, 0, new("code of an error").upper(), new("text of an error")),
        ):
            with contextlib.suppress(redis.RedisError):
                client.execute_command(*words)


def query(said: Said, port: int) -> None:
    """Say secrets in literals, parameters, comments, COPY data and the server's own words."""
    new = said.new
    options = {"host": "127.0.0.1", "port": port, "user": "postgres", "sslmode": "disable"}
    with psycopg.connect(**options, autocommit=True, application_name=new("application")) as connection:
        simple, select = psycopg.ClientCursor(connection), "SELECT * FROM pg_class"
        simple.execute(f"{select} WHERE relname = %s", [new("literal")])
        simple.execute(f"{select} /* {new('comment')} /* {new('inner')} */, {new('outer')} --*/")
        simple.execute(f"{select} WHERE relname IN ($x${new('dollar')}$x$, E'\\'{new('escaped')}')")
        connection.execute(f"{select} WHERE relname = %s", [new("parameter of SQL")], prepare=True)
        for statement in (f"SELECT '{new('error')}'::int", f"DO $$BEGIN RAISE '{new('raised')}'; END$$"):
            with contextlib.suppress(psycopg.Error):
                simple.execute(statement)
        simple.execute(f"CREATE TABLE {TENANT} (word text)")
        with simple.copy(f"COPY {TENANT} FROM STDIN") as copy:
            copy.write_row([new("copied")])
        simple.execute(f"TABLE {TENANT}")
        simple.execute(f"ALTER ROLE postgres PASSWORD '{new('password of postgres')}'")


def produce(said: Said, port: int) -> None:
    """Say secrets in records, their keys and headers, and the client's name."""
    producer = Producer({"bootstrap.servers": f"127.0.0.1:{port}", "client.id": said.new("client id")})
    for topic in ("parcels", TENANT):
        producer.produce(
            topic,
            said.new(f"record {topic}"),
            key=said.new(f"key {topic}"),
            headers={"h": said.new(f"h {topic}")},
        )
    assert producer.flush(30) == 0


def call(said: Said, port: int) -> None:
    """Say secrets in messages, metadata and the words of a failure."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        for name in ("/shop.v1.Cart/Get", f"/{TENANT}.v1.Cart/Get"):
            with contextlib.suppress(grpc.RpcError):
                channel.unary_unary(name)(
                    said.new("message").encode(), metadata=[("x-token", said.new("metadata"))]
                )


def shake(said: Said, port: int) -> None:
    """Say a secret as the name of a server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        contextlib.suppress(ssl.SSLError),  # the server has no certificate
    ):
        context.wrap_socket(plain, server_hostname=f"{said.new('server name')}.{ZONE}").close()


def look_up(said: Said, port: int) -> None:
    """Say secrets in names that are asked for, and get one in the answer."""
    for name in (f"{said.new('name')}.{ZONE}", f"{said.new('mixed name').swapcase()}.CORP.example"):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
            asker.settimeout(30)
            asker.sendto(dns.message.make_query(name, "A").to_wire(), ("127.0.0.1", port))
            asker.recv(4096)


@contextlib.contextmanager
def name_server(said: Said) -> Iterator[int]:
    """Answer questions with an alias that is secret, too."""
    alias = f"{said.new('alias')}.{ZONE}."
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))

        def answer() -> None:
            while (asked := server.recvfrom(4096))[0]:
                answer = dns.message.make_response(dns.message.from_wire(asked[0]))
                name = answer.question[0].name
                answer.answer = [
                    dns.rrset.from_text(name, 60, "IN", "CNAME", alias),
                    dns.rrset.from_text(alias, 60, "IN", "A", "127.0.0.1"),
                ]
                server.sendto(answer.to_wire(), asked[1])

        answering = threading.Thread(target=answer)
        answering.start()
        yield server.getsockname()[1]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", server.getsockname())
        answering.join()


@contextlib.contextmanager
def calls(said: Said) -> Iterator[int]:
    """Serve a method that fails and says why."""

    def fail(_: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.NOT_FOUND, said.new("grpc-message"))
        return b""

    server = grpc.server(futures.ThreadPoolExecutor(2))
    methods = {"Get": grpc.unary_unary_rpc_method_handler(fail)}
    names = ("shop.v1.Cart", f"{TENANT}.v1.Cart")
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, methods) for name in names])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None).wait()


@contextlib.contextmanager
def servers(said: Said, place: Path) -> Iterator[dict[str, int]]:
    """Run one server of each protocol and yield their ports."""
    keys, sealed = free_port(), free_port()
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        enter(running(["redis-server", "--port", str(keys), "--save", "", "--dir", str(place)], keys))
        enter(running(["openssl", "s_server", "-port", str(sealed), "-nocert", "-quiet"], sealed))
        yield {
            "http": enter(nginx(place)),
            "redis": keys,
            "postgres": enter(postgres()),
            "kafka": enter(kafka()),
            "grpc": enter(calls(said)),
            "tls": sealed,
            "dns": enter(name_server(said)),
        }


SAYERS = {
    "http": browse, "redis": command, "postgres": query, "kafka": produce, "grpc": call, "tls": shake,
    "dns": look_up,
}  # fmt: skip
