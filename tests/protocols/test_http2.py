"""HTTP/2 and gRPC as nginx, curl, h2 and grpcio speak them, against what the clients say that they did."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
import h2.config
import h2.connection
import h2.errors
import h2.settings
import hpack
import httpx
import pytest
from hypothesis import given, settings, strategies as st
from overheard import Heard, cut, nginx, overhearing, read

from netlab.protocols.dialog import Exchange, Outcome, Side
from netlab.protocols.fields import READ, Decoder
from netlab.protocols.h2streams import MOST_OPEN
from netlab.protocols.http2 import Http2

CURL = "%{method} %{http_code}\n"
CODES = (grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL)
CALLS = 40


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with nginx(tmp_path_factory.mktemp("nginx"), protocol="http2") as port:
        yield port


@pytest.fixture(scope="module")
def asked(server: int) -> tuple[Heard, list[tuple[str, str]]]:
    """A conversation of httpx and nginx, and the client's log of it."""
    asked = [
        ("GET", f"/{path}") for path in ("deep/a", "none?token=1", "plain.txt", "busy", "deep/12", "deep/a")
    ]
    asked += [("POST", "/upload"), ("HEAD", "/plain.txt"), ("DELETE", "/none"), ("GET", "/empty")]
    log = []
    with overhearing(server) as relay:
        with httpx.Client(http1=False, http2=True, base_url=f"http://127.0.0.1:{relay.port}") as client:
            for method, path in asked:
                said = client.request(method, path, content=b"x" * 100_000 * (method == "POST"))
                log.append((method, str(said.status_code)))
        (heard,) = relay.whole(1)
    return heard, log


def _answer(code: grpc.StatusCode) -> Callable[[bytes, grpc.ServicerContext], bytes]:
    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        if code is not grpc.StatusCode.OK:
            context.abort(code, f"{code}: secret")
        return request * 2

    return answer


def _many(request: bytes, _: grpc.ServicerContext) -> Iterator[bytes]:
    yield from [request] * 5


@pytest.fixture(scope="module")
def called() -> tuple[Heard, list[tuple[str, str]]]:
    """A conversation of a gRPC client and server, and the client's log of it."""
    server = grpc.server(futures.ThreadPoolExecutor(4))
    methods = {f"Get{code.value[0]}": grpc.unary_unary_rpc_method_handler(_answer(code)) for code in CODES}
    methods["List"] = grpc.unary_stream_rpc_method_handler(_many)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("shop.v1.Cart", methods)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    log = []
    with overhearing(port) as relay:
        with grpc.insecure_channel(f"127.0.0.1:{relay.port}") as channel:
            for index in range(CALLS):
                name = [*methods, "Gone"][index % 6]
                try:
                    if name == "List":
                        assert len(list(channel.unary_stream("/shop.v1.Cart/List")(b"x" * index))) == 5
                    else:
                        channel.unary_unary(f"/shop.v1.Cart/{name}")(b"x" * 100 * index)
                    log.append((name, "OK"))
                except grpc.RpcError as error:
                    log.append((name, error.code().name))
        server.stop(None).wait()
        (heard,) = relay.whole(1)
    return heard, log


def _calls(exchanges: list[Exchange]) -> list[tuple[str | None, str]]:
    return [(one.operation, one.error or "OK") for one in exchanges]


def test_rows_are_what_the_client_says(asked: tuple[Heard, list[tuple[str, str]]]) -> None:
    heard, log = asked
    dialog = Http2(whole=True)

    exchanges = read(dialog, heard)

    assert [(one.operation, one.status) for one in exchanges] == log
    assert [one.resource for one in exchanges[:5]] == ["/deep/a", "/none", "/plain.txt", "/busy", "/deep/*"]
    assert {(one.protocol, one.outcome) for one in exchanges} == {("http2", Outcome.ANSWERED)}
    assert all(one.request_bytes and one.response_bytes and one.ended_ns for one in exchanges)
    assert next(one.request_bytes or 0 for one in exchanges if one.operation == "POST") > 100_000
    assert (dialog.unread_bytes, dialog.unknown_fields) == (0, 0)


def test_a_request_of_curl_is_what_curl_says(server: int) -> None:
    with overhearing(server) as relay:
        curl = ["curl", "--silent", "--http2-prior-knowledge", "--output", "/dev/null", "--write-out", CURL]
        url = f"http://127.0.0.1:{relay.port}/none/x"
        log = subprocess.run([*curl, url], capture_output=True, text=True, check=True).stdout
        (one,) = read(Http2(whole=True), relay.whole(1)[0])

    assert [one.operation, one.status] == log.split()
    assert one.host == f"127.0.0.1:{relay.port}"


