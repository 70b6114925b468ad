from __future__ import annotations

import socket
import ssl
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings, strategies as st
from overheard import Heard, cut, free_port, overhearing, read, running
from scapy.layers.tls.crypto.suites import _tls_cipher_suites
from scapy.layers.tls.handshake import TLSClientHello

from netlab.protocols import hellos
from netlab.protocols.dialog import Outcome, Side
from netlab.protocols.dns.resolvers import is_resolver
from netlab.protocols.tls import Handshake, Tls
from netlab.protocols.tlsnames import CIPHERS

JA4 = tomllib.loads((Path(__file__).parents[1] / "data/protocols/ja4.toml").read_text())
HANDSHAKE = 22  # a record's content type
END = datetime(2051, 2, 3, 4, 5, 6, tzinfo=UTC)  # behind 2049, where certificates change how they write years


@dataclass
class Case:
    heard: Heard
    version: str | None = None  # the client's own log
    cipher: str | None = None
    alpn: str | None = None


def certificate(place: Path, end: datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "shop.example")])
    begin = end - timedelta(days=9000)
    made = x509.CertificateBuilder(name, name, key.public_key(), 77, begin, end).sign(key, hashes.SHA256())
    encodings = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (place / "both.pem").write_bytes(key.private_bytes(*encodings) + made.public_bytes(encodings[0]))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    place = tmp_path_factory.mktemp("tls")
    certificate(place, END)
    port = free_port()
    options = ["-alpn", "h2,http/1.1", "-quiet", "-groups", "P-384:P-256", "-cipher", "ALL:@SECLEVEL=0"]
    command = ["openssl", "s_server", "-port", str(port), "-cert", str(place / "both.pem"), *options]
    with running(command, port):
        yield port


def shake(port: int, context: ssl.SSLContext, name: str | None = "shop.example") -> Case:
    with overhearing(port) as through:
        case = Case([])
        with (
            suppress(ssl.SSLError),
            socket.create_connection(("127.0.0.1", through.port)) as plain,
            context.wrap_socket(plain, server_hostname=name) as client,
        ):
            client.sendall(b"hello\n")
            case.version, case.alpn = client.version(), client.selected_alpn_protocol()
            case.cipher = (client.cipher() or ("",))[0]
        case.heard = through.whole(1)[0]
    return case


