"""How much of each connection the programs of bpf/payload.c hand up: what is understood, and nothing else."""

from __future__ import annotations

import numpy as np

from netlab.kernel.bpf import Program
from netlab.tracer.layout import CONVERSATION

GO_ON, IGNORE = 0xFFFFFFFF, 0
JUDGED = 1 << 16  # places in the programs' table of what was said here, 8 bytes each


class Budgets:
    """The two maps that the programs look into, the table and then the map of conversations."""

    def __init__(self, program: Program) -> None:
        self._conversations = program.map("netlab_conversations", "u8", CONVERSATION)
        self._judged = program.map("netlab_judged", "u4", "u8")

    def set(self, cookie: int, budget: int) -> None:
        """Tell the programs; what they have forgotten begins anew, and is judged again."""
        told = self._conversations.get(cookie)
        if told is not None:
            told["budget"] = budget
            self._conversations.set(cookie, told)
        self._judged.set(cookie % JUDGED, 0)

    def ends(self, cookie: int) -> np.void | None:
        """Return the CONVERSATION as the programs know it; None: they have forgotten it, and begin anew."""
        known = self._conversations.get(cookie)
        if known is None:
            self._judged.set(cookie % JUDGED, 0)
        return known
