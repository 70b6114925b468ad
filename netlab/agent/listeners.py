"""The listeners for conntrack entries that the agent runs for clients."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from netlab.agent.holding import Held, Holding
from netlab.kernel.ctevents import ConntrackEvents, conntrack_events


@dataclass(slots=True)
class HeldListener(Held):
    """One listener."""

    kind = "listener"

    events: ConntrackEvents
    is_closed: bool = False

    def end(self) -> None:
        """Stop listening; what was heard can be read as long as it is held."""
        self.is_closed = True
        self.events.close()

    def has_ended(self) -> bool:
        """Tell whether it listens no more."""
        return self.is_closed


class Listeners:
    """Begins listeners and finds them by name, at most *most* at a time."""

    def __init__(self, holding: Holding, *, most: int = 4) -> None:
        self.holding, self._most = holding, most

    def create(self, options: Mapping[str, Any]) -> HeldListener:
        """Begin to listen with these options of `netlab.conntrack_events()`."""
        with self.holding.starting:
            self.holding.refuse_more(self.all(), self._most)
            name = secrets.token_hex(8)
            return self.holding.keep(lambda: HeldListener(name, options, conntrack_events(**options)))

    def get(self, name: str) -> HeldListener:
        """Return the listener of this name, which counts as read by that."""
        return self.holding.get(name, HeldListener)

    def all(self) -> list[HeldListener]:
        """Return what listens, which does not count as reading."""
        return self.holding.all(HeldListener)