def client(version: ssl.TLSVersion, *protocols: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


@pytest.fixture(scope="module")
def cases(server: int) -> dict[str, Case]:
    refused = ssl.create_default_context()
    refused.maximum_version = ssl.TLSVersion.TLSv1_2
    none_common = client(ssl.TLSVersion.TLSv1_2)
    none_common.set_ciphers("AES128-SHA")  # needs RSA, and the server has an EC key
    return {
        "1.2": shake(server, client(ssl.TLSVersion.TLSv1_2, "h2", "http/1.1")),
        "1.3": shake(server, client(ssl.TLSVersion.TLSv1_3, "h2"), None),
        "refused by the client": shake(server, refused),
        "refused by the server": shake(server, none_common),
        "refused by the client in 1.3": shake(server, ssl.create_default_context()),
    }


def kinds(said: bytes) -> list[int]:
    """Return the content types of the records of one side (RFC 8446 section 5.1)."""
    found, place = [], 0
    while place < len(said):
        found.append(said[place])
        place += 5 + int.from_bytes(said[place + 3 : place + 5], "big")
    return found


def handshake(heard: Heard) -> Handshake:
    (found,) = read(Tls(), heard)
    assert isinstance(found, Handshake)
    return found


def test_tls_1_2_tells_all_that_the_client_and_the_certificate_say(cases: dict[str, Case]) -> None:
    case, found = cases["1.2"], handshake(cases["1.2"].heard)

    assert (found.version, found.cipher) == ("TLS 1.2", suite(case.cipher))
    assert (found.host, found.alpn) == ("shop.example", case.alpn)
    assert found.certificate_end_ns == int(END.timestamp()) * 10**9
    assert (found.outcome, found.status, found.error) == (Outcome.ANSWERED, "OK", None)


def test_tls_1_3_tells_what_it_does_not_encrypt(cases: dict[str, Case]) -> None:
    case, found = cases["1.3"], handshake(cases["1.3"].heard)

    assert (case.version, found.version, found.cipher) == ("TLSv1.3", "TLS 1.3", case.cipher)
    assert (found.host, found.alpn, found.certificate_end_ns) == (None, "h2", None)
    assert (found.outcome, found.status, found.error) == (Outcome.ANSWERED, "OK", None)


def test_the_server_may_ask_for_another_hello(cases: dict[str, Case]) -> None:
    said = b"".join(data for side, data, _ in cases["1.3"].heard if side is Side.CLIENT)

    assert kinds(said).count(HANDSHAKE) == 2  # P-384 is asked for, and X25519 was offered


@pytest.mark.parametrize(
    ("name", "protocols", "stack"),
    [
        ("dns.google", ("h2", "http/1.1"), "tls+http2+dns"),
        ("a1b2c3.dns.nextdns.io", ("h2",), "tls+http2+dns"),
        ("dns.google", ("http/1.1",), "tls+http"),
        ("www.google.com", ("h2", "http/1.1"), "tls"),  # TLS 1.3 hides which one was chosen
        ("notdns.google", ("h2",), "tls+http2"),
    ],
)
def test_dns_over_https_is_named_by_the_names_of_public_resolvers(
    server: int, name: str, protocols: tuple[str, ...], stack: str
) -> None:
    case = shake(server, client(ssl.TLSVersion.TLSv1_3, *protocols), name)

    assert handshake(case.heard).stack == stack


def test_a_name_of_a_million_labels_is_looked_at_once() -> None:
    labels = "a." * (1 << 20)  # each of its endings would take hours

    assert is_resolver(labels + "dns.google.")
    assert not is_resolver(labels + "dns.google.example")


def test_a_handshake_behind_bytes_in_clear_is_read(cases: dict[str, Case]) -> None:
    heard: Heard = [(Side.CLIENT, b"startTLS", 1), (Side.SERVER, b"S", 2)]
    heard += [(side, data, 3 + at) for at, (side, data, _) in enumerate(cases["1.2"].heard)]
    (found,) = read(Tls(clear=(8, 1), inner="postgres"), cut(heard, (3,)))

    assert isinstance(found, Handshake)
    assert (found.stack, found.version, found.status) == ("tls+postgres", "TLS 1.2", "OK")


def test_alerts_name_the_failure(cases: dict[str, Case]) -> None:
    ours, theirs = (handshake(cases[f"refused by the {who}"].heard) for who in ("client", "server"))

    assert (ours.error, ours.status, ours.cipher is None) == ("unknown_ca", "48", False)
    assert (theirs.error, theirs.status, theirs.cipher) == ("handshake_failure", "40", None)


def test_a_sealed_alert_in_place_of_the_finished_is_told_by_its_size(cases: dict[str, Case]) -> None:
    sealed, heard = b"\x17\3\3", cases["1.3"].heard
    place = next(i for i, (side, data, _) in enumerate(heard) if side is Side.CLIENT and sealed in data)
    side, data, at = heard[place]
    alert = sealed + b"\0\x13" + bytes(19)  # what Go, NSS and rustls send (RFC 8446 sections 5.2 and 6)

    found = handshake([*heard[:place], (side, data.partition(sealed)[0] + alert, at)])

    assert (found.version, found.outcome) == ("TLS 1.3", Outcome.ANSWERED)
    assert (found.error, found.status) == ("encrypted_alert", None)


def test_a_server_of_tls_1_3_that_wants_the_clients_certificate_has_refused_without_it(
    tmp_path: Path,
) -> None:
    certificate(tmp_path, END)
    port = free_port()
    options = ("-quiet", "-cert", str(tmp_path / "both.pem"), "-Verify", "1")
    with running(["openssl", "s_server", "-port", str(port), *options], port), overhearing(port) as through:
        with (
            suppress(ssl.SSLError),
            socket.create_connection(("127.0.0.1", through.port)) as plain,
            client(ssl.TLSVersion.TLSv1_3).wrap_socket(plain) as refused,
        ):
            refused.recv(1)
        found = handshake(through.whole(1)[0])

    assert (found.version, found.outcome) == ("TLS 1.3", Outcome.ANSWERED)
    assert (found.error, found.status) == ("encrypted_alert", None)


def test_whether_a_server_of_tls_1_3_refused_a_client_that_took_leave_is_not_known(tmp_path: Path) -> None:
    certificate(tmp_path, END)
    port = free_port()
    options = ("-quiet", "-cert", str(tmp_path / "both.pem"), "-Verify", "1")
    with running(["openssl", "s_server", "-port", str(port), *options], port), overhearing(port) as through:
        with socket.create_connection(("127.0.0.1", through.port)) as plain:
            leave(plain)
        found = handshake(through.whole(1)[0])

    assert (found.version, found.outcome) == ("TLS 1.3", Outcome.ANSWERED)
    assert (found.error, found.status) == (None, None)


def leave(plain: socket.socket) -> None:
    """Shake hands, say goodbye with the last of it, and wait until the server has gone."""
    heard, told = ssl.MemoryBIO(), ssl.MemoryBIO()
    sealed = client(ssl.TLSVersion.TLSv1_3).wrap_bio(heard, told)
    for step in (sealed.do_handshake, sealed.unwrap):
        while True:
            try:
                step()
                break
            except ssl.SSLWantReadError:
                if step == sealed.unwrap:
                    break
                plain.sendall(told.read())
                heard.write(plain.recv(1 << 16))
    plain.sendall(told.read())
    while plain.recv(1 << 16):
        pass


def test_a_client_of_tls_1_3_that_leaves_instead_of_its_finished_has_not_answered(
    cases: dict[str, Case],
) -> None:
    heard = cases["1.3"].heard
    place = next(i for i, (side, data, _) in enumerate(heard) if side is Side.CLIENT and b"\x17\3\3" in data)

    found = handshake(heard[:place])

    assert (found.version, found.outcome, found.status) == ("TLS 1.3", Outcome.UNANSWERED, None)


def test_the_reason_of_openssl_which_seals_no_such_alert_is_told_in_tls_1_3(cases: dict[str, Case]) -> None:
    found = handshake(cases["refused by the client in 1.3"].heard)

    assert (found.version, found.error, found.status) == ("TLS 1.3", "unknown_ca", "48")


def suite(name: str | None) -> str:
    listed = subprocess.run(
        ["openssl", "ciphers", "-stdname", "ALL"], capture_output=True, text=True, check=True
    ).stdout
    return next(line.split()[0] for line in listed.splitlines() if line.split()[2] == name)


def test_names_of_ciphers_are_those_of_the_registry() -> None:
    odd = {0xC0AA, 0xC0AB}  # which the registry itself calls PSK_DHE, and scapy DHE_PSK
    listed = {code: name for code, name in _tls_cipher_suites.items() if code in CIPHERS.keys() - odd}

    assert len(listed) > 100
    assert listed.items() <= CIPHERS.items()


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["1.2", "1.3", "refused by the client", "refused by the client in 1.3"]),
    st.lists(st.integers(1, 90), min_size=1, max_size=4),
)
def test_it_does_not_matter_where_segments_end(cases: dict[str, Case], name: str, sizes: list[int]) -> None:
    whole = handshake(cases[name].heard)

    found = handshake(cut(cases[name].heard, sizes))

    for one in (whole, found):
        one.requested_ns, one.answered_ns, one.ended_ns = 0, None, None
        one.request_bytes = one.response_bytes = None
    assert found == whole


