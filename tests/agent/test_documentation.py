"""What the documentation shows of the agent works, and its unit file allows what the agent needs."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

import netlab
import netlab.agent
from netlab.agent.privileges import NEEDED

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "agent.md"
COMMANDS = [line[2:] for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("$ curl")]
UNIT = Path(netlab.agent.__file__).parent / "netlab-agent.service"


@pytest.mark.privileged
def test_every_command_is_answered(agent: Path) -> None:
    for command in COMMANDS:
        words = shlex.split(command.replace("/run/netlab/agent.sock", str(agent)))
        subprocess.run([*words, "--fail", "--silent", "--show-error", "--output", "/dev/null"], check=True)
    assert len(COMMANDS) > 5


@pytest.mark.privileged
def test_every_metric_that_the_page_names_is_there(agent: Path) -> None:
    with netlab.connect(agent) as host:
        host.register("metrics")
        names = set(re.findall(r"^# TYPE (netlab_\w+)", host.ask("GET", "/metrics").text, re.MULTILINE))
    shown = set(re.findall(r"`(netlab_\w+)", PAGE.read_text(encoding="utf-8")))

    assert shown <= names
    assert len(shown) > 10


def test_the_page_names_each_capability_that_the_agent_keeps() -> None:
    assert set(re.findall(r"`(CAP_\w+)`", PAGE.read_text(encoding="utf-8"))) == {one.name for one in NEEDED}


def test_the_socket_that_systemd_made_stays_when_the_agent_ends() -> None:
    directory = UNIT.with_suffix(".socket").read_text(encoding="utf-8")
    service = UNIT.read_text(encoding="utf-8")

    assert "ListenStream=/run/netlab/" in directory
    assert "RuntimeDirectory=netlab\nRuntimeDirectoryPreserve=yes\n" in service  # else it is removed with it


def test_the_unit_grants_each_capability_that_the_agent_keeps() -> None:
    granted = re.search(r"^CapabilityBoundingSet=(.*)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE)
    assert granted is not None
    assert {one.name for one in NEEDED} <= set(granted[1].split())
