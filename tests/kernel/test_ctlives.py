"""Lives of real conntrack entries, in a network namespace of their own."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from between import inside, run

from netlab.kernel import clock, ctlisten, netns
from netlab.kernel.ctlisten import Group, Listener
from netlab.kernel.ctlives import NEVER, Lives
from netlab.kernel.manymsg import Receiver

pytestmark = pytest.mark.privileged

SPACE = f"netlab-lives{os.getpid()}"
TURN = """
table ip netlab_lives {
    chain out {
        type nat hook output priority -100
        udp dport 53 dnat to 127.0.0.1:54
    }
}
"""
FLOW = "-p udp -s 10.0.0.1 -d 10.0.0.2 --sport 5 --dport 53"


class Heard:
    """A listener in the namespace, and the lives of what it hears."""

    def __init__(self, listener: Listener, most: int = 1000, orders: Iterator[int] | None = None) -> None:
        self.listener, self.lives = listener, Lives(most)
        self._receiver, self._orders = Receiver(), orders or itertools.count()
        listener.resync(next(self._orders), first=True)

    def take(self, *, dump: bool = False) -> list[tuple[str, bool]]:
        """Return the source after translation, and whether it lives, of each entry so far."""
        self.listener.receive(self._receiver, self._orders)
        if dump:
            self.listener.resync(next(self._orders), force=True)
        for heard in self.listener.taken():
            self.lives.hear(self.listener.inode, heard)
        self.all = self.lives.all()
        alive = (self.all["ended_until_ns"] == NEVER).tolist()
        return [(f"::{life[-1]}", lives) for life, lives in zip(self.all["reply_dst"], alive, strict=True)]


@pytest.fixture
def space() -> Iterator[str]:
    run("ip", "netns", "add", SPACE)
    try:
        yield SPACE
    finally:
        subprocess.run(["ip", "netns", "del", SPACE], check=False, capture_output=True)


@pytest.fixture
def listener(space: str) -> Iterator[Listener]:
    with netns.entered(space):
        listening = Listener(Group.NEW | Group.DESTROY, elsewhere=True)
    with closing(listening):
        yield listening


def insert(*options: str, flow: str = FLOW) -> None:
    inside(SPACE, "conntrack", "-I", *flow.split(), "-t", "60", *options)


def delete(*options: str) -> None:
    inside(SPACE, "conntrack", "-D", "-p", "udp", *options)


def test_an_entry_has_its_begin_and_its_end_between_two_readings(listener: Listener) -> None:
    heard = Heard(listener)
    heard.take()
    before = clock.now_ns()
    insert("--src-nat", "10.0.0.9")
    made = clock.now_ns()
    assert heard.take() == [("::9", True)]
    delete()
    ended = clock.now_ns()
    assert heard.take() == [("::9", False)]

    (life,) = heard.all
    assert life["made_since_ns"] <= before <= made <= life["made_until_ns"]
    assert made <= life["ended_until_ns"]
    assert life["ended_since_ns"] <= ended <= life["ended_until_ns"]
    assert (life["netns"], life["protocol"], life["sport"], life["dport"]) == (listener.inode, 17, 5, 53)


def test_the_kernels_own_times_are_exact(listener: Listener) -> None:
    run("ip", "-n", SPACE, "link", "set", "lo", "up")
    inside(SPACE, "nft", "-f", "-", text=TURN)
    inside(SPACE, "sysctl", "-qw", "net.netfilter.nf_conntrack_timestamp=1")
    heard = Heard(listener)
    heard.take()
    with netns.entered(SPACE), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        before = clock.now_ns()
        sender.sendto(b"x", ("127.0.0.1", 53))
        made = clock.now_ns()
    delete()
    ended = clock.now_ns()
    heard.take()

    (life,) = heard.all
    between_clocks_ns = 1_000_000  # the stamp is UTC
    assert life["made_since_ns"] == life["made_until_ns"]
    assert before - between_clocks_ns <= life["made_since_ns"] <= made + between_clocks_ns
    assert life["ended_since_ns"] == life["ended_until_ns"] <= ended + between_clocks_ns
    assert life["ended_since_ns"] >= made - between_clocks_ns


def test_a_reader_that_is_held_up_does_not_move_the_kernels_times(listener: Listener) -> None:
    def held_up() -> Iterator[int]:
        for number in itertools.count():
            time.sleep(0.05)
            yield number

    run("ip", "-n", SPACE, "link", "set", "lo", "up")
    inside(SPACE, "nft", "-f", "-", text=TURN)
    inside(SPACE, "sysctl", "-qw", "net.netfilter.nf_conntrack_timestamp=1")
    heard = Heard(listener, orders=held_up())
    heard.take()
    with netns.entered(SPACE), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", ("127.0.0.1", 53))
        made = clock.now_ns()
    heard.take()

    (life,) = heard.all
    between_clocks_ns = 1_000_000
    assert life["made_since_ns"] == life["made_until_ns"] <= made + between_clocks_ns


def test_a_stamp_from_before_utc_was_set_says_nothing(listener: Listener) -> None:
    """Of an entry that was made before the system's clock was set back by an hour, and read after it."""
    inside(SPACE, "sysctl", "-qw", "net.netfilter.nf_conntrack_timestamp=1")
    heard = Heard(listener)
    heard.take()
    insert("--src-nat", "10.0.0.9")
    listener.receive(Receiver(), itertools.count(9))
    (told,) = listener.taken()
    heard.lives.hear(listener.inode, replace(told, at_ns=told.at_ns - 3600 * 10**9))

    (life,) = heard.lives.all()
    assert [life["made_since_ns"], life["made_until_ns"]] == [told.since_ns, told.until_ns]


