"""A server of each protocol on both loopback addresses, and clients that note what they did, in TLS."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from brokers import kafka
from certificates import certify, trusting
from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError
from loopback import LOOPBACK
from overheard import announcing, free_port, overhearing, running
from speakers import CODES, Ask, cart, commands, database, http1, http2, statements, timed
from tlslibraries import over_gnutls

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # how it reads its own schemas
    from kafka import KafkaProducer

NGINX = """
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; master_process off; pid {place}/pid; error_log {place}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off; client_body_temp_path {place}/body; proxy_temp_path {place}/proxy;
    fastcgi_temp_path {place}/fastcgi; uwsgi_temp_path {place}/uwsgi; scgi_temp_path {place}/scgi;
    ssl_certificate {place}/cert.pem; ssl_certificate_key {place}/key.pem; keepalive_requests 100000;
    upstream cart {{ server 127.0.0.1:{cart}; keepalive 1; keepalive_requests 100000; }}
    server {{
        listen 127.0.0.1:{http} ssl; listen [::1]:{http} ssl;
        listen 127.0.0.1:{gnutls} ssl; listen [::1]:{gnutls} ssl;
        listen 127.0.0.1:{http2} ssl http2; listen [::1]:{http2} ssl http2; root {place};
        location /deep/ {{ return 200 "deep"; }}
        location /busy {{ return 503; }}
    }}
    server {{
        listen 127.0.0.1:{grpc} ssl http2; listen [::1]:{grpc} ssl http2;
        location / {{ grpc_pass grpc://cart; }}
    }}
}}
stream {{
    ssl_certificate {place}/cert.pem; ssl_certificate_key {place}/key.pem; tcp_nodelay on;
    server {{ listen 127.0.0.1:{kafka} ssl; proxy_pass 127.0.0.1:{broker4}; }}
    server {{ listen [::1]:{kafka} ssl; proxy_pass 127.0.0.1:{broker6}; }}
}}
"""
ADDRESS = {4: b"127.0.0.1", 6: b"0:0:0::01"}  # of one length


@contextlib.contextmanager
def sealed_http(port: int, family: int) -> Iterator[Ask]:
    """Ask with Python's own client."""
    client = http.client.HTTPSConnection(LOOPBACK[family], port, timeout=30, context=trusting())
    with http1(port, family, client) as ask:
        yield ask


@contextlib.contextmanager
def gnutls_http(port: int, family: int) -> Iterator[Ask]:
    """Ask with Python's own client over GnuTLS."""
    with http1(port, family, over_gnutls(port, family)) as ask:
        yield ask


class _Bytes(CodecBase):
    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:  # noqa: ARG002 - a codec
        return bytes(message)

    def decode(self, data: bytes, message_type: Any) -> bytes:  # noqa: ARG002
        return data


@contextlib.contextmanager
def calls(port: int, family: int) -> Iterator[Ask]:
    """Ask with grpclib, which is Python and asyncio: OpenSSL seals into memory."""
    with asyncio.Runner() as runner:

        async def opened() -> Channel:
            return Channel(LOOPBACK[family], port, codec=_Bytes(), ssl=trusting("h2"))

        channel = runner.run(opened())

        async def call(name: str) -> int:
            try:
                await UnaryUnaryMethod(channel, f"/shop.v1.Cart/{name}", bytes, bytes)(b"x" * 100, timeout=30)
            except GRPCError as error:
                return int(error.status.value)
            return 0

        def ask(number: int) -> Any:
            name = f"Get{CODES[number % len(CODES)].value[0]}"
            return timed(name, "shop.v1.Cart", lambda: runner.run(call(name)))

        yield ask

        async def close() -> None:
            channel.close()
            while len(runner.get_loop()._selector.get_map()) > 1:  # type: ignore[attr-defined]  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # until TLS, too, has said goodbye

        runner.run(close())


@contextlib.contextmanager
def messages(port: int, family: int) -> Iterator[Ask]:
    """Ask with kafka-python: each message alone."""
    producer = KafkaProducer(
        bootstrap_servers=f"{'[::1]' if family == 6 else LOOPBACK[family]}:{port}",
        security_protocol="SSL",
        ssl_context=trusting(),
        enable_idempotence=False,
        api_version=(2, 0),  # of the later ones it does not read how librdkafka refuses them
    )

    def send() -> str:
        producer.send("orders", b"hunter2", partition=1).get(30)
        return "OK"

    with contextlib.closing(producer):
        yield lambda _: timed("Produce", "orders", send)


CLIENTS = {
    "http": sealed_http,
    "gnutls": gnutls_http,
    "http2": lambda port, family: http2(port, family, trusting("h2")),
    "grpc": calls,
    "redis": partial(commands, ssl=True, ssl_cert_reqs="none", ssl_check_hostname=False),
    "postgres": partial(statements, sslmode="require"),
    "kafka": messages,
}


@contextlib.contextmanager
def _store(place: Path, files: tuple[Path, Path]) -> Iterator[int]:
    port = free_port()
    options = ("--port", "0", "--save", "", "--tls-auth-clients", "no", "--dir", place, "--tls-port", port)
    command = ("redis-server", *options, "--tls-cert-file", files[0], "--tls-key-file", files[1])
    with running([str(word) for word in command], port):
        yield port


@contextlib.contextmanager
def servers(place: Path) -> Iterator[dict[tuple[str, int], int]]:
    """Run a server of each protocol; yield their ports by protocol and family.

    A broker tells its clients where it is: relays between nginx and brokers have them tell nginx's address.
    """
    files = certify(place)
    ports = {name: free_port() for name in ("http", "gnutls", "http2", "grpc", "kafka")}
    with contextlib.ExitStack() as running_:
        enter = running_.enter_context
        relays = {}
        for family in LOOPBACK:
            broker = enter(kafka())
            relay = enter(overhearing(broker))
            relay.alter = announcing(broker, ADDRESS[family], ports["kafka"])
            relays[f"broker{family}"] = relay.port
        config = NGINX.format(place=place, cart=enter(cart()), **relays, **ports)
        (place / "nginx.conf").write_text(config, encoding="utf-8")
        enter(running(("nginx", "-p", str(place), "-c", str(place / "nginx.conf")), ports["http"]))
        ports |= {
            "redis": enter(_store(place, files)),
            "postgres": enter(database(tls=True)),
        }
        yield {(name, family): ports[name] for name in CLIENTS for family in LOOPBACK}
