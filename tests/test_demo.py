"""The main job from end to end, and the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from programs import alive, held_by, wait_until

import netlab

RUN = [sys.executable, "-c", "import sys; from netlab.cli import main; sys.exit(main())"]


def netlab_command(*arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*RUN, *arguments], capture_output=True, text=True, check=False, timeout=timeout)


def namespaces_of(process: subprocess.Popen[str]) -> list[str]:
    run = subprocess.run(["ip", "-j", "netns", "list"], capture_output=True, text=True, check=True)
    names = [entry["name"] for entry in json.loads(run.stdout or "[]")]
    return [name for name in names if name.startswith(f"netlab-{process.pid}-")]


@pytest.mark.privileged
def test_the_demo_holds_its_claims_and_writes_its_files(tmp_path: Path) -> None:
    run = netlab_command("demo", "--output", str(tmp_path))

    assert run.returncode == 0, run.stderr
    assert "NOT" not in run.stdout
    for title in ("Connection attempts (14)", "Failures (4)", "Translated on the way (14)", "Paths (8)"):
        assert title in run.stdout
    assert {path.name for path in tmp_path.iterdir()} == {
        "timeline.png",
        "hops.png",
        "path.png",
        "connections.parquet",
        "nat.parquet",
        "hops.parquet",
        "demo.netlab",
        "01_first_look.html",
    }
    assert len(pd.read_parquet(tmp_path / "connections.parquet")) == 14
    assert list(netlab.load(tmp_path / "demo.netlab")) == ["connections", "nat", "hops"]


@pytest.mark.privileged
def test_the_demo_on_this_host_traces_what_it_is_told(tmp_path: Path) -> None:
    arguments = ["--here", "--duration-s", "0.5", "--target", "127.0.0.1", "--output", str(tmp_path)]

    run = netlab_command("demo", *arguments)

    assert run.returncode == 0, run.stderr
    assert "Paths (2)" in run.stdout
    assert "127.0.0.1" in run.stdout


@pytest.mark.privileged
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_demo_ended_in_the_middle_leaves_nothing_behind(ending: signal.Signals, tmp_path: Path) -> None:
    with subprocess.Popen(
        [*RUN, "demo", "--output", str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as demo:
        wait_until(lambda: held_by(demo.pid) and namespaces_of(demo))
        held = held_by(demo.pid)
        demo.send_signal(ending)
        _, errors = demo.communicate(timeout=60)

    wait_until(lambda: not namespaces_of(demo) and not alive(held))
    assert demo.returncode == (130 if ending == signal.SIGINT else -ending)
    assert ("interrupted" in errors) == (ending == signal.SIGINT)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["traceroute", "no-such-host.invalid"], "no-such-host.invalid"),
        (["traceroute", "127.0.0.1", "--port", "70000"], "port 70000"),
        (["traceroute", "127.0.0.1", "--max-ttl", "0"], "max_ttl 0"),
        (["traceroute", "127.0.0.1", "--protocol", "tpc"], "Did you mean 'tcp'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments: list[str], words: str) -> None:
    run = netlab_command(*arguments)

    assert run.returncode == 2
    assert words in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1


@pytest.mark.privileged
def test_the_wheel_has_the_programs_and_the_notebooks(tmp_path: Path) -> None:
    root = Path(__file__).parent.parent
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(tmp_path),
        str(root),
    ]
    subprocess.run(command, check=True, timeout=300, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    listing = subprocess.run(
        [sys.executable, "-m", "zipfile", "-l", str(next(tmp_path.glob("*.whl")))],
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert "netlab/_bpf/tcp.c" in listing
    assert "netlab/_notebooks/01_first_look.ipynb" in listing
    assert "netlab/py.typed" in listing
