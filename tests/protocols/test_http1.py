"""HTTP/1 as nginx, curl, h11 and tornado speak it, against what curl says that it did."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import h11
import pytest
from hypothesis import example, given, strategies as st
from overheard import Heard, Overheard, cut, nginx, overhearing, read

from netlab.protocols.dialog import Exchange, Outcome, Side
from netlab.protocols.http1 import LONGEST_HEAD, Http1

CURL = "%{method} %{http_code} %{size_request} %{size_upload} %{size_header} %{size_download}\n"
GET = b"GET /deep/a HTTP/1.1\r\nHost: a.example\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndeep"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with nginx(tmp_path_factory.mktemp("nginx")) as port:
        yield port


@pytest.fixture
def heard(server: int) -> Iterator[Overheard]:
    with overhearing(server) as relay:
        yield relay


@pytest.fixture(scope="module")
def pipelined(server: int) -> Heard:
    """Many requests at once, with all kinds of bodies in both directions, each for a path of its own."""
    with overhearing(server) as relay:
        said = b"".join(
            [
                _request("GET", "/deep/one"),
                _request("HEAD", "/plain.txt"),
                _request("GET", "/empty/two"),
                _request("GET", "/trailed.txt", "Accept-Encoding: gzip", "TE: trailers", "Connection: TE"),
                _request("POST", "/deep/three", "Content-Length: 9") + b"\r\nGET /x ",
                _request("POST", "/broken/four", "Transfer-Encoding: chunked")
                + b"5;a=b\r\n12345\r\n0\r\n\r\n",
                _request("GET", "/moved/five?secret=1"),
                _request("GET", "/none/six", "Connection: close"),
            ]
        )
        subprocess.run(
            ["bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{relay.port}; cat >&3; cat <&3"],
            input=said,
            stdout=subprocess.DEVNULL,
            check=True,
        )
        return relay.whole(1)[0]


def _request(method: str, path: str, *fields: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: a.example", *fields, "", ""]).encode()


def _facts(exchanges: list[Exchange]) -> list[tuple[str | None, str | None, str | None]]:
    return [(one.operation, one.resource, one.status) for one in exchanges]


PIPELINED = [
    ("GET", "/deep/one", "200"),
    ("HEAD", "/plain.txt", "200"),
    ("GET", "/empty/two", "204"),
    ("GET", "/trailed.txt", "200"),
    ("POST", "/deep/three", "200"),
    ("POST", "/broken/four", "500"),
    ("GET", "/moved/five", "302"),
    ("GET", "/none/six", "404"),
]


def test_pipelined_requests_get_their_own_answers(pipelined: Heard) -> None:
    dialog = Http1(whole=True)

    exchanges = read(dialog, pipelined)

    assert _facts(exchanges) == PIPELINED
    assert {one.outcome for one in exchanges} == {Outcome.ANSWERED}
    assert [one.error for one in exchanges[-3:]] == ["Internal Server Error", None, "Not Found"]
    sides = [sum(len(data) for side, data, _ in pipelined if side is which) for which in Side]
    assert [
        sum(one.request_bytes or 0 for one in exchanges),
        sum(one.response_bytes or 0 for one in exchanges),
    ] == sides
    assert dialog.unread_bytes == 0


@given(st.lists(st.integers(1, 300), min_size=1, max_size=20))
def test_where_packets_are_cut_changes_nothing(pipelined: Heard, sizes: list[int]) -> None:
    assert read(Http1(whole=True), cut(pipelined, sizes)) == read(Http1(whole=True), pipelined)


@pytest.mark.parametrize(
    "options",
    [
        ["/deep/a", "/none", "/busy", "/plain.txt"],
        ["--head", "/plain.txt", "/none"],
        ["--data-binary", "@{file}", "--header", "Expect: 100-continue", "/upload", "/upload"],
        ["--data-binary", "@{file}", "--header", "Transfer-Encoding: chunked", "/upload"],
        ["--http1.0", "--compressed", "/plain.txt"],
        ["--request-target", "http://b.example/deep/a", "/"],
        ["--header", "Connection: Upgrade", "--header", "Upgrade: h2c", "/deep/a"],
    ],
    ids=lambda options: " ".join(options[:2]),
)
def test_rows_are_what_curl_says(options: list[str], heard: Overheard, tmp_path: Path) -> None:
    upload = tmp_path / "upload"
    upload.write_bytes(b"GET / HTTP/1.1\r\n\r\n" * 1000)
    url = f"http://127.0.0.1:{heard.port}"
    words = [url + word if word[0] == "/" else word.format(file=upload) for word in options]

    log = subprocess.run(
        ["curl", "--silent", "--output", "/dev/null", "--write-out", CURL, *_each_discarded(words)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    exchanges = [one for talk in heard.whole(1) for one in read(Http1(whole=False), talk)]

    told = [line.split() for line in log.splitlines()]
    assert [[one.operation, one.status] for one in exchanges] == [line[:2] for line in told]
    assert all(
        one.ended_ns and one.answered_ns and one.ended_ns >= one.answered_ns > one.requested_ns
        for one in exchanges
    )
    if "Transfer-Encoding: chunked" not in options:  # curl counts no framing
        assert [one.request_bytes for one in exchanges] == [int(line[2]) + int(line[3]) for line in told]
    if "Expect: 100-continue" not in options:  # and here an answer that is none
        assert [one.response_bytes for one in exchanges] == [int(line[4]) + int(line[5]) for line in told]


def _each_discarded(words: list[str]) -> list[str]:
    urls = sum(word.startswith("http://127") for word in words)
    return [*words, *["--output", "/dev/null"] * (urls - 1)]


def _h11(*answers: h11.Event, request: bytes = GET) -> bytes:
    server = h11.Connection(h11.SERVER)
    server.receive_data(request)
    while type(server.next_event()) not in {h11.EndOfMessage, h11.PAUSED, type(h11.PAUSED)}:
        pass
    return b"".join(server.send(event) or b"" for event in answers)


def test_an_answer_behind_early_hints_is_the_answer() -> None:
    hints = _h11(
        h11.InformationalResponse(status_code=103, headers=[("Link", "</a.css>")], reason=b"Early Hints")
    )
    dialog = Http1(whole=False)
    heard = [(Side.CLIENT, GET, 1), (Side.SERVER, hints, 2), (Side.SERVER, OK, 3)]

    (one,) = read(dialog, heard)

    assert (one.status, one.answered_ns, one.response_bytes) == ("200", 3, len(OK))


@pytest.mark.parametrize(
    "fields",
    [
        b"Transfer-Encoding:\r\n chunked\r\n\r\n4\r\ndeep\r\n0\r\n\r\n",
        b"Content-Length:\r\n\t4\r\n\r\ndeep",
        b"Transfer-Encoding: identity\r\nContent-Length: 4\r\n\r\ndeep",
        b"Transfer-Encoding: chunked,\r\n\r\n4\r\ndeep\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked, ,\r\nTransfer-Encoding:\r\n\r\n4\r\ndeep\r\n0\r\n\r\n",
        b"Transfer-Encoding: ,\r\nContent-Length: 4\r\n\r\ndeep",
        b"Status: 205\r\n\r\n",
    ],
    ids=lambda fields: fields.partition(b"\r\n\r\n")[0].decode(),
)
def test_an_answer_ends_where_its_fields_say_even_in_old_ways(fields: bytes) -> None:
    dialog = Http1(whole=True)
    answer = (b"HTTP/1.1 205 Reset\r\n" if b"205" in fields else b"HTTP/1.1 200 OK\r\n") + fields
    heard = [(Side.CLIENT, GET, 1), (Side.SERVER, answer, 2), (Side.CLIENT, GET, 3), (Side.SERVER, OK, 4)]

    exchanges = read(dialog, heard)

    assert [(one.ended_ns, one.response_bytes) for one in exchanges] == [(2, len(answer)), (4, len(OK))]


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\nContent-Length: 4\n\ndeep",
        b"HTTP/1.1 200 OK\nServer: a\n b\nContent-Length: 8\n\nab\r\n\r\ncd",
        b"HTTP/1.1 200 OK\nServer: a\nContent-Length: 4\r\n\ndeep",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\n\r\ndeep",
        b"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n4;a=b\ndeep\n0\nX: y\n\n",
        b"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n4\r\ndeep\r\n1\n.\n0\r\n\n",
        b"HTTP/1.1 103 A\n\nHTTP/1.1 200 OK\nContent-Length: 0\n\n",
    ],
)
def test_lines_may_end_with_lf_alone(answer: bytes, size: int) -> None:
    dialog = Http1(whole=True)
    put = b"\n\r\nPUT /deep/b HTTP/1.1\nHost: b.example\nContent-Length: 6\n\n\r\n\r\n.."
    heard: Heard = [(Side.CLIENT, put, 1), (Side.SERVER, answer, 2)]
    heard += [(Side.CLIENT, GET, 3), (Side.SERVER, OK, 4), (Side.CLIENT, GET, 5), (Side.SERVER, answer, 6)]

    exchanges = read(dialog, cut(heard, [size]))

    assert _facts(exchanges) == [("PUT", "/deep/b", "200"), *[("GET", "/deep/a", "200")] * 2]
    assert exchanges[0].host == "b.example"
    assert exchanges[0].request_bytes == len(put) - 3
    final = len(answer) - answer.rindex(b"HTTP/")
    assert [one.response_bytes for one in exchanges] == [final, len(OK), final]
    assert dialog.unread_bytes == 0


@pytest.mark.parametrize(
    ("said", "outcome", "status"),
    [
        (b"HTTP/1.1 2", Outcome.MISSED, None),
        (b"HTTP/1.1 200 OK\r", Outcome.MISSED, None),
        (b"HTTP/1.1 200 OK\r\nServer", Outcome.ANSWERED, "200"),
        (b"HTTP/1.1 200 OK\nServer: a\n", Outcome.ANSWERED, "200"),
    ],
)
def test_an_answer_that_breaks_off_in_its_head_is_no_silence(
    said: bytes, outcome: Outcome, status: str | None
) -> None:
    dialog = Http1(whole=True)

    first, second = read(dialog, [(Side.CLIENT, GET * 2, 1), (Side.SERVER, said, 2)])

    assert (first.outcome, first.status, first.ended_ns) == (outcome, status, None)
    assert second.outcome is Outcome.UNANSWERED
    assert dialog.unread_bytes == len(said)


@pytest.mark.parametrize("body", ["Content-Length: 10", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("again", [GET, b"PUT /deep/a HTTP/1.1\r\n\r\n"])
def test_a_body_that_waits_for_leave_and_is_refused_does_not_come(body: str, again: bytes) -> None:
    head = _request("PUT", "/upload", "Expect: 100-continue", body)
    refused = b"HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n"
    dialog = Http1(whole=True)
    heard = [(Side.CLIENT, head, 1), (Side.SERVER, refused, 2), (Side.CLIENT, again, 3), (Side.SERVER, OK, 4)]

    first, second = read(dialog, heard)

    assert (first.status, first.request_bytes) == ("417", len(head))
    assert (second.resource, second.status, second.request_bytes) == ("/deep/a", "200", len(again))
    assert dialog.unread_bytes == 0


def test_a_body_that_is_refused_may_come_all_the_same() -> None:
    head = _request("PUT", "/upload", "Expect: 100-continue", "Content-Length: 10")
    refused = b"HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n"
    dialog = Http1(whole=True)
    heard = [(Side.CLIENT, head, 1), (Side.SERVER, refused, 2), (Side.CLIENT, b"GET me it.", 3)]
    heard += [(Side.CLIENT, GET, 4), (Side.SERVER, OK, 5)]

    first, second = read(dialog, heard)

    assert (first.status, first.request_bytes) == ("417", len(head) + 10)
    assert (second.resource, second.request_bytes) == ("/deep/a", len(GET))


def _after_refusal(
    pieces: list[bytes], body: str = "Content-Length: 10"
) -> tuple[list[Exchange], int, Http1]:
    """Say *pieces*, from 3 ns on, behind a request whose body was refused, and whose head's size is told."""
    head = _request("PUT", "/upload", "Expect: 100-continue", body)
    refused = b"HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n"
    heard: Heard = [(Side.CLIENT, head, 1), (Side.SERVER, refused, 2)]
    heard += [(Side.CLIENT, piece, at) for at, piece in enumerate(pieces, 3)]
    dialog = Http1(whole=True)
    return read(dialog, [*heard, (Side.SERVER, OK, 1000)]), len(head), dialog


