"""One agent for the tests of a module, as `netlab agent` runs it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import netlab
from netlab.agent.client import Host
from tests.support.agents import opened, running


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yield the socket of an agent that serves root and the group nogroup."""
    place = tmp_path_factory.mktemp("agent")
    with running(place, "--group", "nogroup") as (path, _):
        yield path
    assert "Traceback" not in (place / "agent.log").read_text(encoding="utf-8")


@pytest.fixture
def host(agent: Path) -> Iterator[Host]:
    """Yield a client of the agent."""
    with netlab.connect(agent) as connected:
        yield connected


@pytest.fixture
def reachable(tmp_path: Path) -> Path:
    """A directory that everybody can look into, as /run is."""
    return opened(tmp_path)
