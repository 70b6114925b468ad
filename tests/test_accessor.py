"""`frame.netlab`, on frames of each kind and on frames that are not netlab's."""

from __future__ import annotations

import networkx as nx
import pandas as pd
import pytest

import netlab
from netlab import schemas
from netlab.errors import BadInput
from netlab.frames import Gap, Missing


@pytest.fixture
def connections() -> pd.DataFrame:
    data = {
        "protocol": pd.Categorical(["tcp", "tcp"]),
        "process": ["curl", "curl"],
        "remote_address": ["192.0.2.1", "192.0.2.2"],
        "remote_port": [80, 80],
        "opened_at": [10**18, 10**18 + 5],
        "error": pd.Categorical(["ECONNREFUSED", None]),
    }
    return schemas.CONNECTIONS.frame(data, [Missing("rtos", Gap.UNAVAILABLE, None, "an old kernel")])


@pytest.fixture
def hops() -> pd.DataFrame:
    return netlab.traceroute("127.0.0.1")


def test_failures_are_the_rows_with_an_error(connections: pd.DataFrame) -> None:
    assert connections.netlab.failures()["remote_address"].tolist() == ["192.0.2.1"]


def test_coverage_is_that_of_the_frame(connections: pd.DataFrame) -> None:
    assert connections.netlab.coverage["what"].tolist() == ["rtos"]


def test_what_is_left_of_a_frame_can_be_asked_too(connections: pd.DataFrame) -> None:
    some = connections[connections["remote_port"] == 80].head(1)

    assert repr(some.netlab) == "<netlab connections frame: 1 rows>"


@pytest.mark.privileged
def test_hops_have_a_picture_and_a_graph(hops: pd.DataFrame) -> None:
    assert hops.netlab.plot().axes
    assert list(hops.netlab.graph().edges) == list(netlab.path_graph(hops).edges)


def test_connections_have_a_picture_and_a_graph(connections: pd.DataFrame) -> None:
    assert connections.netlab.plot().axes
    assert isinstance(connections.netlab.graph(), nx.DiGraph)


def test_lookups_have_a_picture() -> None:
    lookups = schemas.DNS.frame({"rcode": ["timeout"], "server_address": ["192.0.2.53"]})

    assert lookups.netlab.plot().axes


def test_requests_have_a_picture() -> None:
    requests = schemas.REQUESTS.frame({"operation": ["GET"], "status": ["500"], "outcome": ["answered"]})

    assert requests.netlab.plot().axes


@pytest.mark.parametrize("asked", ["failures", "plot", "graph"])
def test_other_frames_refuse_what_they_have_not(asked: str) -> None:
    with pytest.raises(BadInput, match="doctor frame has no"):
        getattr(schemas.DOCTOR.empty().netlab, asked)()


def test_a_foreign_frame_has_no_netlab() -> None:
    with pytest.raises(AttributeError, match="does not say which kind"):
        _ = pd.DataFrame({"protocol": ["tcp"]}).netlab

    assert not hasattr(pd.DataFrame(), "netlab")


def test_a_frame_that_lost_a_column_says_which(connections: pd.DataFrame) -> None:
    with pytest.raises(AttributeError, match="'process'"):
        _ = connections.drop(columns="process").netlab
