"""Listening in namespaces that come, go, and refuse: nothing is said twice, forgotten, or kept for ever."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator

import pandas as pd
import pytest
from programs import wait_until

import netlab
from netlab.kernel import netns
from netlab.kernel.ctevents import ConntrackEvents
from netlab.kernel.ctlisten import Listener

pytestmark = pytest.mark.privileged

SPACE, LATER = (f"netlab-watch{os.getpid()}{role}" for role in ("", "later"))
FLOW = "-p udp -s 10.0.0.1 -d 10.0.0.2 --sport 1 --dport 53 -t 600"


def run(*command: str, text: str | None = None) -> str:
    return subprocess.run(command, input=text, text=True, check=True, capture_output=True).stdout


def insert(space: str, flow: str = FLOW) -> None:
    run("ip", "netns", "exec", space, "conntrack", "-I", *flow.split())


@pytest.fixture
def space() -> Iterator[str]:
    run("ip", "netns", "add", SPACE)
    try:
        yield SPACE
    finally:
        for name in (SPACE, LATER):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


class Watched(ConntrackEvents):
    """Listens everywhere, and notes which namespaces it would tell of while it takes what waits."""

    def __init__(self) -> None:
        self.told: list[set[int]] = []
        super().__init__("all", 1 << 30)

    def _take_from(self, listener: Listener, *, settle: bool) -> None:
        super()._take_from(listener, settle=settle)
        self.told.append({one.inode for one in self._all()})


def test_what_a_namespace_told_is_there_also_while_it_is_being_left(space: str) -> None:
    inode = netns.inode(space)
    with Watched() as events:
        insert(space)
        wait_until(lambda: inode in set(events.events().netns))
        run("ip", "netns", "del", space)
        wait_until(lambda: inode not in events.namespaces)

    assert all(inode in told for told in events.told)
    assert inode in set(events.events().netns)


def test_namespaces_that_nobody_could_find_in_time_are_said_to_be_unknown(space: str) -> None:
    with netlab.conntrack_events(netns="all") as events:
        gaps = netlab.coverage(events.events()).set_index("what")
    with netlab.conntrack_events(netns=space) as one:
        pass

    unknown = gaps.loc["network namespaces"]
    assert unknown["kind"] == "unseen"
    assert unknown["count"] is pd.NA
    assert "made and gone between two looks around" in unknown["detail"]
    assert netlab.coverage(one.events()).empty


def test_namespaces_that_came_and_went_without_an_event_leave_nothing(space: str) -> None:
    with Watched() as events:
        run("ip", "netns", "add", LATER)
        inode = netns.inode(LATER)
        wait_until(lambda: inode in events.namespaces)
        run("ip", "netns", "del", LATER)
        wait_until(lambda: inode not in events.namespaces)
        wait_until(lambda: inode not in {listener.inode for listener in events._all()})
        assert netns.inode(space) in {listener.inode for listener in events._all()}


def test_a_namespace_whose_file_goes_while_it_is_being_entered_is_listened_in(space: str) -> None:
    """As of a process that ends: the listener needs no second look at what it came in by."""
    with netns.entered(space):
        run("ip", "netns", "del", space)
        listener = Listener(elsewhere=True)
    listener.resync(0, force=True)
    listener.close()

    assert listener.unanswered is None
    assert [heard.found for heard in listener.heard] == [True]


def test_a_namespace_for_which_no_descriptor_is_left_is_refused_and_leaves_none(space: str) -> None:
    """Any other error than netlab's own would end the listening everywhere."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with netns.entered(space):
        lowest = os.dup(0)
        os.close(lowest)
        try:
            for more in (0, 1):  # for the file, and for a socket beside it
                resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + more, limits[1]))
                with pytest.raises(netlab.KernelError, match="Too many open files"):
                    Listener(elsewhere=True)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert os.dup(0) == lowest
    os.close(lowest)


def test_a_quarter_of_the_descriptors_is_left_to_the_rest_of_the_process(space: str) -> None:
    names = [f"{space}-{number}" for number in range(40)]
    script = f"""
import os, resource, netlab
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
with netlab.conntrack_events(netns={names!r}) as events:
    last = os.dup(0)
    gaps = netlab.coverage(events.events())
print(last, gaps["what"].tolist(), "ulimit -n" in gaps["detail"][0])
"""
    run("ip", "-batch", "-", text="".join(f"netns add {name}\n" for name in names))
    try:
        said = run(sys.executable, "-c", script).strip()
    finally:
        run("ip", "-batch", "-", text="".join(f"netns del {name}\n" for name in names))

    last, _, gap = said.partition(" ")
    assert int(last) <= 50
    assert gap == "['network namespaces'] True"


def test_a_namespace_that_may_not_be_entered_is_counted_once(space: str) -> None:
    script = f"""
import time, netlab
from netlab.kernel import netns
both = {{netns.inode(): netns.path(None), {netns.inode(space)}: netns.path({space!r})}}
netns.everywhere = lambda: both
with netlab.conntrack_events(netns="all") as events:
    time.sleep(3.5)  # it looks around every second
gaps = netlab.coverage(events.events())
print(gaps[gaps["kind"] == "unavailable"][["kind", "count"]].to_numpy().tolist())
"""
    command = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", sys.executable, "-c", script]

    assert run(*command).strip() == "[['unavailable', 1]]"


def test_asking_for_the_table_again_and_again_does_not_fill_the_memory(space: str) -> None:
    insert(space)  # nobody listens: its end will not be told, so that the table takes a dump
    with netlab.conntrack_events(netns=space) as events:
        tables = [events.table() for _ in range(4)]
        insert(space, FLOW.replace("53", "54"))
        last, found = events.table(), events.events().event.eq("found").sum()

    assert [table.dport.tolist() for table in tables] == [[53]] * 4
    assert sorted(last.dport) == [53, 54]
    assert found == 3  # one by the first dump, two by the last one
