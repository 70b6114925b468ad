"""How an agent begins and ends: its socket, its captures, and what a kill leaves."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest

import netlab
from netlab.agent.client import Host
from netlab.agent.privileges import NEEDED
from netlab.agent.server import listening
from netlab.cli import main
from netlab.kernel.capabilities import effective
from tests.support.agents import COMMAND, running
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


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_after_a_restart_a_client_begins_anew_and_counts_nothing_twice(
    tmp_path: Path, end: signal.Signals
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        client.connect(server.getsockname())
        accepted, _ = server.accept()

        def sent(host: Host, count: int) -> int:
            client.sendall(bytes(count))
            received = 0
            while received < count:
                received += len(accepted.recv(1 << 16))
            delta = host.delta("client")
            mine = delta["local_port"] == client.getsockname()[1]
            return int(delta.loc[mine, "delta_bytes_sent"].sum())

        with accepted, running(tmp_path) as (path, process), netlab.connect(path) as host:
            before = host.register("client")
            assert sent(host, 1000) == 1000
            process.send_signal(end)
            process.wait(30)
            with running(tmp_path):
                with pytest.raises(netlab.CaptureError, match="no client 'client' is registered"):
                    host.delta("client")
                assert host.register("client") != before
                assert sent(host, 50) == 50


def test_an_agent_serves_the_socket_that_systemd_passes_and_ends_when_there_is_nothing_to_do(
    tmp_path: Path,
) -> None:
    path = tmp_path / "passed.sock"
    passing = 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@" 3<&0 </dev/null'
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        command = ["sh", "-c", passing, "sh", *COMMAND, "--exit-idle-s", "1"]
        process = subprocess.Popen(command, stdin=server, stderr=subprocess.DEVNULL)
        with process, netlab.connect(path) as host:
            assert host.health()["status"] == "ok"
            assert process.wait(60) == 0

    assert path.is_socket()  # it is systemd's to remove


@pytest.mark.parametrize(
    "where", ["/proc/agent.sock", "/dev/null/agent.sock", "/run/" + 200 * "a", "/run/" + 300 * "a" + "/b"]
)
def test_a_place_where_no_socket_can_be_is_refused_in_words(where: str) -> None:
    with (
        pytest.raises(netlab.BadInput, match=r"cannot be a socket: .*at most 107 bytes"),
        listening(Path(where), None),
    ):
        pass


def test_captures_that_nobody_reads_end(tmp_path: Path) -> None:
    with running(tmp_path, "--idle-s", "1") as (path, process), netlab.connect(path) as host:
        cap = host.capture(port=1, protocol="tcp").start()
        programs = held_by(process.pid)
        assert programs
        wait_until(lambda: not alive(programs))

        with pytest.raises(netlab.CaptureError, match="there is no capture"):
            cap.connections()


def test_an_agent_keeps_only_the_capabilities_of_its_table(tmp_path: Path) -> None:
    with running(tmp_path) as (_, process):
        shown = subprocess.run(["getpcaps", str(process.pid)], capture_output=True, text=True, check=True)
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")

    held = {name.upper() for name in re.findall(r"cap_\w+", shown.stdout + shown.stderr)}
    assert held == {capability.name for capability in NEEDED} & effective()
    assert "NoNewPrivs:\t1" in status


def test_status_says_what_an_agent_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(tmp_path) as (path, _), netlab.connect(path) as host:
        host.register("client")
        assert main(["agent", "status", "--socket", str(path)]) == 0

    assert "captures: shared (running)" in capsys.readouterr().out


def test_no_agent_is_told_with_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(netlab.CapabilityError, match="Start one as root: netlab agent --group"):
        netlab.connect(tmp_path / "none.sock")
