"""netlab.doctor(): true of this process, and of one without privileges."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pandas as pd
import pytest

import netlab
from netlab.schemas import DOCTOR


def without_privileges() -> pd.DataFrame:
    script = "import netlab; print(netlab.doctor().to_json(orient='records'))"
    run = subprocess.run(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return pd.DataFrame(json.loads(run.stdout)).set_index("capability")


def test_the_frame_has_the_documented_columns() -> None:
    assert netlab.doctor().columns.tolist() == DOCTOR.names


def test_every_state_is_yes_no_or_unknown_and_has_a_reason() -> None:
    found = netlab.doctor()

    assert set(found["state"]) <= {"yes", "no", "unknown"}
    assert found["why"].notna().all()


@pytest.mark.privileged
def test_root_here_can_do_all_that_the_tests_do() -> None:
    state = netlab.doctor().set_index("capability")["state"]
    needed = [
        "list open sockets",
        "follow connection attempts (eBPF)",
        "join by socket cookie (cgroup v2)",
        "list tracked connections and NAT",
        "trace paths (raw sockets)",
        "build a practice network",
        "draw plots (matplotlib)",
    ]

    assert state[needed].eq("yes").all()


@pytest.mark.privileged
def test_without_privileges_each_no_has_a_fix() -> None:
    found = without_privileges()
    refused = found[(found["state"] == "no") & ~found.index.str.startswith("kprobes")]

    assert found.loc["list open sockets", "state"] == "yes"
    assert {"follow connection attempts (eBPF)", "trace paths (raw sockets)"} <= set(refused.index)
    assert refused["fix"].notna().all()


@pytest.mark.privileged
def test_connections_are_listed_without_privileges() -> None:
    script = "import netlab; print((netlab.connections(listening=True)['state'] == 'listen').any())"

    with socket.create_server(("127.0.0.1", 0)):
        run = subprocess.run(
            ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )

    assert run.stdout.strip() == "True"
