from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

import netlab
from netlab import bundle
from netlab.errors import BadInput
from netlab.frames import Gap, Missing
from netlab.schemas import CONNECTIONS, CONNTRACK, HOPS, REQUESTS

VERSION_1 = Path(__file__).parent.parent / "data" / "bundles" / "version_1.netlab"


def of(host: str, **frames: pd.DataFrame) -> bundle.Bundle:
    origin = replace(bundle.Metadata.of_here(""), host=host)
    return bundle.Bundle({name: bundle.Item(frame, (origin,)) for name, frame in frames.items()})


def connections(*processes: str, lost: int = 0) -> pd.DataFrame:
    count = len(processes)
    return CONNECTIONS.frame(
        {
            "process": list(processes),
            "protocol": ["tcp"] * count,
            "direction": ["outgoing"] * count,
            "remote_address": ["127.0.0.1"] * count,
            "remote_port": [443] * count,
            "error": pd.Categorical(["ECONNREFUSED"] * count if lost else [None] * count),
        },
        [Missing("connections", Gap.LOST, lost, "full")] if lost else [],
    )


def test_rows_are_under_each_other_with_their_host_and_gaps_with_theirs() -> None:
    both = netlab.merge(
        of("web1", connections=connections("curl", lost=2)),
        of("web2", connections=connections("nginx", "ssh")),
    )["connections"]

    assert both["host"].tolist() == ["web1", "web2", "web2"]
    assert both["process"].tolist() == ["curl", "nginx", "ssh"]
    assert both["error"].dtype == "category"
    assert netlab.coverage(both)[["count", "detail"]].to_numpy().tolist() == [[2, "web1: full"]]


def sockets(*lives: tuple[int, float | None, str], **more: list[object]) -> pd.DataFrame:
    """Return connections by cookie, when they opened, in seconds, and state."""
    begun = pd.Timestamp("2026-03-01T12:00:00Z")
    opened = [None if at is None else begun + pd.Timedelta(seconds=at) for _, at, _ in lives]
    cookies, states = [life[0] for life in lives], [life[2] for life in lives]
    return CONNECTIONS.frame({"cookie": cookies, "opened_at": opened, "state": states, **more})


def test_what_two_recordings_of_one_host_have_is_there_once_as_it_was_last() -> None:
    early = sockets((1, 0.0, "established"), (2, 1.0, "closed"))
    late = sockets((1, 0.0, "closed"), (2, 1.0, "closed"), (3, 2.0, "syn-sent"))

    both = netlab.merge(of("a", connections=early), of("a", connections=late), of("b", connections=late))

    found = both["connections"]
    assert found[["host", "cookie", "state"]].to_numpy().tolist() == [
        *(["a", cookie, state] for cookie, state in ((1, "closed"), (2, "closed"), (3, "syn-sent"))),
        *(["b", cookie, state] for cookie, state in ((1, "closed"), (2, "closed"), (3, "syn-sent"))),
    ]
    assert netlab.coverage(found).empty


def test_what_two_captures_of_one_host_may_have_told_twice_is_counted() -> None:
    one = sockets((1, 0.0, "closed"), (2, 1.0, "closed"), (3, None, "closed"), (4, 0.0, "closed"))
    other = sockets((1, 0.002, "closed"), (2, 90.0, "closed"), (3, 1.0, "closed"), (5, 0.0, "closed"))

    found = netlab.merge(of("a", connections=one), of("a", connections=other))["connections"]

    assert len(found) == 8
    assert netlab.coverage(found)[["what", "kind", "count"]].to_numpy().tolist() == [
        ["connections", "approximate", 2]
    ]


def test_sockets_that_nothing_tells_apart_are_one_only_if_all_of_them_is_alike() -> None:
    one, other = sockets((1, None, "closed")), sockets((1, None, "closed"))
    one["cookie"] = other["cookie"] = pd.array([None], one["cookie"].dtype)
    differing = other.assign(state=pd.Categorical(["listen"], one["state"].cat.categories.union(["listen"])))
    differing.attrs = other.attrs

    alike = netlab.merge(of("a", connections=one), of("a", connections=other))["connections"]
    unlike = netlab.merge(of("a", connections=one), of("a", connections=differing))["connections"]

    assert (len(alike), len(unlike)) == (1, 2)
    assert netlab.coverage(unlike)["count"].tolist() == [1]


def test_frames_that_only_one_has_are_kept() -> None:
    both = netlab.merge(of("a", connections=connections("x")), of("b", nat=CONNTRACK.empty()))

    assert {name: list(frame["host"]) for name, frame in both.items()} == {"connections": ["a"], "nat": []}


def test_a_merged_recording_is_saved_and_loaded_with_its_hosts(tmp_path: Path) -> None:
    both = netlab.merge(of("a", connections=connections("x", lost=1)), of("b", connections=connections("y")))

    back = bundle.load(bundle.save(tmp_path / "both.netlab", both))

    assert_frame_equal(back["connections"], both["connections"])
    assert back["connections"].attrs == both["connections"].attrs
    assert back.origins == both.origins
    more = netlab.merge(back, of("c", connections=connections("z")))["connections"]
    assert more["host"].tolist() == ["a", "b", "c"]
    assert netlab.coverage(more)["detail"].tolist() == ["a: full"]


def test_loopback_of_two_hosts_is_two_nodes_in_the_graph() -> None:
    both = netlab.merge(of("a", connections=connections("x")), of("b", connections=connections("x")))

    graph = netlab.connection_graph(both["connections"])

    assert sorted(host for _, host in graph.nodes(data="host")) == ["a", "a", "b", "b"]


def test_requests_of_two_hosts_keep_the_server_that_they_name() -> None:
    asked = REQUESTS.frame({"host": ["shop.example"], "resource": ["/a"]})

    both = netlab.merge(of("web1", requests=asked), of("web2", requests=asked))["requests"]

    assert both["on_host"].tolist() == ["web1", "web2"]
    assert both["host"].tolist() == ["shop.example"] * 2
    assert netlab.request_stats(both, by="on_host")["requests"].tolist() == [1, 1]


def test_hops_keep_the_host_that_probed() -> None:
    hops = HOPS.frame({"host": ["elsewhere", None], "ttl": [1, 2]})

    both = netlab.merge(of("a", hops=hops), of("b", hops=HOPS.frame({"ttl": [1]})))

    assert both["hops"]["host"].tolist() == ["elsewhere", "a", "b"]


def test_an_older_layout_is_merged_with_a_newer_one() -> None:
    both = netlab.merge(VERSION_1, of("b", connections=connections("y")))

    assert both["connections"]["host"].tolist() == ["db1", "db1", "b"]
    assert set(both) == {"connections", "hops"}


def test_one_name_for_two_kinds_is_refused() -> None:
    with pytest.raises(BadInput, match="'x' is connections in one recording and conntrack"):
        netlab.merge(of("a", x=connections("y")), of("b", x=CONNTRACK.empty()))


def test_one_recording_given_twice_is_refused() -> None:
    with pytest.raises(BadInput, match="recordings 1 and 2 are both what db1 recorded"):
        netlab.merge(VERSION_1, VERSION_1)


@pytest.mark.parametrize("given", [(), (VERSION_1,), (VERSION_1, 5)])
def test_what_cannot_be_merged_is_refused(given: tuple[object, ...]) -> None:
    with pytest.raises(BadInput):
        netlab.merge(*given)
