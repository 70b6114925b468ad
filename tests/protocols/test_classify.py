from __future__ import annotations

import random
import struct
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from netlab.protocols import firststores, pgmessages
from netlab.protocols.classify import NOBODYS, Verdict, classify, inside_tls
from netlab.protocols.dialog import Side
from netlab.protocols.firstbytes import OPENING
from netlab.protocols.firststores import KAFKA_VERSIONS
from netlab.protocols.opinions import ENOUGH

DATA = Path(__file__).parents[1] / "data/protocols/first_bytes.toml"
CASES = tomllib.loads(DATA.read_text())["cases"]
KNOWN = [case for case in CASES if "stack" in case]


def verdict_on(case: dict[str, Any], sizes: tuple[int, int] = (ENOUGH, ENOUGH)) -> Verdict:
    client, server = bytes.fromhex(case["client"]), bytes.fromhex(case["server"])
    return classify(client[: sizes[0]], server[: sizes[1]], whole=case.get("whole", True))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["of"])
def test_recorded_first_bytes_have_the_name_of_what_was_spoken(case: dict[str, Any]) -> None:
    assert verdict_on(case).stack == case.get("stack")


def test_every_protocol_has_been_recorded() -> None:
    assert {case["stack"].removeprefix("tls+").partition("+")[0] for case in KNOWN} == set(OPENING)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["of"])
def test_any_beginning_of_them_has_no_other_name(case: dict[str, Any]) -> None:
    layers = case.get("stack", "").split("+")
    client, server = len(case["client"]) // 2, len(case["server"]) // 2
    for sizes in [*((size, server) for size in range(client)), *((client, size) for size in range(server))]:
        verdict = verdict_on(case, sizes)

        assert verdict.stack is None or set(verdict.stack.split("+")) <= set(layers)


@pytest.mark.parametrize("case", KNOWN, ids=lambda case: case["of"])
def test_a_final_verdict_stays_what_it_is_when_more_bytes_come(case: dict[str, Any]) -> None:
    sizes = [(size, size) for size in range(1, ENOUGH)]
    final = [verdict for verdict in (verdict_on(case, size) for size in sizes) if verdict.is_final]

    assert set(final) <= {verdict_on(case)}


@pytest.mark.parametrize("case", KNOWN, ids=lambda case: case["of"])
def test_what_is_known_from_the_start_is_not_misnamed_in_the_middle(case: dict[str, Any]) -> None:
    client, server = bytes.fromhex(case["client"]), bytes.fromhex(case["server"])
    for begin in range(1, max(len(client), len(server))):
        verdict = classify(client[begin:], server[begin:], whole=False)

        assert verdict.stack is None or set(verdict.stack.split("+")) <= set(case["stack"].split("+"))


@settings(max_examples=500)
@given(st.integers(0, 2**32), st.integers(0, 300), st.integers(0, 300), st.booleans())
def test_random_bytes_are_nobodys(seed: int, client: int, server: int, whole: bool) -> None:
    noise = random.Random(seed)  # hypothesis' own bytes hold constants of the code, such as HTTP/2's preface

    verdict = classify(noise.randbytes(client), noise.randbytes(server), whole=whole)

    assert verdict.protocol is None


@given(
    st.binary(max_size=300), st.binary(max_size=300), st.booleans(), st.sampled_from([None, 443, 9092, 5432])
)
def test_any_bytes_are_judged(client: bytes, server: bytes, whole: bool, port: int | None) -> None:
    verdict = classify(client, server, whole=whole, server_port=port)

    assert verdict.is_final or verdict.protocol is not None or max(len(client), len(server)) < ENOUGH


def test_a_port_alone_proves_nothing() -> None:
    assert classify(b"\xff" * 300, b"\xff" * 300, server_port=5432) == NOBODYS


def test_a_long_request_without_an_answer_is_http_on_its_own_port_only() -> None:
    request = b"GET /" + b"a" * 300

    assert classify(request, b"", server_port=80).protocol == "http"
    assert classify(request, b"", server_port=5432) == NOBODYS


TLS, GSS, STARTUP = (
    bytes.fromhex(hexadecimal)
    for hexadecimal in ("0000000804d2162f", "0000000804d21630", "000000110003000075736572006100 00")
)


@pytest.mark.parametrize(
    ("client", "server", "stack", "clear"),
    [
        (TLS, b"", None, (0, 0)),
        (TLS, b"S", "tls+postgres", (8, 1)),
        (TLS, b"N", "postgres", (0, 0)),
        (TLS + STARTUP, b"N", "postgres", (0, 0)),
        (TLS, b"E", "postgres", (0, 0)),  # servers before 7.4 know no such question
        (GSS + TLS, b"NS", "tls+postgres", (16, 2)),
        (GSS + TLS, b"N", None, (0, 0)),
        (GSS, b"G", "postgres", (0, 0)),
        (GSS + TLS + STARTUP, b"NN", "postgres", (0, 0)),
    ],
)
def test_postgres_is_in_tls_when_the_server_grants_what_the_client_asks_for(
    client: bytes, server: bytes, stack: str | None, clear: tuple[int, int]
) -> None:
    verdict = classify(client, server)

    assert (verdict.stack, verdict.clear) == (stack, clear)


def test_what_postgres_refused_is_not_the_last_word_before_the_client_goes_on() -> None:
    assert [classify(said, b"N").is_final for said in (GSS, TLS, TLS + STARTUP)] == [False, False, True]


def test_mysql_is_in_tls_when_the_client_says_so() -> None:
    greeting = next(bytes.fromhex(case["server"]) for case in KNOWN if case["stack"] == "mysql")
    asking = b"\x20\0\0\1" + (0x80000000 | 0x800 | 0x200).to_bytes(4, "little") + bytes(28)
    begun, asked = classify(b"", greeting), classify(asking, greeting)

    assert (begun.stack, begun.is_final) == ("mysql", False)
    assert (asked.stack, asked.is_final) == ("tls+mysql", True)
    assert asked.clear == (len(asking), 4 + int.from_bytes(greeting[:3], "little"))


def test_a_protocol_inside_tls_is_named_by_alpn() -> None:
    assert [inside_tls(name) for name in ("h2", "http/1.1", None, "unheard-of")] == [
        "tls+http2",
        "tls+http",
        "tls",
        "tls",
    ]


def test_the_end_of_a_copy_out_is_postgres() -> None:
    row = b"d" + (4 + 40).to_bytes(4, "big") + b"x" * 39 + b"\n"
    done = b"c\0\0\0\4" + b"C\0\0\0\013COPY 2\0" + b"Z\0\0\0\5I"

    assert classify(b"", row * 2 + done, whole=False).protocol == "postgres"


def test_what_a_postgres_server_may_send_is_known_alike_where_it_is_judged_and_where_it_is_read() -> None:
    known = firststores._POSTGRES_ANSWERS, firststores._POSTGRES_REQUESTS

    assert tuple(map(set, known)) == (set(pgmessages.KINDS[Side.SERVER]), set(pgmessages.KINDS[Side.CLIENT]))


def test_every_version_of_kafka_that_its_reader_takes_is_recognised() -> None:
    named, newest = b"\0\4shop", KAFKA_VERSIONS - 1
    for size in (10 + 4, (1 << 30) - 1):
        request = struct.pack("!ihhi", size, 18, newest, 7) + named

        assert classify(request, struct.pack("!ii", 100, 7)).stack == "kafka"