@pytest.mark.parametrize("body", ["Content-Length: 10", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("size", [1, 3, 5, 15, 24, 25, 50])
def test_a_request_behind_a_refused_body_may_come_in_pieces(body: str, size: int) -> None:
    pieces = [GET[place : place + size] for place in range(0, len(GET), size)]

    (first, second), head_bytes, dialog = _after_refusal(pieces, body)

    assert (first.status, first.request_bytes) == ("417", head_bytes)
    assert (second.resource, second.requested_ns, second.request_bytes) == ("/deep/a", 3, len(GET))
    assert (second.outcome, dialog.unread_bytes) == (Outcome.ANSWERED, 0)


@pytest.mark.parametrize("said", [b"GET me it.", b"GET", b"A" * 9 + b"\n", b"0123456789"])
def test_a_refused_body_may_come_in_pieces(said: bytes) -> None:
    body = said.ljust(10, b".")

    (first, second), head_bytes, dialog = _after_refusal([said, body[len(said) :] + GET])

    assert (first.status, first.request_bytes) == ("417", head_bytes + 10)
    assert (second.resource, second.status, second.request_bytes) == ("/deep/a", "200", len(GET))
    assert dialog.unread_bytes == 0


def test_what_may_be_a_body_or_a_request_is_of_unknown_size() -> None:
    (first,), _, dialog = _after_refusal([b"GET /dee"])

    assert (first.status, first.request_bytes) == ("417", None)
    assert dialog.unread_bytes == len(b"GET /dee") + len(OK)


def test_behind_connect_is_no_http() -> None:
    request = b"CONNECT db.example:5432 HTTP/1.1\r\nHost: db.example:5432\r\n\r\n"
    accepted = _h11(h11.Response(status_code=200, headers=[]), request=request)
    dialog = Http1(whole=False)

    heard = [
        (Side.CLIENT, request, 1),
        (Side.SERVER, accepted + OK, 2),
        (Side.CLIENT, GET, 3),
        (Side.SERVER, OK, 4),
    ]
    (one,) = read(dialog, heard)

    assert (one.operation, one.resource, one.host, one.status) == ("CONNECT", None, "db.example:5432", "200")
    assert (dialog.upgraded, dialog.unread_bytes) == ("connect", 0)


def test_behind_an_upgrade_is_no_http() -> None:
    request = _request("GET", "/chat", "Upgrade: websocket", "Connection: upgrade")
    switched = _h11(
        h11.InformationalResponse(
            status_code=101, headers=[("Upgrade", "WebSocket"), ("Connection", "upgrade")]
        ),
        request=request,
    )
    dialog = Http1(whole=False)

    (one,) = read(dialog, [(Side.CLIENT, request, 1), (Side.SERVER, switched + b"\x81\x00", 2)])

    assert (one.status, one.error, dialog.upgraded) == ("101", None, "websocket")


def test_http2_is_told_from_its_preface() -> None:
    dialog = Http1(whole=False)

    assert dialog.said(Side.CLIENT, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 1) == []
    assert dialog.upgraded == "h2c"


def test_an_answer_without_a_length_ends_with_the_connection() -> None:
    answer = b"HTTP/1.0 200 OK\r\n\r\nGET / HTTP/1.1\r\n\r\n"
    dialog = Http1(whole=False)
    heard: Heard = [(Side.CLIENT, GET, 1), (Side.SERVER, answer, 2), (Side.SERVER, b"more", 3)]

    assert read(dialog, heard, ended=False) == []
    assert [one.status for one in dialog.pending()] == ["200"]
    (one,) = dialog.ended(9)

    assert (one.outcome, one.ended_ns, one.response_bytes) == (Outcome.ANSWERED, 3, len(answer) + 4)


def test_an_answer_that_seemed_to_end_with_the_connection_and_did_not_hides_what_follows() -> None:
    """Another request proves it: neither the first answer's size is known then, nor any later answer."""
    endless = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: x-own\r\n\r\nbody"
    dialog = Http1(whole=True)
    heard: Heard = [(Side.CLIENT, GET, 1), (Side.SERVER, endless, 2)]
    heard += [(Side.CLIENT, GET, 3), (Side.SERVER, OK, 4), (Side.CLIENT, GET, 5), (Side.SERVER, OK, 6)]

    first, *later = read(dialog, heard)

    assert (first.outcome, first.status, first.response_bytes) == (Outcome.ANSWERED, "200", None)
    assert [(one.outcome, one.status) for one in later] == [(Outcome.MISSED, None)] * 2
    assert dialog.unread_bytes == 2 * len(OK)


def test_what_has_no_answer_is_pending_and_then_unanswered() -> None:
    dialog = Http1(whole=False)
    dialog.said(Side.CLIENT, GET, 1)

    assert [one.outcome for one in dialog.pending()] == [Outcome.PENDING]
    assert [one.outcome for one in dialog.ended(2)] == [Outcome.UNANSWERED]
    assert dialog.pending() == []


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (OK[:-1], "incomplete"),
        (OK[:-4], "incomplete"),
        (OK[:30], "incomplete"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "incomplete"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ndeep\r\n0", "incomplete"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ndeep\r\n0\r\n", "incomplete"),
        (OK[:-1].replace(b"200 OK", b"404 No"), "Not Found"),
    ],
)
def test_an_answer_that_breaks_off_has_a_status_and_no_end(said: bytes, error: str) -> None:
    dialog = Http1(whole=False)

    (one,) = read(dialog, [(Side.CLIENT, GET, 1), (Side.SERVER, said, 2)])

    assert (one.outcome, one.status, one.error) == (Outcome.ANSWERED, said[9:12].decode(), error)
    assert (one.ended_ns, one.response_bytes) == (None, None)


