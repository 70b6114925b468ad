"""A capture works with the three capabilities that its documentation names, whatever else root has."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.privileged
ONLY = ["setpriv", "--bounding-set=-all,+bpf,+perfmon,+net_admin", "--inh-caps=-all", sys.executable, "-c"]


@pytest.mark.parametrize("options", ["", "drops=True, events=True"])
def test_three_capabilities_are_enough_to_see_a_refused_connection(options: str) -> None:
    script = f"""
import socket, netlab
with socket.socket() as reserved, netlab.capture({options}) as cap:
    reserved.bind(("127.0.0.1", 0))
    with socket.socket() as client:
        client.connect_ex(reserved.getsockname())
    _, port = reserved.getsockname()
failed = cap.failures()
print(failed.loc[failed["remote_port"] == port, "error"].tolist())
"""
    run = subprocess.run([*ONLY, script], capture_output=True, text=True, check=False, timeout=120)

    assert run.stdout.strip() == "['ECONNREFUSED']", run.stderr
