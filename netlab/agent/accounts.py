"""The accounts of the clients of one capture: what an answer told that got lost, the next one tells."""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass, field

import pandas as pd

from netlab.agent.models import Account
from netlab.errors import CaptureError
from netlab.tracer.session import Capture


@dataclass(frozen=True, slots=True)
class _Answers:
    """The number of a client's last answer, and of the one before whose changes it goes on from."""

    before: int
    last: int


@dataclass
class Accounts:
    """Numbers the answers to each client.

    A client says which answer it got last. If that is the one which the last goes on from, the last got lost
    on its way: its changes are told again, with those since, however often. Any other number is of somebody
    else who asks under the same name.

    `generation` tells this capture from those before: with another the accounts began anew.
    """

    capture: Capture
    generation: str = field(default_factory=lambda: secrets.token_hex(8))
    _answers: dict[str, _Answers] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def register(self, client: str) -> Account:
        """Begin to keep account for *client*; of one that is known, say how far it is."""
        with self._lock:
            self.capture.register(client)
            self._answers.setdefault(client, _Answers(0, 0))
            return self._account(client)

    def delta(self, client: str, *, after: int | None) -> tuple[pd.DataFrame, Account]:
        """Return what changed since answer *after*, since the last one if that is None.

        Raises
        ------
        CaptureError
            If the client has not registered, or somebody else has asked under its name.
        """
        with self._lock:
            known = self._answers.get(client, _Answers(0, after or 0))  # a stranger the capture refuses
            if after is not None and after not in {known.last, known.before}:
                raise CaptureError(
                    f"client {client!r} got answer {known.last} last, not {after}",
                    fix="Somebody else asks under this name: register another",
                )
            again = after is not None and after != known.last
            frame = self.capture.delta(client, again=again)
            self._answers[client] = _Answers(known.before if again else known.last, known.last + 1)
            return frame, self._account(client)

    def _account(self, client: str) -> Account:
        return Account(client=client, generation=self.generation, answer=self._answers[client].last)