def test_an_answer_before_the_request_is_whole_waits_for_its_size() -> None:
    head = _request("POST", "/upload", "Content-Length: 10")
    refused = b"HTTP/1.1 413 Too Big\r\nContent-Length: 0\r\n\r\n"
    dialog = Http1(whole=False)

    assert dialog.said(Side.CLIENT, head + b"12345", 1) + dialog.said(Side.SERVER, refused, 2) == []
    (one,) = dialog.said(Side.CLIENT, b"67890" + GET, 3)

    assert (one.status, one.error, one.ended_ns) == ("413", "Content Too Large", 2)
    assert one.request_bytes == len(head) + 10
    assert [two.requested_ns for two in dialog.pending()] == [3]


def _around(side: Side, size: int | None) -> tuple[list[Exchange], Http1]:
    """Miss *size* bytes inside of a chunk of 1000; then comes a whole exchange."""
    chunked = b"Transfer-Encoding: chunked\r\n\r\n3e8\r\n"
    heads = (GET[:-2] + chunked, b"HTTP/1.1 200 OK\r\n" + chunked)
    end = b"\r\n0\r\n\r\n"
    dialog, found = Http1(whole=False), []
    for who in Side:
        whole = b"x" * 1000
        if who is side:
            found += dialog.said(who, heads[who] + whole[:100], 1 + who)
            found += dialog.missed(who, size, 1 + who)
            found += dialog.said(who, whole[100 + (size or 0) :] + end, 1 + who)
        else:
            found += dialog.said(who, heads[who] + whole + end, 1 + who)
    return found + dialog.said(Side.CLIENT, GET, 8) + dialog.said(Side.SERVER, OK, 9), dialog