def test_calls_are_what_the_client_says(called: tuple[Heard, list[tuple[str, str]]]) -> None:
    heard, log = called
    dialog = Http2(whole=True)

    exchanges = read(dialog, heard)

    assert _calls(exchanges) == log
    assert {(one.protocol, one.resource) for one in exchanges} == {("grpc", "shop.v1.Cart")}
    assert {one.status for one in exchanges if one.error is None} == {"0"}
    assert all(one.request_bytes and one.response_bytes and one.ended_ns for one in exchanges)
    assert (dialog.unread_bytes, dialog.unknown_fields) == (0, 0)


@settings(max_examples=30)
@given(sizes=st.lists(st.integers(1, 3000), min_size=1, max_size=20))
def test_where_packets_are_cut_changes_nothing(
    asked: tuple[Heard, Any], called: tuple[Heard, Any], sizes: list[int]
) -> None:
    for heard, _ in (asked, called):
        assert read(Http2(whole=True), cut(heard, sizes)) == read(Http2(whole=True), heard)


@settings(max_examples=60)
@given(
    sizes=st.lists(st.integers(20, 3000), min_size=1, max_size=20),
    gaps=st.sets(st.integers(0, 60), max_size=6),
    run=st.integers(1, 12),
    is_told=st.booleans(),
)
def test_a_gap_makes_no_wrong_row(
    asked: tuple[Heard, Any],
    called: tuple[Heard, Any],
    sizes: list[int],
    gaps: set[int],
    run: int,
    *,
    is_told: bool,
) -> None:
    for heard, _ in (asked, called):
        dialog, found = Http2(whole=True), []
        for index, (side, data, at) in enumerate(cut(heard, sizes)):
            missed = any(0 <= index - gap < run for gap in gaps)
            found += (
                dialog.missed(side, len(data) if is_told else None, at)
                if missed
                else dialog.said(side, data, at)
            )
        found += dialog.ended(0)
        _agree(found, read(Http2(whole=True), heard))


def _agree(found: list[Exchange], whole: list[Exchange]) -> None:
    """Assert that what is known of each exchange is true."""
    truth = {one.stream: one for one in whole}
    for one in found:
        true = truth[one.stream]
        for name in ("operation", "resource", "host", "status", "request_bytes", "response_bytes"):
            known = getattr(one, name)
            is_call_unknown = true.protocol == "grpc" != one.protocol and name in {"operation", "resource"}
            assert known is None or known == getattr(true, name) or is_call_unknown, name


def test_reading_begins_in_the_middle_and_what_cannot_be_known_is_missing(
    called: tuple[Heard, list[tuple[str, str]]],
) -> None:
    heard, log = called
    whole = read(Http2(whole=True), heard)
    begin = next(index for index, one in enumerate(heard) if one[2] >= whole[20].requested_ns)
    dialog = Http2(whole=False)

    exchanges = read(dialog, heard[begin:])

    assert len(exchanges) >= CALLS - 21
    _agree(exchanges, whole)
    assert dialog.unknown_fields > 0
    assert {one.outcome for one in exchanges} == {Outcome.ANSWERED}
    assert len(log) == CALLS


class Peers:
    """Two ends of a connection by the library h2, and the dialog that hears them."""

    def __init__(self) -> None:
        self.ends = [
            h2.connection.H2Connection(h2.config.H2Configuration(client_side=client, header_encoding="utf-8"))
            for client in (True, False)
        ]
        self.dialog = Http2(whole=True)
        self.found: list[Exchange] = []
        self.at = 0
        for end in self.ends:
            end.initiate_connection()
        self.exchange()

    def exchange(self) -> None:
        """Bring to the other end what each has to say."""
        for side, end, other in ((Side.CLIENT, *self.ends), (Side.SERVER, *self.ends[::-1])):
            self.at += 1
            data = end.data_to_send()
            self.found += self.dialog.said(side, data, self.at)
            other.receive_data(data)

    def ask(self, number: int, path: str = "/a", **more: Any) -> None:
        fields = {":method": "GET", ":scheme": "http", ":path": path, ":authority": "a.example"}
        self.ends[0].send_headers(number, list(fields.items()), end_stream=True, **more)
        self.exchange()


