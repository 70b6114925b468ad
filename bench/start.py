"""What the start of a capture is made of, in processes of their own: nothing is imported before.

First with the programs to compile, then with those that an earlier capture has left in the cache.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import textwrap

from netlab.kernel import btf

RUNS = 5

# Each part is timed where it is called; what is within another part does not count there too.
_SCRIPT = """
    import functools, json, time
    begun = time.perf_counter()
    spent = dict.fromkeys(["import", "header tree", "compile", "load", "attach", "first snapshot"], 0.0)
    stack = []

    def timed(part, owner, name):
        called = getattr(owner, name)
        @functools.wraps(called)
        def wrapper(*arguments, **options):
            start = time.perf_counter()
            stack.append(0.0)
            try:
                return called(*arguments, **options)
            finally:
                whole = time.perf_counter() - start
                spent[part] += whole - stack.pop()
                if stack:
                    stack[-1] += whole
        setattr(owner, name, wrapper)

    import netlab, netlab.tracer.capture, netlab.tracer.session
    from netlab.kernel import bpf, btf, compiler, objects
    from netlab.tracer import snapshot
    spent["import"] = time.perf_counter() - begun
    timed("header tree", btf, "header_tree")
    timed("import", compiler, "load_bcc")
    timed("compile", objects, "kept")
    timed("load", objects.Loaded, "load")
    timed("attach", bpf.Program, "attach_raw_tracepoint")
    timed("attach", bpf.Program, "attach_cgroup")
    timed("first snapshot", snapshot, "take")
    capture = netlab.capture()
    capture.start()
    spent["the rest"] = time.perf_counter() - begun - sum(spent.values())
    print(json.dumps(spent))
    capture.stop()
"""


def _parts(bytecode: str) -> dict[str, float]:
    environment = os.environ | {"PYTHONPYCACHEPREFIX": bytecode}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-c", textwrap.dedent(_SCRIPT)]
    run = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment)
    spent: dict[str, float] = json.loads(run.stdout)
    return spent


def measure() -> list[tuple[str, float, str]]:
    with tempfile.TemporaryDirectory() as bytecode:  # pip compiles what it installs; a checkout may have none
        _parts(bytecode)  # makes that, and the header tree, once for each kernel build
        return [
            *_measured("first start", bytecode, compiled=True),
            *_measured("later start", bytecode, compiled=False),
        ]


def _measured(which: str, bytecode: str, *, compiled: bool) -> list[tuple[str, float, str]]:
    kept, runs = btf.header_tree().parent / "objects", []
    for _ in range(RUNS):
        if compiled:
            shutil.rmtree(kept)
        runs.append(_parts(bytecode))
    parts = {part: statistics.median(run[part] for run in runs) for part in runs[0]}
    whole = sum(parts.values())
    return [
        (f"{which} of a capture / its target of 1.0 s", whole, f"{whole:.2f} s; medians of {RUNS} processes"),
        *(
            (f"{which} of a capture: {part} / whole", seconds / whole, f"{1000 * seconds:.0f} ms")
            for part, seconds in parts.items()
        ),
    ]


if __name__ == "__main__":
    print(*measure(), sep="\n")