@pytest.mark.parametrize("side", Side)
def test_a_gap_in_a_body_hides_nothing(side: Side) -> None:
    exchanges, dialog = _around(side, 700)

    first, second = exchanges
    assert [first.outcome, second.outcome] == [Outcome.ANSWERED] * 2
    assert first.request_bytes == len(GET) + 28 + 5 + 1000 + 7
    assert first.response_bytes == 17 + 30 + 5 + 1000 + 7
    assert dialog.unread_bytes == 0


@pytest.mark.parametrize("side", Side)
def test_a_gap_of_unknown_size_hides_the_rest_of_its_message(side: Side) -> None:
    exchanges, dialog = _around(side, None)

    first, second = exchanges
    assert (first.status, second.status) == ("200", "200")
    assert (first.request_bytes is None, first.response_bytes is None) == (
        side is Side.CLIENT,
        side is Side.SERVER,
    )
    assert second.requested_ns == 8
    assert dialog.unread_bytes == 900 + 7


def test_of_a_head_that_was_not_seen_to_its_end_the_lines_that_were_are_true() -> None:
    dialog = Http1(whole=False)
    found = dialog.said(Side.CLIENT, GET[:-2] + b"Cookie: abc", 1) + dialog.missed(Side.CLIENT, 500, 1)
    found += dialog.said(Side.SERVER, b"HTTP/1.1 502 Bad\r\nSet-", 2) + dialog.missed(Side.SERVER, 500, 2)

    (one,) = found

    assert (one.resource, one.host, one.status, one.answered_ns) == ("/deep/a", "a.example", "502", 2)
    assert (one.request_bytes, one.response_bytes, one.ended_ns) == (None, None, None)


