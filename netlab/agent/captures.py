"""The captures that the agent runs: those for everybody, and those that clients ask for."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from netlab.agent import budget
from netlab.agent.accounts import Accounts
from netlab.agent.problems import RefusedError
from netlab.closing import Closes
from netlab.kernel import heap
from netlab.tracer.branch import Branched, suffices
from netlab.tracer.capture import capture
from netlab.tracer.life import State
from netlab.tracer.readers import PROTOCOLS
from netlab.tracer.session import Capture

_log = logging.getLogger("netlab.agent")
SHARED, SPEAKING = "shared", "speaking"
EVERYBODYS = frozenset({SHARED, SPEAKING})
_SWEEP_S = 1.0


@dataclass(slots=True)
class Held:
    """One capture, what it was asked for, and when somebody last asked for what it saw."""

    name: str
    capture: Capture
    options: Mapping[str, Any]
    accounts: Accounts
    read_s: float = field(default_factory=time.monotonic)


class Captures(Closes):
    """Captures by name; those that nobody reads are stopped and forgotten.

    Parameters
    ----------
    idle_s
        A capture of which nothing was asked for so long ends.
    most
        How many there are at a time, besides those that everybody shares.
    most_bytes
        With more memory in use no capture starts, and the one that was not read for longest ends.
    begin
        What makes a capture from its options.
    """

    def __init__(
        self,
        *,
        idle_s: float = 600.0,
        most: int = 8,
        most_bytes: int = budget.MOST_BYTES,
        begin: Callable[..., Capture] = capture,
    ) -> None:
        self.most_bytes = most_bytes
        self._idle_s, self._most, self._begin = idle_s, most, begin
        self._held: dict[str, Held] = {}
        self._lock = threading.Lock()
        self._starting = threading.Lock()  # not the other: starting takes a second
        self._closed = threading.Event()
        self.expired = self.shed = 0
        self._sweeper = threading.Thread(target=self._sweep, name="netlab-agent-captures", daemon=True)
        self._sweeper.start()

    def shared(self) -> Held:
        """Return the capture that everybody shares; it starts with the first who asks."""
        with self._starting:
            return self._read(SHARED) or self._start(SHARED, {})

    def speaking(self) -> Held:
        """Return the capture that reads for everybody what connections say; it starts with who first asks."""
        with self._starting:
            return self._read(SPEAKING) or self._start(SPEAKING, {"protocols": PROTOCOLS})

    def create(self, options: Mapping[str, Any]) -> Held:
        """Start a capture with these options of `netlab.capture()`.

        What only filters is a branch of the shared capture, and starts at once; the rest has its programs.
        """
        with self._starting:
            if len(self._held.keys() - EVERYBODYS) >= self._most:
                raise RefusedError(
                    HTTPStatus.TOO_MANY_REQUESTS,
                    f"{self._most} captures run already",
                    fix="DELETE /captures/{name} ends one; those that nobody reads end by themselves",
                    wait_s=round(self._idle_s),
                )
            name, asked = secrets.token_hex(8), self._begin(**options)
            if asked.options.mode == "poll" or not suffices(self._begin().options, asked.options):
                return self._keep(name, asked, options)
            shared = self._read(SHARED) or self._start(SHARED, {})
            return self._keep(name, Branched(asked.options, shared.capture.base()), options)

    def own(self, name: str) -> Held:
        """Return the capture of this name, for who wants to interrupt or end it: not what is everybody's."""
        if name in EVERYBODYS:
            raise RefusedError(
                HTTPStatus.CONFLICT,
                "this capture is everybody's, and other clients count on it",
                fix="POST /captures makes one to pause, stop and delete",
            )
        return self.get(name)

    def get(self, name: str) -> Held:
        """Return the capture of this name, which counts as read by that."""
        found = self._read(name)
        if found is None:
            raise RefusedError(
                HTTPStatus.NOT_FOUND,
                f"there is no capture {name[:64]!r}",
                fix=f"It was ended, nobody read it for {self._idle_s:g} s, or the agent ran out of memory "
                "(netlab_captures_shed); POST /captures makes another",
            )
        return found

    def end(self, name: str) -> None:
        """Stop the capture of this name and forget it."""
        self.own(name).capture.stop()
        with self._lock:
            self._held.pop(name, None)

    def all(self) -> list[Held]:
        """Return what runs, which does not count as reading."""
        with self._lock:
            return list(self._held.values())

    def close(self) -> None:
        """Stop every capture; safe to call again."""
        self._closed.set()
        self._sweeper.join()
        with self._starting:  # one that is just starting is ended, too
            for held in reversed(self.all()):  # branches before what they are of
                held.capture.stop()
            self._held.clear()

    def _start(self, name: str, options: Mapping[str, Any]) -> Held:
        return self._keep(name, self._begin(**options), options)

    def _keep(self, name: str, new: Capture, options: Mapping[str, Any]) -> Held:
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
        begun = new.start()
        held = Held(name, begun, options, Accounts(begun))
        with self._lock:
            self._held[name] = held
        return held

    def _read(self, name: str) -> Held | None:
        with self._lock:
            found = self._held.get(name)
            if found is not None:
                found.read_s = time.monotonic()
            return found

    def _sweep(self) -> None:
        while not self._closed.wait(_SWEEP_S):
            now_s = time.monotonic()
            for held in self.all():
                if now_s - held.read_s > self._idle_s and not self._has_branches(held):
                    self._let_go(held)
                    self.expired += 1
            self._shed()

    def _has_branches(self, held: Held) -> bool:
        """Tell whether others run over the programs of this capture."""
        running = (one.capture for one in self.all() if one.capture.state is not State.STOPPED)
        return held.name == SHARED and any(isinstance(capture, Branched) for capture in running)

    def _shed(self) -> None:
        """End the capture that was not read for longest, if there is too little memory for all."""
        others = [held for held in self.all() if held.name != SHARED]
        if not others or budget.resident_bytes() <= self.most_bytes:
            return
        heap.trim()
        if budget.resident_bytes() > self.most_bytes:
            least = min(others, key=lambda held: held.read_s)
            self._let_go(least)
            self.shed += 1
            _log.warning("capture %s ended for want of memory", least.name)

    def _let_go(self, held: Held) -> None:
        with self._lock:
            self._held.pop(held.name, None)
        held.capture.stop()
