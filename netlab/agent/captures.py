"""The captures that the agent runs: those for everybody, and those that clients ask for."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from netlab.agent.accounts import Accounts
from netlab.agent.holding import Held, Holding
from netlab.tracer.branch import Branched, suffices
from netlab.tracer.capture import capture
from netlab.tracer.life import State
from netlab.tracer.readers import PROTOCOLS
from netlab.tracer.session import Capture

SHARED, SPEAKING = "shared", "speaking"
_MOST = 8  # at a time, besides those that everybody shares


@dataclass(slots=True)
class HeldCapture(Held):
    """One capture, and the accounts of its clients."""

    kind = "capture"

    capture: Capture
    accounts: Accounts
    used: Callable[[], bool]

    def end(self) -> None:
        """Stop it."""
        self.capture.stop()

    def has_ended(self) -> bool:
        """Tell whether it was stopped, or its time is over."""
        return self.capture.state is State.STOPPED

    def is_used(self) -> bool:
        """Tell whether others run over its programs."""
        return self.used()

    def is_spared(self) -> bool:
        """Tell whether it is what branches are of."""
        return self.name == SHARED


class Captures:
    """Begins captures and finds them by name.

    Parameters
    ----------
    holding
        Where they are held.
    """

    def __init__(self, holding: Holding) -> None:
        self.holding = holding

    def shared(self) -> HeldCapture:
        """Return the capture that everybody shares; it starts with the first who asks."""
        return self._everybodys(SHARED, {})

    def speaking(self) -> HeldCapture:
        """Return the capture that reads for everybody what connections say; it starts with who first asks."""
        return self._everybodys(SPEAKING, {"protocols": PROTOCOLS})

    def create(self, options: Mapping[str, Any]) -> HeldCapture:
        """Start a capture with these options of `netlab.capture()`.

        One that the programs of the shared capture suffice for is a branch of that, and starts at once.
        """
        with self.holding.starting:
            self.holding.refuse_more(self.all(), _MOST)
            asked = capture(**options)
            if asked.options.mode == "ebpf" and suffices(capture().options, asked.options):
                asked = Branched(asked.options, self.shared().capture.base())
            return self._keep(secrets.token_hex(8), asked, options)

    def get(self, name: str) -> HeldCapture:
        """Return the capture of this name, which counts as read by that."""
        return self.holding.get(name, HeldCapture)

    def own(self, name: str) -> HeldCapture:
        """Return the capture of this name, for who wants to interrupt or end it: not what is everybody's."""
        return self.holding.own(name, HeldCapture)

    def all(self) -> list[HeldCapture]:
        """Return what runs, which does not count as reading."""
        return self.holding.all(HeldCapture)

    def _everybodys(self, name: str, options: Mapping[str, Any]) -> HeldCapture:
        with self.holding.starting:
            found = self.holding.read(name, HeldCapture)
            return found or self._keep(name, capture(**options), options, is_everybodys=True)

    def _keep(
        self, name: str, new: Capture, options: Mapping[str, Any], *, is_everybodys: bool = False
    ) -> HeldCapture:
        used = self._has_branches if name == SHARED else bool

        def begin() -> HeldCapture:
            new.start()
            return HeldCapture(name, options, new, Accounts(new), used, is_everybodys=is_everybodys)

        return self.holding.keep(begin)

    def _has_branches(self) -> bool:
        running = (one.capture for one in self.all() if one.capture.state is not State.STOPPED)
        return any(isinstance(capture, Branched) for capture in running)
