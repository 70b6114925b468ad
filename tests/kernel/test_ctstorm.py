"""Thousands of new flows a second: each is in the result or counted, and the table is the kernel's."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import storm

import netlab
from netlab.kernel import ctlisten, netns

pytestmark = pytest.mark.privileged

SPACE, LATER = (f"netlab-storm{os.getpid()}{role}" for role in ("", "later"))
RULES = """
table ip netlab_storm {
    chain out {
        type filter hook output priority 0
        ct state new accept
    }
}
"""
SAME = ["id", "protocol", "src", "sport", "dst", "dport", "reply_src", "reply_dst", "status", "mark", "zone"]


def inside(space: str, *command: str, text: str | None = None) -> str:
    command = ("ip", "netns", "exec", space, *command)
    return subprocess.run(command, input=text, text=True, check=True, capture_output=True).stdout


def made(space: str) -> None:
    subprocess.run(["ip", "netns", "add", space], check=True)
    inside(space, "ip", "link", "set", "lo", "up")
    inside(space, "sysctl", "-qw", "net.netfilter.nf_conntrack_timestamp=1")
    inside(space, "sysctl", "-qw", "net.netfilter.nf_conntrack_acct=1")
    inside(space, "sysctl", "-qw", "net.netfilter.nf_conntrack_udp_timeout=3600")
    inside(space, "nft", "-f", "-", text=RULES)


@pytest.fixture
def space() -> Iterator[str]:
    try:
        made(SPACE)
        yield SPACE
    finally:
        for name in (SPACE, LATER):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def send(space: str, flows: int, rate: int = 20_000) -> set[tuple[str, int]]:
    """Send the first packet of so many flows; return where they go."""
    inside(space, sys.executable, storm.__file__, str(flows), str(rate))
    return {storm.target(number) for number in range(flows)}


def targets(frame: pd.DataFrame) -> set[tuple[str, int]]:
    return set(zip(frame.dst, frame.dport, strict=True))


def lost(frame: pd.DataFrame) -> int:
    gaps = netlab.coverage(frame)
    return int(gaps[(gaps["what"] == "events") & (gaps["kind"] == "lost")]["count"].sum())


def compared(frame: pd.DataFrame) -> list[tuple[object, ...]]:
    return sorted(frame[SAME].astype("string").itertuples(index=False, name=None), key=str)


def test_every_flow_of_a_storm_is_heard_or_counted_and_the_table_is_the_kernels(space: str) -> None:
    with netlab.conntrack_events(netns=space) as events:
        sent = send(space, 60_000)

    heard = events.events()
    assert (heard.event == "new").sum() + lost(heard) == len(sent)
    assert targets(events.entries()) == sent  # also those whose message was lost: they still live
    assert compared(events.table()) == compared(netlab.conntrack(netns=space))


def test_messages_lost_to_a_full_buffer_are_counted_one_by_one_and_found_by_a_dump(
    space: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctlisten, "_BUFFER_BYTES", 1 << 16)
    monkeypatch.setattr(ctlisten, "_LARGEST_BUFFER", 1 << 18)
    with netlab.conntrack_events(netns=space) as events:
        sent = send(space, 20_000, rate=200_000)

    heard = events.events()
    assert lost(heard) > 0
    assert (heard.event == "new").sum() + lost(heard) == len(sent)
    assert (heard.event == "found").any()
    assert targets(events.entries()) == sent
    assert events.entries().duplicated(["dst", "dport"]).sum() == 0
    assert compared(events.table()) == compared(netlab.conntrack(netns=space))


def test_ends_lost_to_a_full_buffer_do_not_leave_ghosts_in_the_table(
    space: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctlisten, "_BUFFER_BYTES", 1 << 16)
    monkeypatch.setattr(ctlisten, "_LARGEST_BUFFER", 1 << 16)
    with netlab.conntrack_events(netns=space) as events:
        send(space, 5_000)
        inside(space, "conntrack", "-D", "-d", "127.0.1.1")
        late = "conntrack -I -p udp -s 10.0.0.1 -d 10.0.0.2 --sport 1 --dport 2 -t 60"
        inside(space, *late.split())
        table = events.table()
        fresh = netlab.conntrack(netns=space)

    assert lost(table) > 0
    assert "10.0.0.2" in set(table.dst)
    assert compared(table) == compared(fresh)


def test_what_is_more_than_may_be_kept_is_counted(space: str) -> None:
    with netlab.conntrack_events(netns=space, most_bytes=100_000) as events:
        sent = send(space, 3_000)

    heard = events.events()
    assert 0 < (heard.event == "new").sum() < len(sent)
    assert (heard.event == "new").sum() + lost(heard) == len(sent)
    assert "most_bytes" in " ".join(netlab.coverage(heard)["detail"])
    assert compared(events.table()) == compared(netlab.conntrack(netns=space))


def test_an_end_has_its_time_and_the_counters_of_the_flow(space: str) -> None:
    begun = pd.Timestamp.now("UTC")
    with netlab.conntrack_events(netns=space) as events:
        send(space, 3)
        inside(space, "conntrack", "-D", "-p", "udp")
    ended = pd.Timestamp.now("UTC")

    heard = events.events()
    assert heard.event.tolist() == ["new"] * 3 + ["destroy"] * 3
    assert heard.clock.eq("kernel").all()
    assert heard["at"].is_monotonic_increasing
    assert begun <= heard["at"].min() <= heard["at"].max() <= ended
    end = heard[heard.event == "destroy"]
    assert end.packets.tolist() == [1, 1, 1]
    assert end.bytes.tolist() == [29, 29, 29]  # 20 of IP, 8 of UDP, one of payload
    assert ((end.started_at >= begun) & (end.stopped_at >= end.started_at) & (end.stopped_at <= ended)).all()
    assert events.table().empty


def test_without_timestamps_the_time_is_when_netlab_read_it_and_clock_says_so(space: str) -> None:
    inside(space, "sysctl", "-qw", "net.netfilter.nf_conntrack_timestamp=0")
    begun = pd.Timestamp.now("UTC")
    with netlab.conntrack_events(netns=space) as events:
        send(space, 2)

    heard = events.events()
    assert heard.clock.tolist() == ["user", "user"]
    assert (heard["at"] >= begun).all()


def test_an_update_says_what_changed_and_the_table_keeps_the_rest(space: str) -> None:
    with netlab.conntrack_events(netns=space) as events:
        made_by = "-p tcp -s 10.0.0.1 -d 10.0.0.2 --sport 1 --dport 2 --state SYN_SENT -t 600 -m 7"
        inside(space, "conntrack", "-I", *made_by.split())
        inside(space, "conntrack", "-U", "-p", "tcp", "-s", "10.0.0.1", "-m", "9")
        table = events.table()

    assert events.events().event.tolist() == ["new", "update"]
    assert events.events().mark.tolist() == [7, 9]
    assert table[["state", "mark", "dport"]].to_numpy().tolist() == [["SYN_SENT", 9, 2]]


def test_older_entries_are_found_at_the_start_and_gone_from_the_table_when_they_end(space: str) -> None:
    send(space, 3)  # if nobody on this host listens, the kernel does not tell of their end
    with netlab.conntrack_events(netns=space) as events:
        inside(space, "conntrack", "-D", "-p", "udp", "--orig-port-dst", "10001")
        table = events.table()

    assert events.events().event.iloc[:3].eq("found").all()
    assert "new" not in set(events.events().event)
    assert sorted(table.dport) == [10_000, 10_002]
    assert events.entries().empty


def test_all_namespaces_are_heard_also_one_that_comes_later_and_none_is_kept_alive(space: str) -> None:
    with netlab.conntrack_events(netns="all") as events:
        send(space, 2)
        made(LATER)
        inode = netns.inode(LATER)
        until = time.monotonic() + 30
        while inode not in events.namespaces and time.monotonic() < until:
            time.sleep(0.05)
        send(LATER, 2)
        heard = events.events()
        subprocess.run(["ip", "netns", "del", LATER], check=True)
        while inode in events.namespaces and time.monotonic() < until:
            time.sleep(0.05)
        assert inode not in events.namespaces
        assert inode not in set(events.table().netns)

    new = heard[(heard.event == "new") & (heard.src == "127.0.0.1")]
    assert new.groupby("netns").size().to_dict() == {netns.inode(space): 2, inode: 2}
    gaps = netlab.coverage(events.events())
    assert gaps[gaps["what"] == "events of network namespaces"]["count"].item() >= 1


def test_a_list_of_namespaces_is_heard_and_no_other(space: str) -> None:
    made(LATER)
    with netlab.conntrack_events(netns=[space]) as events:
        send(space, 1)
        send(LATER, 1)

    assert events.entries().netns.tolist() == [netns.inode(space)]


@pytest.mark.parametrize("options", [{"netns": []}, {"netns": "no-such"}, {"most_bytes": 0}])
def test_bad_input_is_refused_before_anything_listens(options: dict[str, object]) -> None:
    with pytest.raises(netlab.BadInput):
        netlab.conntrack_events(**options)  # type: ignore[arg-type]


def test_the_storm_itself_sends_each_flow_to_a_place_of_its_own() -> None:
    assert len({storm.target(number) for number in range(200_000)}) == 200_000
    assert Path(storm.__file__).exists()
