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


STARTS = """
import os, resource
import netlab

with netlab.capture(nat=False):  # what is imported and kept needs no descriptor any more
    pass
free = os.dup(0)
limits = resource.getrlimit(resource.RLIMIT_NOFILE)
refused = 0
for more in range(1, 400, 4):
    capture = netlab.capture(nat=False)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + more, limits[1]))
    try:
        capture.start()
    except netlab.NetlabError:
        refused += 1
    else:
        break
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
capture.stop()
print(capture.state, refused > 5, os.dup(0) - free)
"""


@pytest.mark.privileged
def test_a_start_without_enough_descriptors_is_refused_in_words_and_leaves_none() -> None:
    run = subprocess.run(
        [sys.executable, "-c", STARTS], capture_output=True, text=True, check=True, timeout=120
    )

    assert run.stdout == "stopped True 1\n"
