"""`netlab.connect()`: the functions of netlab, answered by an agent."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from netlab import checks
from netlab.agent.afar import RemoteCapture, RemoteConntrackEvents
from netlab.agent.calling import Caller, segment
from netlab.agent.delegation import usual_socket
from netlab.agent.signatures import Given, taking
from netlab.agent.ways import Way, way_to
from netlab.errors import BadInput, CaptureError, DecodeError, NetlabError
from netlab.frames import Missing, concat
from netlab.kernel.conntrack import conntrack
from netlab.kernel.ctevents import conntrack_events
from netlab.kernel.ctfill import Fill
from netlab.kernel.ctstats import conntrack_stats
from netlab.kernel.gateway import checked, destinations, gateway
from netlab.kernel.nat import nat
from netlab.kernel.routes import routes
from netlab.kernel.spaces import Spaces
from netlab.kernel.translation import Direction, Side, Translation, translate
from netlab.path.multipath import multipath
from netlab.path.pathmtu import path_mtu
from netlab.path.trace import traceroute
from netlab.schemas import GATEWAY
from netlab.tracer.capture import capture
from netlab.tracer.listeners import listeners
from netlab.tracer.sockets import connections


@checks.options
def connect(
    where: str | os.PathLike[str] | None = None,
    *,
    token: str | None = None,
    ca: str | os.PathLike[str] | None = None,
    certificate: tuple[str | os.PathLike[str], str | os.PathLike[str]] | None = None,
    ssh_options: Sequence[str] = (),
) -> Host:
    """Connect to an agent, of this host or another.

    Parameters
    ----------
    where
        The path of its unix socket, by default what the environment variable NETLAB_AGENT says, or else
        /run/netlab/agent.sock; `ssh://[user@]host[:port][/path]`, which ssh(1) forwards to here; or
        `https://host:port`, where it was started with `--listen`.
    token
        What the agent over TCP takes.
    ca
        Who signed the agent's certificate, a PEM file; the system's authorities otherwise.
    certificate
        A certificate and its key to show to the agent, PEM files.
    ssh_options
        More options of ssh(1), such as `["-i", "key"]`. Keys only: nobody is there to type a password.

    Returns
    -------
    Host
        Its methods are the functions of netlab that look at one host, with their parameters and frames.

    Raises
    ------
    CapabilityError
        If no agent can be reached, or this user is not in the group that it serves.
    BadInput
        If it would be asked in the clear over a network.

    Notes
    -----
    HTTP/1.1; `docs/reference/agent.md` has the endpoints. What ssh forwards the other host's agent sees as a
    process of the user that logged in.

    Examples
    --------
    >>> import netlab
    >>> netlab.connect("/no/agent.sock")
    Traceback (most recent call last):
      ...
    netlab.errors.CapabilityError: no agent at /no/agent.sock. Start one as root: netlab agent --group NAME
    """
    if not isinstance(token, str | None):
        raise BadInput(f"the token is text, not a {type(token).__name__}", fix="Give what --token-file has")
    if not (certificate is None or (isinstance(certificate, tuple | list) and len(certificate) == 2)):
        raise BadInput("a certificate comes with its key", fix="certificate=('client.pem', 'client.key')")
    where = usual_socket() if where is None else where
    host = Host(
        way_to(
            where,
            token=token,
            ca=None if ca is None else checks.path(ca),
            certificate=certificate and (checks.path(certificate[0]), checks.path(certificate[1])),
            ssh_options=ssh_options,
        )
    )
    if not isinstance(where, os.PathLike) and "://" in where:
        host.greet()
    return host


class Host(Caller):
    """One agent; a context manager that closes the connections to it.

    Parameters
    ----------
    way
        How it is reached.
    beside
        What the coverage of every frame says besides what the agent says.

    Raises
    ------
    CapabilityError
        If nobody answers, or this user may not ask; the message says which.
    """

    def __init__(self, way: Way, *, beside: Missing | None = None) -> None:
        super().__init__(way, beside=beside)
        self._answers: dict[str, int] = {}  # the last that arrived, of each client

    def greet(self) -> None:
        """See that what listens is an agent, and serves this user; ssh(1) listens whatever is behind it."""
        try:
            self.health()
        except CaptureError as error:
            refusal = self._way.refusal(error.problem)
            self.close()
            raise refusal from error
        except NetlabError:
            self.close()
            raise

    def health(self) -> dict[str, Any]:
        """Return the agent's version and how long it has run."""
        return dict(self.ask("GET", "/health").json())

    def status(self) -> dict[str, Any]:
        """Return what the agent is doing, as `netlab agent status` shows it."""
        captures = self.ask("GET", "/captures").json()
        states = [f"{one['name']} ({one['state']})" for one in captures]
        return {"agent": str(self._way), **self.health(), "captures": ", ".join(states) or "none"}

    def register(self, client: str) -> str:
        """As `Capture.register`, of the capture that everybody on the host shares.

        Return its generation: another one than before says that the accounts began anew.
        """
        told = self.ask("POST", "/register", client=client).json()
        self._answers[client] = told["answer"]
        return str(told["generation"])

    def delta(self, client: str) -> pd.DataFrame:
        """As `Capture.delta`, of the capture that everybody on the host shares.

        What an interrupted call would have told, the next one tells.
        """
        after = self._answers.get(client)
        frame, self._answers[client] = self.changed("/connections", client, after)
        return frame

    @taking(connections)
    def connections(self, asked: Given) -> pd.DataFrame:
        """As `netlab.connections`."""
        return self.frame("/connections/now", **asked)

    @taking(listeners)
    def listeners(self, asked: Given) -> pd.DataFrame:
        """As `netlab.listeners`."""
        return self.frame("/listeners", **asked)

    @taking(conntrack)
    def conntrack(self, asked: Given) -> pd.DataFrame:
        """As `netlab.conntrack`."""
        return self.frame("/conntrack", **asked)

    @taking(conntrack_events)
    def conntrack_events(self, asked: Given) -> RemoteConntrackEvents:
        """As `netlab.conntrack_events`; what nobody asks for ten minutes is forgotten."""
        return RemoteConntrackEvents(self, asked)

    @taking(conntrack_stats)
    def conntrack_stats(self, asked: Given) -> pd.DataFrame:
        """As `netlab.conntrack_stats`."""
        return self.frame("/conntrack/stats", **asked)

    def conntrack_fill(self, *, netns: Spaces = None) -> tuple[list[Fill], list[Missing]]:
        """Return how full the conntrack table of each namespace is, and which of them did not tell."""
        told = self.ask("GET", "/conntrack/fill", netns=netns).json()
        try:
            missing = [Missing.of(gap) for gap in told["coverage"]]
        except ValueError as error:
            raise DecodeError(
                f"the agent at {self._way} tells of a kind of gap that this netlab does not know: {error}",
                fix="Install the agent's version here: its health() says which",
            ) from error
        return [Fill(**level) for level in told["levels"]], missing

    @taking(nat)
    def nat(self, asked: Given) -> pd.DataFrame:
        """As `netlab.nat`."""
        return self.frame("/nat", **asked)

    @taking(translate)
    def translate(self, asked: Given) -> Translation | None:
        """As `netlab.translate`."""
        told = self.ask("GET", "/translate", **asked).json()
        if told is None:
            return None
        direction, side = Direction(told["direction"]), Side(told["asked"])
        return Translation(**{**told, "direction": direction, "asked": side})

    @taking(routes)
    def routes(self, asked: Given) -> pd.DataFrame:
        """As `netlab.routes`."""
        return self.frame("/routes", **asked)

    @taking(gateway)
    def gateway(self, asked: Given) -> pd.DataFrame:
        """As `netlab.gateway`; of several destinations each is asked for."""
        several = destinations(asked.pop("destination"))
        if not several:
            return GATEWAY.empty()
        for one in several:
            checked(one)
        return concat([self.frame(f"/routes/{segment(one)}", **asked) for one in several])

    @taking(traceroute)
    def traceroute(self, asked: Given) -> pd.DataFrame:
        """As `netlab.traceroute`; stopped, it returns what it had been told by then. It shows no progress."""
        stop, seen = (asked.pop(name, None) for name in ("stop", "seen"))
        if asked.pop("progress", False):
            raise BadInput("progress= is of this process, and the agent traces", fix="Give seen= instead")
        return self._probed("traceroute", asked, stop=stop, seen=seen)

    @taking(multipath)
    def multipath(self, asked: Given) -> pd.DataFrame:
        """As `netlab.multipath`; Ctrl-C ends it, and `stop` it does not take."""
        return self._probed("multipath", _unstopped(asked))

    @taking(path_mtu)
    def path_mtu(self, asked: Given) -> pd.DataFrame:
        """As `netlab.path.path_mtu`; Ctrl-C ends it, and `stop` it does not take."""
        return self._probed("path_mtu", _unstopped(asked))

    def _probed(
        self,
        what: str,
        asked: Given,
        *,
        stop: threading.Event | None = None,
        seen: Callable[[pd.DataFrame], object] | None = None,
    ) -> pd.DataFrame:
        """Return what the agent's probes to the target find; as a stream, since it may take long."""
        target = asked.pop("target")
        if not isinstance(target, str) or not target or "/" in target:  # which no path of a request can have
            raise BadInput(f"target {target!r} is not a host name or an address", fix="Give one")
        if "timeout_s" in asked:
            timeout_s = checks.positive("timeout_s", asked.pop("timeout_s"), unit="seconds", most=60)
            asked["timeout_ms"] = round(timeout_s * 1000)
        with contextlib.closing(self.frames(f"/{what}/{segment(target)}", **asked)) as frames:
            for frame in frames:
                if seen is not None:
                    seen(frame)
                if stop is not None and stop.is_set():
                    break  # closed, it hangs up
        return frame

    def dns(self) -> pd.DataFrame:
        """As `Capture.dns`, of a capture that everybody on the host shares: since somebody first asked."""
        return self.frame("/dns")

    def requests(self, protocol: str) -> pd.DataFrame:
        """As `Capture.requests`, of the capture that `dns()` reads; of "tls" the handshakes."""
        return self.frame(f"/protocols/{segment(protocol)}")

    def protocol_stats(self) -> pd.DataFrame:
        """As `Capture.protocol_stats`, of the capture that `dns()` reads: every protocol."""
        return self.frame("/protocols")

    @taking(capture)
    def capture(self, asked: Given) -> RemoteCapture:
        """As `netlab.capture`; it starts when it is entered, or by `start()`."""
        return RemoteCapture(self, asked)


def _unstopped(asked: Given) -> Given:
    if asked.pop("stop", None) is not None:
        raise BadInput(
            "stop= is not for what an agent probes: it tells nothing before the end",
            fix="Leave stop= out; Ctrl-C ends its probing, too, and what it had found is lost",
        )
    return asked
