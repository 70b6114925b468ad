"""What is spoken besides HTTP/1, captured from packets of real clients, against what these say they did."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import pandas as pd
import pytest
import redis
from overheard import free_port, nginx, running, until

import netlab
from netlab.protocols.stats import request_stats

pytestmark = pytest.mark.privileged

REQUESTS = 1_000  # of each protocol
CODES = (grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE)


@dataclass(frozen=True)
class Did:
    """What a client did, and how it went."""

    operation: str
    resource: str
    outcome: str
    took_ms: float


@dataclass(frozen=True)
class Seen:
    """The logs of the clients by the port of their server, and the capture's rows."""

    logs: dict[str, list[Did]]
    ports: dict[str, int]
    requests: pd.DataFrame


def _timed(operation: str, resource: str, call: Callable[[], str]) -> Did:
    begun = time.monotonic_ns()
    outcome = call()
    return Did(operation, resource, outcome, (time.monotonic_ns() - begun) / 1e6)


def _fetch(port: int, *, is_http2: bool) -> list[Did]:
    paths = {"/deep/a?token=1": "/deep/a", "/none": "/none", "/busy": "/busy", "/deep/12": "/deep/*"}
    with httpx.Client(http1=not is_http2, http2=is_http2, base_url=f"http://127.0.0.1:{port}") as client:
        return [
            _timed("GET", masked, lambda path=path: str(client.get(path).status_code))
            for _ in range(REQUESTS // len(paths))
            for path, masked in paths.items()
        ]


def _call(port: int) -> list[Did]:
    def once(channel: grpc.Channel, name: str) -> str:
        try:
            channel.unary_unary(f"/shop.v1.Cart/{name}")(b"x" * 100)
        except grpc.RpcError as error:
            return str(error.code().value[0])
        return "0"

    names = [f"Get{code.value[0]}" for code in CODES]
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        return [
            _timed(name, "shop.v1.Cart", lambda name=name: once(channel, name))
            for name in (names[number % len(names)] for number in range(REQUESTS))
        ]


def _command(port: int) -> list[Did]:
    def once(client: redis.Redis, *words: Any) -> str:
        try:
            client.execute_command(*words)
        except redis.ResponseError:
            return "WRONGTYPE"
        return "OK"

    with redis.Redis(port=port) as client:
        return [
            _timed(words[0], "user:*", lambda words=words: once(client, *words))
            for number in range(REQUESTS // 2)
            for words in (("SET", f"user:{number}", "secret"), ("LPUSH", f"user:{number}", "secret"))
        ]


def _monitor(port: int) -> None:
    with redis.Redis(port=port) as client, client.monitor() as monitor:
        client.ping()
        until(lambda: "PING" in monitor.next_command()["command"])


def _answering(code: grpc.StatusCode) -> Callable[[bytes, grpc.ServicerContext], bytes]:
    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        if code is not grpc.StatusCode.OK:
            context.abort(code, "no")
        return request

    return answer


@pytest.fixture(scope="module")
def calls() -> Iterator[int]:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    methods = {f"Get{code.value[0]}": grpc.unary_unary_rpc_method_handler(_answering(code)) for code in CODES}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("shop.v1.Cart", methods)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None).wait()


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, calls: int) -> Seen:
    place, keys = tmp_path_factory.mktemp("nginx"), free_port()
    store = (
        "redis-server",
        "--port",
        str(keys),
        "--save",
        "",
        "--dir",
        str(tmp_path_factory.mktemp("redis")),
    )
    with (
        nginx(tmp_path_factory.mktemp("http1")) as web,
        nginx(place, protocol="http2") as web2,
        running(store, keys),
    ):
        ports = {"http": web, "http2": web2, "grpc": calls, "redis": keys}
        with netlab.capture(protocols=tuple(ports)) as capture:
            logs = {
                "http": _fetch(web, is_http2=False),
                "http2": _fetch(web2, is_http2=True),
                "grpc": _call(calls),
                "redis": _command(keys),
            }
            _monitor(keys)
            until(lambda: len(_done(capture.requests(), ports)) >= 2 * sum(map(len, logs.values())))
            requests = capture.requests()
    return Seen(logs, ports, requests)


def _done(requests: pd.DataFrame, ports: dict[str, int]) -> pd.DataFrame:
    here = requests["local_port"].isin(ports.values()) | requests["remote_port"].isin(ports.values())
    own = requests["operation"].str.startswith(("CLIENT", "HELLO", "MONITOR", "PING"))  # what is in no log
    return requests[here & ~own & (requests["outcome"] == "answered")].sort_values("requested_at")


@pytest.mark.parametrize("direction", ["outgoing", "incoming"])
@pytest.mark.parametrize("protocol", ["http", "http2", "grpc", "redis"])
def test_rows_are_what_the_client_did(seen: Seen, protocol: str, direction: str) -> None:
    rows = _done(seen.requests, seen.ports)
    rows = rows[(rows["protocol"] == protocol) & (rows["direction"] == direction)]
    log = seen.logs[protocol]

    told = zip(rows["operation"], rows["resource"], rows["status"], strict=True)
    assert list(told) == [(did.operation, did.resource, did.outcome) for did in log]
    assert (rows["duration_ms"] >= rows["latency_ms"]).all()
    if direction == "outgoing":
        assert (rows["latency_ms"].to_numpy() <= [did.took_ms for did in log]).all()


def test_statistics_count_the_failures(seen: Seen) -> None:
    rows = _done(seen.requests, seen.ports)
    stats = request_stats(rows[rows["direction"] == "incoming"], by=["protocol"]).set_index("protocol")

    assert stats["requests"].to_dict() == {name: len(log) for name, log in seen.logs.items()}
    assert stats["statuses"].to_dict() == {
        "http": "404: 250, 503: 250",
        "http2": "404: 250, 503: 250",
        "grpc": "14: 333, 5: 333",
        "redis": "WRONGTYPE: 500",
    }


def test_no_value_and_no_query_is_in_any_row(seen: Seen) -> None:
    text = seen.requests.to_csv()

    assert "secret" not in text
    assert "token" not in text


def test_connections_that_go_on_in_another_protocol_are_counted(seen: Seen) -> None:
    coverage = netlab.coverage(seen.requests)

    assert coverage.loc[coverage["detail"].str.contains("MONITOR"), "count"].tolist() == [2]  # at both ends
