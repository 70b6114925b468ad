"""What captures refuse, before anything is attached."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

import netlab


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"port": 70_000}, "port 70000"),
        ({"port": 0}, "port 0"),
        ({"port": []}, "empty filter"),
        ({"process": ""}, "not a process name"),
        ({"pid": -1}, "pid -1"),
        ({"duration_s": 0}, "duration_s 0"),
        ({"duration_s": "long"}, "duration_s 'long'"),
        ({"duration_s": 1e12}, "duration_s 1000000000000.0"),
        ({"duration_s": float("inf")}, "duration_s inf"),
        ({"mode": "poll", "poll_every_s": 1e12}, "poll_every_s 1000000000000.0"),
        ({"max_open": 0}, "max_open 0"),
        ({"backfill": "no"}, "backfill 'no' is neither True nor False"),
        ({"drops": 1}, "drops 1 is neither True nor False"),
        ({"prot": 443}, "Did you mean 'port'"),
        ({"protocols": "dns", "port": 443}, "leaves out every port of DNS"),
        ({"protocols": "dns", "dns_ports": []}, "dns_ports is empty"),
        ({"protocols": "dns", "dns_ports": 0}, "dns_ports 0"),
        ({"protocols": "dns", "dns_timeout_s": 0}, "dns_timeout_s 0"),
        ({"protocols": "dns", "mask_names": "*.corp"}, "mask_names"),
    ],
)
def test_an_option_that_cannot_be_right_is_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(netlab.BadInput, match=words):
        netlab.capture(**options)  # type: ignore[arg-type]


@pytest.mark.privileged
def test_without_privileges_a_capture_fails_at_once_with_the_reason_and_the_fix() -> None:
    script = (
        "import netlab\ntry:\n    netlab.capture()\nexcept netlab.CapabilityError as error:\n    print(error)"
    )
    drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]

    run = subprocess.run(
        [*drop, sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )

    assert "CAP_BPF" in run.stdout
    assert "sudo" in run.stdout


def test_the_id_of_a_thread_is_refused_in_favour_of_its_process() -> None:
    begun, over = threading.Event(), threading.Event()
    ids: list[int] = []

    def run() -> None:
        ids.append(threading.get_native_id())
        begun.set()
        over.wait()

    thread = threading.Thread(target=run)
    thread.start()
    begun.wait()
    try:
        with pytest.raises(netlab.BadInput, match=f"pid {ids[0]} is a thread of process {os.getpid()}"):
            netlab.capture(pid=ids[0])
    finally:
        over.set()
        thread.join()
