"""A trace through the agent, as it comes: the table so far, until somebody has seen enough."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

import httpx
import pandas as pd
import pytest
from hypothesis import given, strategies as st

import netlab
from netlab.agent import formats, streaming
from netlab.agent.client import Host
from netlab.agent.formats import Format
from netlab.schemas import HOPS
from tests.support.programs import wait_until

BODIES = st.lists(st.binary(max_size=40), max_size=5)


@given(BODIES, st.integers(1, 9))
def test_a_stream_of_tables_is_the_same_in_blocks_of_any_size(bodies: list[bytes], size: int) -> None:
    stream = b"".join(formats.framed(body, Format.FRAMES) for body in bodies)
    blocks = [stream[at : at + size] for at in range(0, len(stream), size)]

    assert list(formats.parts(blocks)) == bodies


def test_a_stream_that_ends_in_the_middle_of_a_table_is_refused() -> None:
    with pytest.raises(netlab.DecodeError, match="ends in the middle"):
        list(formats.parts([formats.framed(b"abc", Format.FRAMES)[:-1]]))


async def parts_of(work: streaming.Work, *, after_first: threading.Event) -> list[bytes]:
    """Return the parts of an answer whose reader waits behind the first one."""
    answer = await streaming.streamed(work, Format.LINES)
    parts = aiter(answer.body_iterator)  # type: ignore[attr-defined]
    first = await anext(parts)
    await asyncio.to_thread(after_first.wait)
    return [first, *[part async for part in parts]]


def test_who_reads_slowly_gets_fewer_tables_and_the_last_one() -> None:
    over = threading.Event()

    def work(_: threading.Event, seen: streaming.Seen | None) -> pd.DataFrame:
        assert seen is not None
        for _ in range(100):
            seen(HOPS.empty())
        threading.Timer(0.1, over.set).start()  # what was given has been taken then
        return HOPS.frame({"ttl": [7]})

    parts = asyncio.run(parts_of(work, after_first=over))

    assert len(parts) < 10
    assert json.loads(parts[-1])["rows"][0]["ttl"] == 7


def test_who_waits_for_long_is_told_that_the_agent_is_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "_BEAT_S", 0.01)
    waited = threading.Event()

    def work(_: threading.Event, __: object) -> pd.DataFrame:
        waited.wait()
        return HOPS.empty()

    threading.Timer(0.1, waited.set).start()
    *empty, last = asyncio.run(parts_of(work, after_first=waited))

    assert set(empty) == {b"\n"}
    assert json.loads(last)["rows"] == []


@pytest.mark.privileged
def test_hops_are_shown_as_they_come_and_the_last_table_is_the_answer(host: Host) -> None:
    with netlab.lab.practice() as net:
        shown: list[pd.DataFrame] = []
        way = {"protocol": "tcp", "port": net.ports.drops, "netns": net.client.netns, "max_ttl": 8}
        hops = host.traceroute(net.db.address4, seen=shown.append, **way)

    assert len(shown) > 1
    assert shown[-1] is hops
    assert [len(frame) for frame in shown] == sorted(len(frame) for frame in shown)
    partial, whole = (set(netlab.coverage(frame)["detail"]) for frame in (shown[0], hops))
    assert "probing goes on, and more may come" in partial - whole


@pytest.mark.privileged
def test_enough_seen_ends_the_probing_and_frees_its_place(host: Host) -> None:
    with netlab.lab.practice() as net:
        enough = threading.Event()
        silent = {"protocol": "tcp", "port": net.ports.drops, "netns": net.client.netns, "timeout_s": 60}
        for _ in range(5):  # one more than there are places
            enough.clear()
            hops = host.traceroute(net.db.address4, stop=enough, seen=lambda _: enough.set(), **silent)
            assert len(hops)


@pytest.mark.privileged
def test_a_person_gets_it_as_lines(agent: Path) -> None:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(agent)), base_url="http://agent") as web:
        answer = web.get("/traceroute/127.0.0.1", headers={"Accept": "application/x-ndjson"})
    *_, last = answer.text.splitlines()

    assert answer.headers["content-type"] == "application/x-ndjson"
    assert json.loads(last)["rows"][0]["address"] == "127.0.0.1"


@pytest.mark.privileged
def test_what_cannot_be_traced_is_refused_as_without_a_stream(host: Host) -> None:
    with pytest.raises(netlab.ProbeError, match="cannot resolve"):
        host.traceroute("no such host", seen=lambda _: None)
    wait_until(lambda: host.health()["status"] == "ok")