@given(st.integers(0, 5), st.booleans())
def test_a_gap_ends_it(cases: dict[str, Case], gap: int, told: bool) -> None:
    heard, dialog, found = cases["1.2"].heard, Tls(), []
    for index, (side, data, at) in enumerate(heard):
        if index == gap:
            found += dialog.missed(side, len(data) if told else None, at)
        else:
            found += dialog.said(side, data, at)

    assert len(found) <= 1
    assert all(e.outcome is Outcome.MISSED or e.status == "OK" for e in found)


RECORDED = tomllib.loads((Path(__file__).parents[1] / "data/protocols/handshakes.toml").read_text())["cases"]
HELLO = bytes.fromhex(next(case["client"] for case in RECORDED if case["stack"] == "tls"))
HELLO = HELLO[: 5 + int.from_bytes(HELLO[3:5], "big")]


def record(said: bytes) -> bytes:
    return b"\x16\3\1" + len(said).to_bytes(2, "big") + said


def test_a_hello_in_several_records_began_with_the_first() -> None:
    dialog, records = Tls(), [record(HELLO[place : place + 90]) for place in range(5, len(HELLO), 90)]

    for at, one in enumerate(records, 10):
        assert dialog.said(Side.CLIENT, one, at) == []
    (found,) = dialog.ended(99)

    assert (found.host, found.requested_ns) == ("shop.example", 10)
    assert found.request_bytes == sum(map(len, records))


