"""What an agent runs for a client, with the methods of what runs here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import pandas as pd

from netlab.closing import Closes, Runs
from netlab.errors import CaptureError
from netlab.protocols.dns.stats import dns_stats

if TYPE_CHECKING:
    from netlab.agent.calling import Caller

_GRACE_S, _TICK_S = 10.0, 0.2


class RemoteCapture(Runs):
    """A capture that the agent runs."""

    def __init__(self, host: Caller, options: dict[str, Any]) -> None:
        self._host, self._options, self._name = host, options, ""
        self._answers: dict[str, tuple[int, int]] = {}  # of each client the last, and what it goes on from

    def __repr__(self) -> str:
        return f"<netlab capture {self._name or 'not started'}, of {self._host}>"

    @property
    def state(self) -> str:
        """Where the capture is in its life."""
        return "new" if not self._name else str(self._host.ask("GET", self._place()).json()["state"])

    def start(self) -> Self:
        """Have the agent start it."""
        self._name = self._host.ask("POST", "/captures", body=self._options).json()["name"]
        return self

    def pause(self) -> None:
        """As `Capture.pause`."""
        self._host.ask("POST", self._place("pause"))

    def resume(self) -> None:
        """As `Capture.resume`."""
        self._host.ask("POST", self._place("resume"))

    def stop(self) -> None:
        """Detach everything; what was seen stays readable until nobody reads it any more."""
        if self._name:
            self._host.ask("POST", self._place("stop"))

    def register(self, client: str) -> None:
        """As `Capture.register`."""
        told = self._host.ask("POST", self._place("register"), client=client).json()
        self._answers[client] = (told["answer"], told["answer"])

    def delta(self, client: str, *, again: bool = False) -> pd.DataFrame:
        """As `Capture.delta`; what an interrupted call would have told, the next one tells."""
        last, before = self._answers.get(client, (None, None))
        after = before if again else last
        frame, number = self._host.changed(self._place("delta"), client, after)
        self._answers[client] = (number, number - 1 if after is None else after)
        return frame

    def connections(self) -> pd.DataFrame:
        """As `Capture.connections`."""
        return self._host.frame(self._place("connections"))

    def failures(self) -> pd.DataFrame:
        """As `Capture.failures`."""
        return self._host.frame(self._place("failures"))

    def events(self) -> pd.DataFrame:
        """As `Capture.events`."""
        return self._host.frame(self._place("events"))

    def drops(self) -> pd.DataFrame:
        """As `Capture.drops`."""
        return self._host.frame(self._place("drops"))

    def requests(self, protocol: str | None = None) -> pd.DataFrame:
        """As `Capture.requests`."""
        return self._host.frame(self._place("requests"), protocol=protocol)

    def protocol_stats(self) -> pd.DataFrame:
        """As `Capture.protocol_stats`."""
        return self._host.frame(self._place("protocol_stats"))

    def dns(self) -> pd.DataFrame:
        """As `Capture.dns`."""
        return self._host.frame(self._place("dns"))

    def dns_stats(self, by: Sequence[str] = ("server_address", "name", "type")) -> pd.DataFrame:
        """As `Capture.dns_stats`."""
        return dns_stats(self.dns(), by)

    def names(self) -> pd.DataFrame:
        """As `Capture.names`."""
        return self._host.frame(self._place("names"))

    def tls(self) -> pd.DataFrame:
        """As `Capture.tls`."""
        return self._host.frame(self._place("tls"))

    def cost(self) -> pd.DataFrame:
        """As `Capture.cost`."""
        return self._host.frame(self._place("cost"))

    @property
    def _ends(self) -> bool:
        return self._options.get("duration_s") is not None

    def wait(self, timeout_s: float | None = None) -> bool:
        """As `Capture.wait`."""
        duration_s = self._options.get("duration_s")
        limits = [limit for limit in (duration_s and duration_s + _GRACE_S, timeout_s) if limit is not None]
        if not limits:
            raise CaptureError(
                "this capture has no duration to wait for", fix="Give duration_s= or timeout_s="
            )
        until_s = time.monotonic() + min(limits)
        while not (ended := self.state == "stopped") and time.monotonic() < until_s:
            time.sleep(_TICK_S)
        return ended

    def _place(self, what: str = "") -> str:
        if not self._name:
            raise CaptureError(
                "this capture has not been started", fix="Enter it with `with`, or call start()"
            )
        return f"/captures/{self._name}" + (f"/{what}" if what else "")


class RemoteConntrackEvents(Closes):
    """Conntrack entries that the agent listens for; made by `Host.conntrack_events()`."""

    def __init__(self, host: Caller, options: dict[str, Any]) -> None:
        self._host = host
        name = host.ask("POST", "/conntrack/events", body=options).json()["name"]
        self._place = f"/conntrack/events/{name}"
        self._is_closed = False

    @property
    def namespaces(self) -> frozenset[int]:
        """The network namespaces listened in at this moment, by inode."""
        return frozenset(self._host.ask("GET", self._place).json()["namespaces"])

    def entries(self) -> pd.DataFrame:
        """As `ConntrackEvents.entries`."""
        return self._host.frame(f"{self._place}/entries")

    def events(self) -> pd.DataFrame:
        """As `ConntrackEvents.events`."""
        return self._host.frame(f"{self._place}/events")

    def table(self) -> pd.DataFrame:
        """As `ConntrackEvents.table`."""
        return self._host.frame(f"{self._place}/table")

    def close(self) -> None:
        """Stop listening; what was heard stays readable until nobody reads it any more."""
        if not self._is_closed:
            self._host.ask("POST", f"{self._place}/stop")
            self._is_closed = True
