"""A capture that runs on many hosts."""

from __future__ import annotations

import math
import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Self, TypeAlias

import pandas as pd

from netlab.closing import Runs
from netlab.errors import CaptureError
from netlab.fleet import here
from netlab.fleet.asking import Answers, Told
from netlab.fleet.merging import ROWS, gap_of, merged, require
from netlab.frames import Gap, Missing

_TOUCH_S = here.IDLE_S / 10
Ask: TypeAlias = Callable[[Callable[..., Any], Mapping[str, tuple[Any, ...]]], Answers]


class FleetCapture(Runs):
    """A capture on every host that was there at its start; made by `Fleet.capture()`.

    Its methods are those of `netlab.tracer.session.Capture`, and return the rows of all hosts. A host on
    which it could not be started, or did not do what it was told, is a row in the coverage of every frame. A
    capture of which nothing is asked for ten minutes ends.
    """

    def __init__(self, ask: Ask, hosts: Callable[[], Sequence[str]], options: Mapping[str, Any]) -> None:
        self._ask, self._all, self._options = ask, hosts, dict(options)
        self._name = secrets.token_hex(8)
        self._hosts: list[str] = []  # on which it runs
        self._failed: dict[str, Exception] = {}
        self._began_s = 0.0
        self._undone: list[Missing] = []  # orders that a host did not carry out
        self._received: Counter[tuple[str, str]] = Counter()  # deltas, by client and host

    def __repr__(self) -> str:
        return f"<netlab capture on {', '.join(self._hosts) or 'no host yet'}>"

    def start(self) -> Self:
        """Start it on all hosts.

        Raises
        ------
        NetlabError
            If it could be started on none of them.
        """
        if self._hosts:
            raise CaptureError("this capture runs already", fix="Make another with Fleet.capture()")
        answers = self._ask(here.begin, dict.fromkeys(self._all(), (self._name, self._options)))
        self._failed = {host: answer for host, answer in answers.items() if isinstance(answer, Exception)}
        self._hosts = [host for host in answers if host not in self._failed]
        # Where the start was only late, nobody will ask for it, so that it ends by itself.
        require(self._hosts, self._failed)
        self._began_s = time.monotonic()
        return self

    def pause(self) -> None:
        """As `Capture.pause`."""
        self._order("pause")

    def resume(self) -> None:
        """As `Capture.resume`."""
        self._order("resume")

    @property
    def _ends(self) -> bool:
        return self._options.get("duration_s") is not None

    def wait(self, timeout_s: float | None = None) -> bool:
        """As `Capture.wait`, by this host's clock; meanwhile the hosts keep it.

        Parameters
        ----------
        timeout_s
            Wait at most this many seconds.
        """
        duration_s = self._options.get("duration_s")
        if duration_s is None and timeout_s is None:
            raise CaptureError(
                "this capture has no duration to wait for", fix="Give duration_s= or timeout_s="
            )
        over_s = math.inf if duration_s is None else self._began_s + duration_s
        until_s = min(over_s, math.inf if timeout_s is None else time.monotonic() + timeout_s)
        while (left_s := until_s - time.monotonic()) > 0:
            time.sleep(min(left_s, _TOUCH_S))
            self._ask(here.touch, dict.fromkeys(self._members(), (self._name,)))
        return time.monotonic() >= over_s

    def stop(self) -> None:
        """Detach everything on all hosts; what was seen stays readable there for ten minutes."""
        if self._hosts:
            self._demand("stop", here.end)

    def connections(self) -> pd.DataFrame:
        """As `Capture.connections`."""
        return self._look("connections")

    def failures(self) -> pd.DataFrame:
        """As `Capture.failures`."""
        return self._look("failures")

    def events(self) -> pd.DataFrame:
        """As `Capture.events`."""
        return self._look("events")

    def drops(self) -> pd.DataFrame:
        """As `Capture.drops`."""
        return self._look("drops")

    def requests(self, protocol: str | None = None) -> pd.DataFrame:
        """As `Capture.requests`."""
        return self._look("requests", *([] if protocol is None else [protocol]))

    def protocol_stats(self) -> pd.DataFrame:
        """As `Capture.protocol_stats`, counted on each host."""
        return self._look("protocol_stats")

    def dns(self) -> pd.DataFrame:
        """As `Capture.dns`."""
        return self._look("dns")

    def dns_stats(self, by: Sequence[str] = ("server_address", "name", "type")) -> pd.DataFrame:
        """As `Capture.dns_stats`, counted on each host."""
        return self._look("dns_stats", by)

    def names(self) -> pd.DataFrame:
        """As `Capture.names`."""
        return self._look("names")

    def tls(self) -> pd.DataFrame:
        """As `Capture.tls`."""
        return self._look("tls")

    def cost(self) -> pd.DataFrame:
        """As `Capture.cost`."""
        return self._look("cost")

    def register(self, client: str) -> None:
        """As `Capture.register`."""
        self._order("register", client)

    def delta(self, client: str) -> pd.DataFrame:
        """As `Capture.delta`; what a host could not tell in time is in the next delta."""
        arguments = {host: (self._name, client, self._received[client, host]) for host in self._members()}
        answers = self._ask(here.delta, arguments)
        found = self._merged(answers)
        self._received.update((client, host) for host, it in answers.items() if isinstance(it, Told))
        return found

    def close(self) -> None:
        """Stop it on all hosts and have them forget it; safe to call again."""
        if self._hosts:
            self._ask(here.forget, dict.fromkeys(self._hosts, (self._name,)))
            self._hosts = []

    def _look(self, what: str, *given: Any) -> pd.DataFrame:
        return self._merged(self._ask(here.look, dict.fromkeys(self._members(), (self._name, what, *given))))

    def _merged(self, answers: Answers) -> pd.DataFrame:
        frame = merged({**answers, **self._failed})
        frame.attrs["coverage"] += map(asdict, [*self._undone, *self._newcomers()])
        return frame

    def _newcomers(self) -> list[Missing]:
        """Return the hosts that came after the start, on which nothing runs."""
        came = [host for host in self._all() if host not in self._hosts and host not in self._failed]
        return [Missing(ROWS, Gap.UNSEEN, None, f"{host}: it came after the capture began") for host in came]

    def _order(self, what: str, *given: Any) -> None:
        self._demand(what, here.order, what, *given)

    def _demand(self, what: str, work: Callable[..., Any], *given: Any) -> None:
        """Have all hosts do it; one that does not is told of by the frames, unless all fail."""
        answers = self._ask(work, dict.fromkeys(self._members(), (self._name, *given)))
        errors = {host: answer for host, answer in answers.items() if isinstance(answer, Exception)}
        require(len(errors) < len(answers), errors)
        self._undone += [gap_of(host, error, f"{what} of the capture") for host, error in errors.items()]

    def _members(self) -> list[str]:
        if not self._hosts:
            raise CaptureError(
                "this capture has not been started", fix="Enter it with `with`, or call start()"
            )
        return self._hosts