@pytest.mark.parametrize("name", [b"two words\n.", b"shop\xc3\xa9xample", b"shop.example" * 30])
def test_what_cannot_be_a_name_of_a_host_is_not_shown(name: bytes) -> None:
    dialog = Tls()

    dialog.said(Side.CLIENT, _renamed(HELLO, b"shop.example", name), 1)
    (found,) = dialog.ended(2)

    assert found.host is None


def test_another_name_is_shown() -> None:
    dialog = Tls()
    dialog.said(Side.CLIENT, _renamed(HELLO, b"shop.example", b"_a.B-1.example."), 1)

    assert [one.host for one in dialog.ended(2)] == ["_a.b-1.example."]


def _renamed(hello: bytes, old: bytes, new: bytes) -> bytes:
    """Return a hello that asks for another name, with all lengths around it put right."""
    at, more = hello.index(old), len(new) - len(old)
    said = bytearray(hello.replace(old, new))
    ciphers = 5 + 4 + 2 + 32 + 1
    extensions = ciphers + 2 + int.from_bytes(hello[ciphers : ciphers + 2], "big") + 2
    for place, size in ((at - 2, 2), (at - 5, 2), (at - 7, 2), (extensions, 2), (6, 3), (3, 2)):
        length = int.from_bytes(said[place : place + size], "big") + more
        said[place : place + size] = length.to_bytes(size, "big")
    return bytes(said)


@pytest.mark.parametrize("year", [9999, 2300])
def test_an_end_that_is_none_or_too_far_away_to_be_told_is_missing(tmp_path: Path, year: int) -> None:
    certificate(tmp_path, datetime(year, 12, 31, 23, 59, 59, tzinfo=UTC))
    loaded = x509.load_pem_x509_certificate((tmp_path / "both.pem").read_bytes())
    encoded = loaded.public_bytes(serialization.Encoding.DER)
    sizes = [(len(encoded) + more).to_bytes(3, "big") for more in (3, 0)]

    assert hellos.certificate_end_ns(b"".join(sizes) + encoded) is None


def test_a_connection_met_in_the_middle_has_no_handshake(cases: dict[str, Case]) -> None:
    assert read(Tls(whole=False), cases["1.2"].heard) == []


@pytest.mark.parametrize("case", JA4["cases"], ids=lambda case: case["ja4"])
def test_ja4_is_that_of_its_published_examples(case: dict[str, str]) -> None:
    words = {
        name: [int(one, 16) for one in case.get(name, "").split(",") if one]
        for name in ("ciphers", "extensions")
    }
    hello = hellos.Hello(
        int(case["version"], 16),
        words["ciphers"],
        words["extensions"],
        protocols=[bytes.fromhex(case["alpn"])] if "alpn" in case else [],
        signatures=[int(one, 16) for one in case.get("signatures", "").split(",") if one],
    )

    assert hellos.ja4(hello) == case["ja4"]


@pytest.mark.parametrize(("alpn", "ends"), JA4["alpn"])
def test_ja4_has_the_ends_of_the_first_protocol(alpn: str, ends: str) -> None:
    assert hellos.ja4(hellos.Hello(0x304, [], protocols=[bytes.fromhex(alpn)]))[8:10] == ends


def test_hellos_are_read_as_scapy_reads_them(cases: dict[str, Case]) -> None:
    for name in ("1.2", "1.3"):
        first = next(data for side, data, _ in cases[name].heard if side is Side.CLIENT)
        theirs, ours = TLSClientHello(first[5:]), hellos.client_hello(first[9:])

        assert ours.ciphers == theirs.ciphers
        assert ours.extensions == [one.type for one in theirs.ext]


@given(
    st.binary(max_size=300),
    st.sampled_from([hellos.client_hello, hellos.server_hello, hellos.certificate_end_ns]),
)
def test_any_bytes_are_read_or_refused(body: bytes, reader: object) -> None:
    with suppress(hellos.HelloError):
        reader(body)  # type: ignore[operator]


@given(st.lists(st.tuples(st.sampled_from(Side), st.binary(max_size=80)), max_size=8))
def test_any_conversation_is_read(said: list[tuple[Side, bytes]]) -> None:
    hello = b"\x16\x03\x01\x00\x30\x01\x00\x00\x2c\x03\x03" + bytes(42)

    found = read(Tls(), [(Side.CLIENT, hello, 0), *((side, data, 1) for side, data in said)])

    assert len(found) == 1