def test_an_answer_behind_early_hints_is_the_answer() -> None:
    peers = Peers()
    peers.ask(1)
    peers.ends[1].send_headers(1, [(":status", "103"), ("link", "</a.css>")])
    peers.exchange()
    hinted = peers.at
    peers.ends[1].send_headers(1, [(":status", "404")], end_stream=True)
    peers.exchange()

    (one,) = peers.found
    assert (one.status, one.error) == ("404", "Not Found")
    assert one.answered_ns is not None
    assert one.answered_ns > hinted


def test_padding_and_priority_are_no_fields() -> None:
    peers = Peers()
    peers.ask(1, priority_weight=7, priority_depends_on=0)
    peers.ends[1].send_headers(1, [(":status", "200")])
    peers.ends[1].send_data(1, b"deep", end_stream=True, pad_length=50)
    peers.exchange()

    (one,) = peers.found
    assert (one.resource, one.status, one.outcome) == ("/a", "200", Outcome.ANSWERED)


def test_fields_in_several_frames_are_one_head() -> None:
    peers = Peers()
    peers.ask(1, path="/" + "x" * 30_000)
    peers.ends[1].send_headers(1, [(":status", "200"), ("x", "y" * 40_000)], end_stream=True)
    peers.exchange()

    (one,) = peers.found
    assert (one.resource, one.status) == ("/*", "200")
    assert (one.response_bytes or 0) > 20_000


@pytest.mark.parametrize(
    ("kind", "protocol"),
    [
        ("application/grpc", "grpc"),
        ("application/grpc+proto", "grpc"),
        ("application/grpc; charset=utf-8", "grpc"),
        ("application/grpc-web+proto", "http2"),  # its status is in the body, as HTTP/1 needs it
        ("application/grpc-web-text", "http2"),
    ],
)
def test_a_call_is_told_by_its_content_type(kind: str, protocol: str) -> None:
    peers = Peers()
    fields = {":method": "POST", ":scheme": "http", ":path": "/shop.Cart/Get", ":authority": "a"}
    peers.ends[0].send_headers(1, [*fields.items(), ("content-type", kind)], end_stream=True)
    peers.exchange()
    peers.ends[1].send_headers(1, [(":status", "200"), ("content-type", kind)], end_stream=True)
    peers.exchange()

    (one,) = peers.found
    assert one.protocol == protocol
    assert one.resource == {"grpc": "shop.Cart", "http2": "/shop.Cart/Get"}[protocol]
    assert one.status == {"grpc": None, "http2": "200"}[protocol]


def test_a_call_of_grpc_web_that_failed_is_one_like_those_that_went_well() -> None:
    peers = Peers()
    fields = {":method": "POST", ":scheme": "http", ":path": "/shop.Cart/Get", ":authority": "a"}
    kind = ("content-type", "application/grpc-web+proto")
    peers.ends[0].send_headers(1, [*fields.items(), kind], end_stream=True)
    peers.exchange()
    peers.ends[1].send_headers(1, [(":status", "200"), kind, ("grpc-status", "5")], end_stream=True)
    peers.exchange()

    (one,) = peers.found
    assert (one.protocol, one.resource, one.status, one.error) == ("http2", "/shop.Cart/Get", "200", None)


def test_where_no_authority_is_said_the_host_is() -> None:
    dialog, encoder = Http2(whole=True), hpack.Encoder()
    block = encoder.encode([(":method", "GET"), (":path", "/a"), (":scheme", "http"), ("host", "a.example")])
    dialog.said(Side.CLIENT, len(block).to_bytes(3, "big") + b"\x01\x05\0\0\0\x01" + block, 1)

    assert [one.host for one in dialog.pending()] == ["a.example"]


def test_an_answer_whose_fields_cannot_be_read_is_missed() -> None:
    peers = Peers()
    peers.ask(1)

    (one,) = peers.dialog.said(Side.SERVER, b"\0\0\2\x01\x05\0\0\0\x01\xff\xff", 9)

    assert (one.outcome, one.answered_ns, one.status) == (Outcome.MISSED, None, None)


@pytest.mark.parametrize(
    ("fields", "outcome", "error"),
    [
        ({":status": "200"}, Outcome.ANSWERED, "incomplete"),
        ({":status": "404"}, Outcome.ANSWERED, "Not Found"),
        ({":status": "200", "content-type": "application/grpc"}, Outcome.UNANSWERED, None),
    ],
)
def test_an_answer_that_breaks_off_has_a_status_and_no_end(
    fields: dict[str, str], outcome: Outcome, error: str | None
) -> None:
    peers = Peers()
    peers.ask(1)
    peers.ends[1].send_headers(1, list(fields.items()))
    peers.ends[1].send_data(1, b"deep")
    peers.exchange()

    (one,) = peers.dialog.ended(9)

    assert (one.outcome, one.error, one.ended_ns, one.response_bytes) == (outcome, error, None, None)


