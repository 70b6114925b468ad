"""A capture in a process that has no descriptor left for a while: what it reads by goes on."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Each reader needs a descriptor now and then: to list sockets, and to ask for the timeouts of UDP flows.
SCRIPT = """
import resource, socket, sys, threading, time
import netlab

mode = sys.argv[1]
with netlab.capture(mode=mode, protocol="udp", poll_every_s=0.05, nat=False) as capture:
    (reader,) = (one for one in threading.enumerate() if one.name in {"netlab-live", "netlab-poll"})
    with socket.socket(type=socket.SOCK_DGRAM) as one, socket.socket(type=socket.SOCK_DGRAM) as two:
        one.bind(("127.0.0.1", 0))
        two.connect(one.getsockname())
        _, hard = limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        two.send(b"x")
        until = time.monotonic() + 30
        while reader.is_alive() and not capture._watch._failed and time.monotonic() < until:
            time.sleep(0.1)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        print(reader.is_alive(), any("Too many open files" in gap.detail for gap in capture.losses()))
"""


@pytest.mark.privileged
@pytest.mark.parametrize("mode", ["ebpf", "poll"])
def test_a_reader_outlives_want_of_descriptors_and_says_so(mode: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, mode], capture_output=True, text=True, check=True, timeout=120
    )

    assert run.stdout == "True True\n"
