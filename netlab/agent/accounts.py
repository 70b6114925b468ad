"""The accounts of the clients of one capture: what an answer told that got lost, the next one tells."""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass, field

import pandas as pd

from netlab.agent.models import Account
from netlab.errors import CaptureError
from netlab.tracer.session import Capture


@dataclass
class Accounts:
    """Numbers the answers to each client.

    A client says which answer it got last. If that is the one before the last, the last got lost on its way:
    its changes are told again, with those since.

    `generation` tells this capture from those before: with another the accounts began anew.
    """

    capture: Capture
    generation: str = field(default_factory=lambda: secrets.token_hex(8))
    _answers: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def register(self, client: str) -> Account:
        """Begin to keep account for *client*; of one that is known, say how far it is."""
        with self._lock:
            self.capture.register(client)
            self._answers.setdefault(client, 0)
            return self._account(client)

    def delta(self, client: str, *, after: int | None) -> tuple[pd.DataFrame, Account]:
        """Return what changed since answer *after*, since the last one if that is None.

        Raises
        ------
        CaptureError
            If the client has not registered, or somebody else has asked under its name.
        """
        with self._lock:
            last = self._answers.get(client, after or 0)  # a stranger the capture refuses
            if after is not None and after not in {last, last - 1}:
                raise CaptureError(
                    f"client {client!r} got answer {last} last, not {after}",
                    fix="Somebody else asks under this name: register another",
                )
            frame = self.capture.delta(client, again=after is not None and after < last)
            self._answers[client] = last + 1
            return frame, self._account(client)

    def _account(self, client: str) -> Account:
        return Account(client=client, generation=self.generation, answer=self._answers[client])