LARGE = 400_000


@pytest.fixture(scope="module")
def large() -> tuple[Heard, list[str]]:
    """A conversation of gRPC with a large request and a large answer, and the names of its calls."""
    server = grpc.server(futures.ThreadPoolExecutor(1))
    methods = {"Get": lambda _, __: b"", "Up": lambda _, __: b"", "Down": lambda _, __: bytes(LARGE)}
    handlers = {name: grpc.unary_unary_rpc_method_handler(method) for name, method in methods.items()}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("shop.v1.Cart", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    log = ["Get", "Get", "Up", "Get", "Get", "Down", "Get", "Get"]
    with overhearing(port) as relay:
        with grpc.insecure_channel(f"127.0.0.1:{relay.port}") as channel:
            for name in log:
                channel.unary_unary(f"/shop.v1.Cart/{name}")(bytes(LARGE) if name == "Up" else b"")
        server.stop(None).wait()
        (heard,) = relay.whole(1)
    return heard, log


@pytest.mark.parametrize("side", Side)
def test_calls_behind_a_body_that_was_missed_in_part_have_their_names(
    large: tuple[Heard, list[str]], side: Side
) -> None:
    heard, log = large
    dialog, exchanges = Http2(whole=True), list[Exchange]()
    told = {one: sum(len(data) for who, data, _ in heard if who is one) for one in Side}
    said = dict.fromkeys(Side, 0)

    for who, data, at_ns in heard:
        begin, said[who] = said[who], said[who] + len(data)
        is_body = told[side] * 0.3 < begin and said[who] < told[side] * 0.7
        if who is side and is_body:
            exchanges += dialog.missed(who, None, at_ns)
        else:
            exchanges += dialog.said(who, data, at_ns)

    assert [(one.operation, one.status) for one in exchanges] == [(name, "0") for name in log]
    cut_short = "Down" if side else "Up"
    assert [one.operation for one in exchanges if None in {one.request_bytes, one.response_bytes}] == [
        cut_short
    ]


@pytest.mark.parametrize("side", Side)
def test_a_reset_says_why(side: Side) -> None:
    peers = Peers()
    peers.ask(1)
    peers.ends[side].reset_stream(1, h2.errors.ErrorCodes.CANCEL)
    peers.exchange()

    (one,) = peers.found
    assert (one.outcome, one.error, one.status) == (Outcome.UNANSWERED, "CANCEL", None)


def test_what_a_server_that_goes_away_did_not_take_is_unanswered() -> None:
    peers = Peers()
    peers.ask(1)
    peers.ask(3)
    peers.ends[1].close_connection(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM, last_stream_id=1)
    peers.exchange()

    (one,) = peers.found
    assert (one.stream, one.outcome, one.error) == (3, Outcome.UNANSWERED, "ENHANCE_YOUR_CALM")
    assert [pending.stream for pending in peers.dialog.pending()] == [1]


def test_what_a_server_did_not_take_at_the_end_of_a_connection_is_told_from_failures() -> None:
    peers = Peers()
    peers.ask(1)
    peers.ask(3)
    peers.ends[1].close_connection(last_stream_id=1)
    said = peers.ends[1].data_to_send()
    found = peers.dialog.said(Side.SERVER, said, 8)
    fields = {":method": "GET", ":scheme": "http", ":path": "/b", ":authority": "a.example"}
    peers.ends[0].send_headers(5, list(fields.items()), end_stream=True)  # which crosses it
    found += peers.dialog.said(Side.CLIENT, peers.ends[0].data_to_send(), 9)
    found += peers.dialog.ended(10)

    assert {one.stream: one.error for one in found} == {1: None, 3: "GOAWAY", 5: "GOAWAY"}
    assert {one.outcome for one in found} == {Outcome.UNANSWERED}


def test_a_server_that_goes_away_for_a_reason_gives_it_to_what_it_leaves_unanswered() -> None:
    peers = Peers()
    peers.ask(1)
    peers.ends[1].close_connection(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM, last_stream_id=1)
    peers.exchange()

    (one,) = peers.dialog.ended(10)

    assert (one.outcome, one.error) == (Outcome.UNANSWERED, "ENHANCE_YOUR_CALM")


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\0\0\0\x01\x05\0\0\0\x01",  # a frame, but not that of settings
        b"+OK",
    ],
)
@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize("is_early", [False, True])
def test_what_a_server_says_that_does_not_speak_http2_is_unread(
    said: bytes, size: int, *, is_early: bool
) -> None:
    client = h2.connection.H2Connection()
    client.initiate_connection()
    began = client.data_to_send()
    asked = {":method": "GET", ":scheme": "http", ":path": "/a", ":authority": "a.example"}
    client.send_headers(1, list(asked.items()), end_stream=True)
    heard: Heard = [(Side.CLIENT, began, 1), (Side.CLIENT, client.data_to_send(), 2)]
    heard.insert(1 if is_early else 2, (Side.SERVER, said, 3))
    dialog = Http2(whole=True)

    (one,) = read(dialog, cut(heard, [size]))

    assert (one.resource, one.outcome, one.status, one.error) == ("/a", Outcome.MISSED, None, None)
    assert dialog.unread_bytes == len(said)