def test_requests_whose_answers_were_not_seen_are_missed() -> None:
    dialog = Http1(whole=False)
    dialog.said(Side.CLIENT, GET, 1)

    assert [one.outcome for one in dialog.missed(Side.SERVER, 100, 2)] == [Outcome.MISSED]


def test_what_was_said_before_the_first_bytes_that_were_heard_hides_no_request() -> None:
    dialog = Http1(whole=False)

    assert dialog.missed(Side.CLIENT, None, 1) == []
    assert _facts(read(dialog, [(Side.CLIENT, GET, 2), (Side.SERVER, OK, 3)])) == [("GET", "/deep/a", "200")]


@example((0, 1, Side.CLIENT, False), [1, 14])  # nobody has seen yet that this client pipelines
@given(
    st.tuples(st.integers(0, 5_000), st.integers(1, 2_000), st.sampled_from(Side), st.booleans()),
    st.lists(st.integers(1, 300), min_size=1, max_size=20),
)
def test_a_gap_makes_no_wrong_row(
    pipelined: Heard, gap: tuple[int, int, Side, bool], sizes: list[int]
) -> None:
    begin, size, side, told = gap
    dialog = Http1(whole=True)
    at, found = 0, []
    for who, data, when in cut(pipelined, sizes):
        if who is side and begin <= at < begin + size:
            found += dialog.missed(who, len(data) if told else None, when)
        else:
            found += dialog.said(who, data, when)
        at += len(data) * (who is side)
    found += dialog.ended(0)

    truth = dict(zip(PIPELINED, read(Http1(whole=True), pipelined), strict=True))
    for one in found:
        assert one.status is None or (one.operation, one.resource, one.status) in truth
        whole = truth.get((one.operation, one.resource, one.status))
        assert one.response_bytes is None or whole is None or one.response_bytes == whole.response_bytes


