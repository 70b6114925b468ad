"""How much memory the agent has, and may have."""

from __future__ import annotations

import os
from pathlib import Path

MOST_BYTES = 1536 << 20  # the unit's MemoryMax is above it
_STATM = Path("/proc/self/statm")  # proc_pid_statm(5): in pages, the second is what is resident


def resident_bytes() -> int:
    """Return how much of this process is in memory."""
    return int(_STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
