from __future__ import annotations

import subprocess
import sys
import textwrap

# Ten thousand blocks of 10 kB, too small for mappings of their own, of which only the last one stays in use.
SCRIPT = """
    import os, resource
    from netlab.kernel import heap
    def resident():
        return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
    blocks = [bytearray(10_000) for _ in range(10_000)]
    last = blocks.pop()
    blocks.clear()
    kept = resident()
    heap.trim()
    print(kept - resident())
"""


def test_free_memory_below_what_is_in_use_is_given_back() -> None:
    given = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT)], check=True, capture_output=True, text=True
    )

    assert int(given.stdout) > 50_000_000