def test_reading_begins_in_the_middle_of_a_conversation() -> None:
    dialog = Http1(whole=False)
    middle = [(Side.CLIENT, b"rest of a body", 1), (Side.SERVER, b"ver: nginx\r\n\r\n", 2)]

    exchanges = read(dialog, [*middle, (Side.CLIENT, GET, 3), (Side.SERVER, OK, 4)])

    assert _facts(exchanges) == [("GET", "/deep/a", "200")]
    assert dialog.unread_bytes == 28


def test_behind_a_gap_a_client_that_pipelines_is_not_read() -> None:
    dialog = Http1(whole=True)
    found = dialog.said(Side.CLIENT, GET * 2, 1) + dialog.said(Side.SERVER, OK * 2, 2)
    found += dialog.missed(Side.CLIENT, len(GET), 3) + dialog.said(Side.CLIENT, GET, 3)
    found += dialog.said(Side.SERVER, OK.replace(b"200", b"500") * 2, 4)

    assert [one.status for one in found] == ["200", "200"]


@pytest.mark.parametrize(
    "said",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /" + b"a" * LONGEST_HEAD + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"GET / HTTP/1.1\r\nno field\r\n\r\n",
        b"GET /a b HTTP/1.1\r\n\r\n",
        b"get / HTTP/1.1\r\n\r\n",
    ],
    ids=["TLS", "endless", "two lengths", "no end", "no field", "blank", "small letters"],
)
def test_what_is_no_request_is_counted_and_the_next_one_read(said: bytes) -> None:
    dialog = Http1(whole=True)

    assert dialog.said(Side.CLIENT, said, 1) == []
    assert dialog.unread_bytes == len(said)
    refused = [(Side.SERVER, b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", 2)]
    assert _facts(read(dialog, [*refused, (Side.CLIENT, GET, 3), (Side.SERVER, OK, 4)])) == [
        ("GET", "/deep/a", "200")
    ]


@given(st.data())
def test_noise_never_raises_and_is_not_kept(data: st.DataObject) -> None:
    dialog = Http1(whole=True)
    words = st.sampled_from(
        [GET, OK, b"\r\n", b"\r\n\r\n", b"HTTP/1.1 ", b"Transfer-Encoding: chunked\r\n", b"0\r\n"]
    )
    for _ in range(data.draw(st.integers(1, 12))):
        side = data.draw(st.sampled_from(Side))
        if data.draw(st.booleans()):
            dialog.said(side, data.draw(words | st.binary(max_size=50)), 1)
        else:
            dialog.missed(side, data.draw(st.none() | st.integers(1, 50)), 1)
    dialog.ended(2)

    assert dialog.pending() == []