def test_what_is_not_translated_is_not_kept(listener: Listener) -> None:
    heard = Heard(listener)
    insert()

    assert heard.take() == []


def test_what_is_not_translated_is_kept_beside_zones(listener: Listener) -> None:
    heard = Heard(listener)
    insert("--src-nat", "10.0.0.9", "-w", "3")
    insert()

    assert sorted(heard.take()) == [("::1", True), ("::9", True)]
    assert sorted(heard.all["zone"].tolist()) == [0, 3]


def test_an_older_entry_is_found_and_its_successor_ends_it(space: str) -> None:
    """Of one made while nobody listened (as other captures on this host may) its end is not told."""
    inside(SPACE, "sysctl", "-qw", "net.netfilter.nf_conntrack_events=0")
    insert("--src-nat", "10.0.0.9")
    inside(SPACE, "sysctl", "-qw", "net.netfilter.nf_conntrack_events=2")
    with netns.entered(space):
        listening = Listener(Group.NEW | Group.DESTROY, elsewhere=True)
    with closing(listening):
        heard = Heard(listening)
        assert heard.take() == [("::9", True)]
        assert heard.all["made_since_ns"].tolist() == [0]
        delete()
        assert heard.take() == [("::9", True)]
        insert()

        assert heard.take() == [("::9", False)]


def test_a_dump_ends_what_it_does_not_list(space: str) -> None:
    insert("--src-nat", "10.0.0.9")
    with netns.entered(space):
        listening = Listener(Group.NEW | Group.DESTROY, elsewhere=True)
    with closing(listening):
        heard = Heard(listening)
        heard.take()
        delete()

        assert heard.take(dump=True) == [("::9", False)]


def test_entries_that_follow_each_other_at_once_are_told_apart(listener: Listener) -> None:
    heard = Heard(listener)
    for host in (7, 8, 9):
        insert("--src-nat", f"10.0.0.{host}")
        delete()

    assert heard.take() == [("::7", False), ("::8", False), ("::9", False)]
    assert heard.all["order"].tolist() == sorted(heard.all["order"].tolist())


def test_an_end_whose_begin_was_lost_tells_the_translation(space: str) -> None:
    with netns.entered(space):
        listening = Listener(Group.DESTROY, elsewhere=True)
    with closing(listening):
        heard = Heard(listening)
        insert("--src-nat", "10.0.0.9")
        delete()

        assert heard.take() == [("::9", False)]
        assert heard.all["made_since_ns"].tolist() == [0]


def test_other_protocols_are_left_out(listener: Listener) -> None:
    heard = Heard(listener)
    insert(
        "--src-nat",
        "10.0.0.9",
        flow="-p icmp -s 10.0.0.1 -d 10.0.0.2 --icmp-type 8 --icmp-code 0 --icmp-id 1",
    )

    assert heard.take() == []


def test_the_oldest_go_first_and_are_counted(listener: Listener) -> None:
    heard = Heard(listener, most=3)
    for port in range(10, 15):
        insert("--src-nat", "10.0.0.9", flow=f"-p udp -s 10.0.0.1 -d 10.0.0.2 --sport {port} --dport 53")
        heard.take()
        delete()
    heard.take()

    assert sorted(heard.all["sport"].tolist()) == [12, 13, 14]
    assert heard.lives.dropped == 2


def test_what_lives_in_a_namespace_that_is_gone_has_ended(listener: Listener) -> None:
    heard = Heard(listener)
    insert("--src-nat", "10.0.0.9")
    heard.take()
    heard.lives.leave(listener.inode, 5, 6)

    assert heard.take() == [("::9", False)]
    assert heard.all["ended_until_ns"].tolist() == [6]


def test_zones_go_with_their_namespace(listener: Listener) -> None:
    heard = Heard(listener)
    insert("--src-nat", "10.0.0.9", "-w", "3")
    heard.take()
    heard.lives.leave(listener.inode, 5, 6)
    insert()  # as if in another namespace, which has got the number

    assert heard.take() == [("::9", False)]


def test_a_full_buffer_is_made_up_for_by_a_dump(space: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctlisten, "_BUFFER_BYTES", 1 << 11)
    monkeypatch.setattr(ctlisten, "_LARGEST_BUFFER", 1 << 11)
    with netns.entered(space):
        listening = Listener(Group.NEW | Group.DESTROY, elsewhere=True)
    with closing(listening):
        heard = Heard(listening)
        for port in range(10, 30):
            insert("--src-nat", "10.0.0.9", flow=f"-p udp -s 10.0.0.1 -d 10.0.0.2 --sport {port} --dport 53")
        heard.take(dump=True)

        assert listening.lost > 0
        assert sorted(heard.all["sport"].tolist()) == list(range(10, 30))
        assert np.all(heard.all["ended_until_ns"] == NEVER)
