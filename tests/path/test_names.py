"""Reverse names; a resolver that is slow or gone is played at the system's own door, getnameinfo(3)."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from netlab.path import names


class Resolver:
    """Answers with the names it has when it is let go on."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go_on = threading.Event()
        self.go_on.set()
        self.names = {"192.0.2.1": "one.example", "192.0.2.2": "two.example"}
        self.errno = socket.EAI_NONAME
        self.most = self._now = 0
        self._lock = threading.Lock()

    def getnameinfo(self, place: tuple[str, int], _flags: int) -> tuple[str, str]:
        with self._lock:
            self.asked.append(place[0])
            self._now += 1
            self.most = max(self.most, self._now)
        self.go_on.wait(10)
        with self._lock:
            self._now -= 1
        if place[0] not in self.names:
            raise socket.gaierror(self.errno, "played")
        return self.names[place[0]], "0"


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    played = Resolver()
    monkeypatch.setattr(names, "_known", {})
    monkeypatch.setattr(socket, "getnameinfo", played.getnameinfo)
    yield played
    played.go_on.set()
    for thread in threading.enumerate():
        if thread.name.endswith("(_answer)"):
            thread.join(10)


def test_an_address_of_this_host_has_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "_known", {})

    assert names.names_of(["127.0.0.1"]) == ({"127.0.0.1": socket.getnameinfo(("127.0.0.1", 0), 8)[0]}, 0)


@pytest.mark.usefixtures("resolver")
def test_addresses_without_a_name_are_left_out() -> None:
    found = names.names_of(["192.0.2.1", "192.0.2.9", "192.0.2.2"])

    assert found == ({"192.0.2.1": "one.example", "192.0.2.2": "two.example"}, 0)


def test_a_resolver_that_hangs_is_not_waited_for_and_counted(resolver: Resolver) -> None:
    resolver.go_on.clear()

    assert names.names_of(["192.0.2.1", "192.0.2.2"], wait_s=0.05) == ({}, 2)


def test_what_comes_late_is_there_for_the_next_call(resolver: Resolver) -> None:
    resolver.go_on.clear()
    names.names_of(["192.0.2.1"], wait_s=0.05)
    resolver.go_on.set()
    for thread in threading.enumerate():
        if thread.name.endswith("(_answer)"):
            thread.join(10)

    assert names.names_of(["192.0.2.1"], wait_s=0.001) == ({"192.0.2.1": "one.example"}, 0)
    assert resolver.asked == ["192.0.2.1"]


def test_no_address_is_asked_for_twice_within_the_hour(
    resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    names.names_of(["192.0.2.1", "192.0.2.9"])
    names.names_of(["192.0.2.1", "192.0.2.9"])
    asked = sorted(resolver.asked)
    monkeypatch.setattr(names, "_FRESH_S", 0)
    names.names_of(["192.0.2.1"])

    assert asked == ["192.0.2.1", "192.0.2.9"]
    assert len(resolver.asked) == 3


def test_that_nobody_could_be_asked_is_not_remembered(resolver: Resolver) -> None:
    resolver.errno = socket.EAI_AGAIN
    names.names_of(["192.0.2.9"])
    resolver.names["192.0.2.9"] = "nine.example"

    assert names.names_of(["192.0.2.9"]) == ({"192.0.2.9": "nine.example"}, 0)


def test_many_addresses_are_asked_for_some_at_a_time(resolver: Resolver) -> None:
    addresses = [f"198.51.100.{number}" for number in range(200)]
    resolver.names = dict.fromkeys(addresses, "a.example")

    assert names.names_of(addresses) == (resolver.names, 0)
    assert resolver.most <= 64


def test_look_ups_that_have_not_begun_when_the_time_is_up_never_begin(resolver: Resolver) -> None:
    resolver.go_on.clear()
    _, unfinished = names.names_of([f"198.51.100.{number}" for number in range(200)], wait_s=0.05)
    resolver.go_on.set()

    assert unfinished == 200
    assert len(resolver.asked) <= 64


def test_what_is_remembered_is_bounded(resolver: Resolver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "_REMEMBERED", 2)
    resolver.names = {f"192.0.2.{number}": f"{number}.example" for number in range(3)}
    for address in resolver.names:
        names.names_of([address])
    names.names_of(["192.0.2.0"])

    assert resolver.asked == ["192.0.2.0", "192.0.2.1", "192.0.2.2", "192.0.2.0"]
