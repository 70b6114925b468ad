"""How an agent begins and ends: its socket, its captures, and what a kill leaves."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

import netlab
from netlab.agent.privileges import NEEDED
from netlab.cli import main
from netlab.kernel.capabilities import effective
from tests.support.agents import running
from tests.support.programs import alive, held_by, wait_until

pytestmark = [
    pytest.mark.privileged,
    # httpcore leaves the socket of a connection that was refused to the garbage collector.
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
    ),
]


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_an_agent_that_ends_in_mid_capture_leaves_no_program(tmp_path: Path, end: signal.Signals) -> None:
    with running(tmp_path) as (path, process), netlab.connect(path) as host:
        host.register("client")
        programs = held_by(process.pid)
        process.send_signal(end)
        process.wait(30)

        assert programs
        wait_until(lambda: not alive(programs))
        with pytest.raises(netlab.NetlabError, match=r"no agent|nobody answers|ended the connection"):
            host.delta("client")
    assert path.exists() is (end is signal.SIGKILL)


def test_an_agent_takes_the_place_of_one_that_was_killed(tmp_path: Path) -> None:
    with running(tmp_path) as (path, process):
        process.kill()
        process.wait(30)
    with running(tmp_path) as (path, _), netlab.connect(path) as host:
        assert host.health()["status"] == "ok"


def test_an_agent_does_not_take_the_place_of_one_that_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(tmp_path) as (path, _):
        assert main(["agent", "--socket", str(path)]) == 2
        assert "another agent answers" in capsys.readouterr().err
        assert path.is_socket()


def test_a_client_begins_anew_after_a_restart(tmp_path: Path) -> None:
    with running(tmp_path) as (path, _):
        host = netlab.connect(path)
        host.register("client")
    with host, running(tmp_path):
        with pytest.raises(netlab.CaptureError, match="no client 'client' is registered"):
            host.delta("client")
        host.register("client")
        assert host.delta("client").attrs["schema"] == "deltas"


def test_captures_that_nobody_reads_end(tmp_path: Path) -> None:
    with running(tmp_path, "--idle-s", "1") as (path, process), netlab.connect(path) as host:
        cap = host.capture(port=1, protocol="tcp").start()
        programs = held_by(process.pid)
        wait_until(lambda: not alive(programs))

        with pytest.raises(netlab.CaptureError, match="there is no capture"):
            cap.connections()


def test_an_agent_keeps_only_the_capabilities_of_its_table(tmp_path: Path) -> None:
    with running(tmp_path) as (_, process):
        held = effective(Path(f"/proc/{process.pid}/status").read_text(encoding="ascii"))
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")

    assert held == {capability.name for capability in NEEDED} & effective()
    assert "NoNewPrivs:\t1" in status


def test_status_says_what_an_agent_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(tmp_path) as (path, _), netlab.connect(path) as host:
        host.register("client")
        assert main(["agent", "status", "--socket", str(path)]) == 0

    assert "captures: shared (running)" in capsys.readouterr().out


def test_no_agent_is_told_with_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(netlab.CapabilityError, match="Start one as root: netlab agent"):
        netlab.connect(tmp_path / "none.sock")
