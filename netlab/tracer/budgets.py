"""How much of each connection the programs hand up: what is understood, and nothing else."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from netlab.kernel.bpf import Program
from netlab.protocols.dialog import Dialog, passes_bodies
from netlab.tracer.layout import CONVERSATION, PASSAGE

GO_ON, HEADS, IGNORE = 0xFFFFFFFF, 0xFFFFFFFE, 0
JUDGED = 1 << 16  # places in the table of bpf/payload.c, 8 bytes each
_PASSES = 3
budget_numbers = {"NETLAB_GO_ON": GO_ON, "NETLAB_HEADS": HEADS, "NETLAB_PASSES": _PASSES}


class Budgets(Protocol):
    """What programs were told of connections, by cookie."""

    def going_on(self, dialog: Dialog) -> int:
        """Return what to tell of a connection that *dialog* reads."""

    def set(self, cookie: int, budget: int) -> None:
        """Tell them."""

    def passing(self, cookie: int, *, local: bool, sequence: int, size: int) -> None:
        """Tell them what the *local* end, or the other, says next is not needed; 0: all is needed again."""

    def ends(self, cookie: int) -> np.void | None:
        """Return the CONVERSATION that a blank piece is of; None: it is forgotten."""


class PacketBudgets:
    """Those of bpf/payload.c, which looks into a table, and then into the map of conversations."""

    def __init__(self, program: Program) -> None:
        self._conversations = program.map("netlab_conversations", "u8", CONVERSATION)
        self._judged = program.map("netlab_judged", "u4", "u8")
        self._passages = program.map("netlab_passages", "u8", PASSAGE)

    def going_on(self, dialog: Dialog) -> int:
        """Return that all is needed, or no bodies."""
        return HEADS if passes_bodies(dialog) else GO_ON

    def set(self, cookie: int, budget: int) -> None:
        """Tell the programs; what they have forgotten begins anew, and is judged again."""
        told = self._conversations.get(cookie)
        if told is not None:
            told["budget"] = budget
            self._conversations.set(cookie, told)
        self._judged.set(cookie % JUDGED, 0)

    def passing(self, cookie: int, *, local: bool, sequence: int, size: int) -> None:
        """Tell the programs to hand up none of a body before its end."""
        if size:
            self._passages.set(cookie, np.array([(sequence, size, local)], PASSAGE)[0])
        self._judged.set(cookie % JUDGED, cookie << 2 | _PASSES if size else 0)

    def ends(self, cookie: int) -> np.void | None:
        """Return what the programs know of the ends; None: the next packet begins the conversation anew."""
        known = self._conversations.get(cookie)
        if known is None:
            self._judged.set(cookie % JUDGED, 0)
        return known


class ClearBudgets:
    """Those of bpf/tls.c, whose pieces always have their ends."""

    def __init__(self, program: Program) -> None:
        self._verdicts = program.map("netlab_verdicts", "u8", "u4")

    def going_on(self, dialog: Dialog) -> int:
        """Return that all is needed."""
        del dialog
        return GO_ON

    def set(self, cookie: int, budget: int) -> None:
        """Tell the programs."""
        self._verdicts.set(cookie, budget)

    def passing(self, cookie: int, *, local: bool, sequence: int, size: int) -> None:
        """Tell nothing: of a call only the beginning is handed up."""

    def ends(self, cookie: int) -> None:
        """Return that nothing is known here."""
