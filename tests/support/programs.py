"""An eBPF program to try; which ones a process holds, and which there are; what the kernel does later."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from netlab.kernel import bpf
from netlab.tracer.filters import Filter
from netlab.tracer.layout import ATTEMPT, NUMBERS
from netlab.tracer.limits import Limits
from netlab.tracer.macros import kernel_macros


def tcp_program(
    layout: np.dtype[np.void] = ATTEMPT,
    numbers: Mapping[str, int] = NUMBERS,
    max_open: int = 1024,
    **settings: str,
) -> bpf.Program:
    """Compile bpf/tcp.c as *settings* say, with a small map of what is open."""
    usual = Filter().macros() | kernel_macros()
    sizes, layouts = Limits(max_open=max_open).sizes(), {"netlab_attempt": layout}
    return bpf.Program("tcp", settings=usual | settings, layouts=layouts, numbers=numbers, sizes=sizes)


def held_by(pid: int) -> set[int]:
    """Return the ids of the programs that descriptors of a process stand for, links too."""
    ids = set()
    for file in Path(f"/proc/{pid}/fdinfo").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since
            lines = file.read_text(encoding="ascii").splitlines()
            ids |= {int(line.split()[1]) for line in lines if line.startswith("prog_id:")}
    return ids


def alive(ids: set[int]) -> set[int]:
    """Return those that the kernel still has."""
    run = subprocess.run(["bpftool", "-j", "prog", "list"], capture_output=True, text=True, check=True)
    return ids & {program["id"] for program in json.loads(run.stdout)}


def wait_until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)