def test_thousands_of_open_streams_have_their_answers() -> None:
    dialog, encoders, numbers = Http2(whole=False), (hpack.Encoder(), hpack.Encoder()), range(1, 10_001, 2)
    said = ([(":method", "GET"), (":path", "/a"), (":scheme", "http")], [(":status", "200")])
    found = []
    for side, encoder, fields in zip(Side, encoders, said, strict=True):
        for number in numbers:
            block = encoder.encode(fields)
            frame = len(block).to_bytes(3, "big") + b"\x01\x05" + number.to_bytes(4, "big") + block
            found += dialog.said(side, frame, number + side * 20_000)

    assert [(one.stream, one.outcome) for one in found] == [(one, Outcome.ANSWERED) for one in numbers]
    assert dialog.given_up == 0


def test_open_streams_are_bounded() -> None:
    peers = Peers()
    encoder = hpack.Encoder()
    for number in range(1, 2 * MOST_OPEN + 200, 2):
        block = encoder.encode([(":method", "GET"), (":path", "/a"), (":scheme", "http")])
        frame = len(block).to_bytes(3, "big") + b"\x01\x05" + number.to_bytes(4, "big") + block
        peers.found += peers.dialog.said(Side.CLIENT, frame, number)

    assert len(peers.dialog.pending()) == MOST_OPEN
    assert {one.outcome for one in peers.found} == {Outcome.MISSED}
    assert peers.dialog.given_up == len(peers.found) > 0


fields = st.lists(
    st.tuples(
        st.sampled_from([*sorted(READ), b"cookie", b"x-a"]),
        st.sampled_from([b"", b"a", b"/a/b", b"200", b"application/grpc"]) | st.binary(max_size=40),
        st.booleans(),
    ),
    max_size=8,
)


@given(st.lists(fields, max_size=8), st.integers(0, 7), st.sampled_from([0, 100, 4096]))
def test_fields_are_those_of_hpack_and_never_wrong_when_met_late(
    blocks: list[list[tuple[bytes, bytes, bool]]], late: int, table: int
) -> None:
    encoder, decoder = hpack.Encoder(), Decoder()
    encoder.header_table_size = table
    for index, block in enumerate(blocks):
        data = encoder.encode(
            [(name, value, sensitive) for name, value, sensitive in block], huffman=bool(index % 2)
        )
        if index < late % (len(blocks) + 1):
            continue
        found = decoder.decode(data)
        first = {name: _kept(name, value) for name, value, _ in block[::-1] if name in READ}
        assert found is not None
        if found.unknown:
            values = {(name, _kept(name, value)) for name, value, _ in block}
            assert set(found.known.items()) <= values
        else:
            assert found.known == first


def _kept(name: bytes, value: bytes) -> bytes:
    return value.partition(b"?")[0] if name == b":path" else value


@given(
    noise=st.lists(st.tuples(st.sampled_from(Side), st.binary(max_size=60), st.booleans()), max_size=12),
    whole=st.booleans(),
)
def test_noise_never_raises_and_is_not_kept(
    asked: tuple[Heard, Any], noise: list[tuple[Side, bytes, bool]], *, whole: bool
) -> None:
    dialog = Http2(whole=whole)
    for index, (side, data, is_missed) in enumerate(noise):
        (dialog.missed(side, len(data), 1) if is_missed else dialog.said(side, data, 1))
        dialog.said(*asked[0][index % len(asked[0])])
    dialog.ended(2)

    assert dialog.pending() == []
