"""What is left of paths and keys."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given, strategies as st

from netlab.errors import BadInput
from netlab.protocols.masking import STANDARD, masking, service


@pytest.mark.parametrize(
    ("target", "left"),
    [
        ("/", "/"),
        ("*", "*"),
        ("/api/v1/users/123/orders/", "/api/v1/users/*/orders/"),
        ("/search?q=secret#part", "/search"),
        ("/u/jane@example.com", "/u/*"),
        ("/u/jane%40example.com", "/u/*"),
        ("/blob/deadbeef", "/blob/*"),
        ("/blob/c0ffee12", "/blob/*"),
        ("/oauth2/k8s/getUserById", "/oauth2/k8s/getUserById"),
        ("/static/bootstrap.min.js", "/static/bootstrap.min.js"),
        (
            "/.well-known/acme-challenge/LPsIwTo7o8BoG0-vjCyGQGBWSVIPxI-i9X336eUOQZo",
            "/.well-known/acme-challenge/*",
        ),
        ("/reset/" + "a" * 41, "/reset/*"),
        ("/date/2026-11-21", "/date/*"),
        ("/naïve/日本", "/*/*"),
        ("/" + "word/" * 60, ("/" + "word/" * 60)[:200] + "…"),
    ],
)
def test_of_a_path_its_words_are_left(target: str, left: str) -> None:
    assert STANDARD.path(target) == left


@given(
    st.integers(0).map(str)
    | st.uuids().map(str)
    | st.uuids().map(lambda value: value.hex)
    | st.binary(min_size=16).map(bytes.hex)
    | st.emails()
)
def test_ids_become_stars(name: str) -> None:
    assert (
        STANDARD.path(f"/users/{name.replace('/', '').replace('?', '').replace('#', '')}/edit")
        == "/users/*/edit"
    )


def test_masking_twice_is_masking_once() -> None:
    once = STANDARD.path(f"/a/{uuid.uuid4()}/b")

    assert STANDARD.path(once) == once


@pytest.mark.parametrize(
    ("key", "left"),
    [("user:42:name", "user:*"), ("counter", "counter"), ("42:user", "*:*"), ("3f8a9c0de1", "*"), ("", "*")],
)
def test_of_a_key_its_prefix_is_left(key: str, left: str) -> None:
    assert STANDARD.key(key) == left


def test_ones_own_rules_come_first() -> None:
    mine = masking({r"^/~[^/]+": "/~user", r"/(\w+)\.html$": r"/\1"})

    assert mine.path("/~jane/12/index.html?x") == "/~user/*/index"


def test_ones_own_rules_are_applied_in_their_order_to_whatever_is_a_resource() -> None:
    mine = masking({r"(?i)acme": "tenant", r"tenant-\w+": "tenant"})

    assert [mine.path("/ACME-north/x?acme"), mine.key("Acme-north:7"), mine.name("acme.orders")] == [
        "/tenant/x",
        "tenant:*",
        "tenant.orders",
    ]
    assert mine.service("acme.v1.Cart") == "tenant.v1.Cart"


def test_a_rule_that_would_backtrack_for_ever_takes_its_time_once() -> None:
    assert masking({r"^(\w+\s?)+$|^(a+)+$": "x"}).name("a" * 4095 + "!") == "a" * 4095 + "!"


def test_what_no_rule_was_applied_to_is_not_shown() -> None:
    assert masking({"secret": "x"}).name("a" * 5000 + "secret") == "a" * 4096


@pytest.mark.parametrize(
    "rule", [("(", "x"), ("a", r"\1"), ("a", r"\g<b>"), (r"(?=a)", "x"), (r"(a)\1", "x"), ("a", 1), (1, "a")]
)
def test_a_rule_that_cannot_work_is_refused(rule: tuple[str, str]) -> None:
    with pytest.raises(BadInput, match=r"no rule to mask by.*RE2"):
        masking(dict([rule]))


def test_rules_that_are_no_mapping_are_refused() -> None:
    with pytest.raises(BadInput, match="mapping"):
        masking(["/users/.*"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "left"),
    [
        (b"a.example:80", "a.example:80"),
        (b"[::1]:80", "[::1]:80"),
        (b"jane:secret@a.example", "a.example"),
        (b"a.example/secret", None),
        (b"", None),
    ],
)
def test_of_a_host_its_name_and_port_are_left(value: bytes, left: str | None) -> None:
    assert STANDARD.host(value) == left


def test_of_a_host_under_ones_domain_the_domain_and_the_port_are_left() -> None:
    assert masking(domains=["corp.example"]).host(b"u:p@Vault.eu.Corp.example:80") == "*.Corp.example:80"


def test_a_service_is_a_name_or_nothing() -> None:
    assert [service("shop.v1.Cart"), service("shop/secret 1")] == ["shop.v1.Cart", "*"]
