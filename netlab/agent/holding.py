"""What clients had the agent begin, by name: it ends when nobody asks for it, or for want of memory."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, ClassVar, TypeVar

from netlab.agent import budget
from netlab.agent.problems import RefusedError
from netlab.closing import Closes
from netlab.kernel import heap

_log = logging.getLogger("netlab.agent")
_SWEEP_S = 1.0


@dataclass(slots=True)
class Held(ABC):
    """One thing that runs, what it was asked for, and when somebody last asked for what it saw."""

    kind: ClassVar[str]

    name: str
    options: Mapping[str, Any]
    is_everybodys: bool = field(default=False, kw_only=True)  # then it is nobody's to end
    read_s: float = field(default_factory=time.monotonic, kw_only=True)

    @abstractmethod
    def end(self) -> None:
        """End it, and keep what it saw; safe to call again."""

    @abstractmethod
    def has_ended(self) -> bool:
        """Tell whether it only waits to be read."""

    def is_used(self) -> bool:
        """Tell whether something else that runs needs it."""
        return False

    def is_spared(self) -> bool:
        """Tell whether it goes on when memory is short."""
        return False


H = TypeVar("H", bound=Held)


class Holding(Closes):
    """Holds what runs; the one budget of memory is for all of it.

    Parameters
    ----------
    idle_s
        What nobody asked anything of for so long ends.
    most_bytes
        With more memory in use nothing begins, and what was not read for longest ends.
    """

    def __init__(self, *, idle_s: float = 600.0, most_bytes: int = budget.MOST_BYTES) -> None:
        self.most_bytes = most_bytes
        self.expired = self.shed = 0
        self.starting = threading.RLock()  # who looks whether there is room has it until it is taken
        self._idle_s = idle_s
        self._held: dict[str, Held] = {}
        self._lock = threading.Lock()  # not the other: starting takes a second
        self._closed = threading.Event()
        self._sweeper = threading.Thread(target=self._sweep, name="netlab-agent-holding", daemon=True)
        self._sweeper.start()

    def keep(self, begin: Callable[[], H]) -> H:
        """Begin something and hold it, unless the agent is stopping or has no memory for it."""
        with self.starting:
            if self._closed.is_set():
                raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, "the agent is stopping", wait_s=5)
            used = budget.resident_bytes()
            if used > self.most_bytes:
                raise RefusedError(
                    HTTPStatus.SERVICE_UNAVAILABLE,
                    f"the agent uses {used >> 20} MiB of memory and may use {self.most_bytes >> 20}",
                    fix="End captures, or start it with a larger --memory-mib",
                    wait_s=30,
                )
            held = begin()
            with self._lock:
                self._held[held.name] = held
            return held

    def refuse_more(self, held: Sequence[Held], most: int) -> None:
        """Refuse another beside those that clients *held* already, if too many of these run.

        Of those that have ended as many are kept: who runs a cell again begins a capture each time.
        """
        own = [one for one in held if not one.is_everybodys]
        ended = [one for one in own if one.has_ended()]
        if len(own) - len(ended) >= most:
            raise RefusedError(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"{most} {own[0].kind}s run already",
                fix="Stop one; those that nobody reads end by themselves",
                wait_s=round(self._idle_s),
            )
        if len(ended) >= most:
            self.let_go(min(ended, key=lambda one: one.read_s))

    def read(self, name: str, kind: type[H]) -> H | None:
        """Return what has this name, if there is such, which counts as read by that."""
        with self._lock:
            found = self._held.get(name)
            if not isinstance(found, kind):
                return None
            found.read_s = time.monotonic()
            return found

    def get(self, name: str, kind: type[H]) -> H:
        """Return what has this name, which counts as read by that."""
        found = self.read(name, kind)
        if found is None:
            raise RefusedError(
                HTTPStatus.NOT_FOUND,
                f"there is no {kind.kind} {name[:64]!r}",
                fix=f"It was ended, nobody read it for {self._idle_s:g} s, the agent began anew, "
                "it made room for others, or memory ran out (netlab_captures_shed); begin another",
            )
        return found

    def own(self, name: str, kind: type[H]) -> H:
        """Return what has this name, for who wants to interrupt or end it: not what is everybody's."""
        found = self.get(name, kind)
        if found.is_everybodys:
            raise RefusedError(
                HTTPStatus.CONFLICT,
                f"this {kind.kind} is everybody's, and other clients count on it",
                fix="POST makes one to pause, stop and delete",
            )
        return found

    def all(self, kind: type[H]) -> list[H]:
        """Return what runs, which does not count as reading."""
        with self._lock:
            return [held for held in self._held.values() if isinstance(held, kind)]

    def is_empty(self) -> bool:
        """Tell whether nothing runs."""
        return not self._everything()

    def let_go(self, held: Held) -> None:
        """End it and forget what it saw."""
        with self._lock:
            self._held.pop(held.name, None)
        held.end()

    def close(self) -> None:
        """End everything; safe to call again."""
        self._closed.set()
        self._sweeper.join()
        with self.starting:  # what is just starting is ended, too
            for held in reversed(self._everything()):  # what uses others was begun after them
                self._let_go_safely(held)

    def _everything(self) -> list[Held]:
        with self._lock:
            return list(self._held.values())

    def _sweep(self) -> None:
        while not self._closed.wait(_SWEEP_S):
            now_s = time.monotonic()
            for held in self._everything():
                if now_s - held.read_s > self._idle_s and not held.is_used():
                    self._let_go_safely(held)
                    self.expired += 1
            self._shed()

    def _let_go_safely(self, held: Held) -> None:
        """End it; what that raises has nobody to be told, and must not keep the others."""
        try:
            self.let_go(held)
        except Exception:  # noqa: BLE001 - whatever it is
            _log.exception("%s %s did not end in order", held.kind, held.name)

    def _shed(self) -> None:
        """End what was not read for longest, if there is too little memory for all."""
        others = [held for held in self._everything() if not held.is_spared()]
        if not others or budget.resident_bytes() <= self.most_bytes:
            return
        heap.trim()
        if budget.resident_bytes() > self.most_bytes:
            least = min(others, key=lambda held: held.read_s)
            self._let_go_safely(least)
            self.shed += 1
            _log.warning("%s %s ended for want of memory", least.kind, least.name)
