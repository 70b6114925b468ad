"""`netlab.connect()`: the functions of netlab, answered by an agent."""

from __future__ import annotations

import contextlib
import json
import os
import random
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import httpx
import pandas as pd

from netlab import errors
from netlab.agent import formats
from netlab.agent.afar import RemoteCapture
from netlab.agent.delegation import SOCKET
from netlab.agent.formats import Format
from netlab.agent.problems import CLASSES
from netlab.agent.ways import Way, way_to
from netlab.errors import CaptureError, NetlabError
from netlab.frames import Missing
from netlab.kernel.netns import NetNs

_ANSWER_S = 120.0


def connect(
    where: str | os.PathLike[str] = SOCKET,
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
        The path of its unix socket; `ssh://[user@]host[:port][/path]`, which ssh(1) forwards to here;
        or `https://host:port`, where it was started with `--listen`.
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
        Has the functions of netlab with the same parameters and frames.

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
    >>> netlab.connect("/nowhere/agent.sock")
    Traceback (most recent call last):
      ...
    netlab.errors.CapabilityError: no agent at /nowhere/agent.sock. Start one as root: netlab agent
    """
    host = Host(
        way_to(
            where,
            token=token,
            ca=None if ca is None else Path(ca),
            certificate=None if certificate is None else (Path(certificate[0]), Path(certificate[1])),
            ssh_options=ssh_options,
        )
    )
    if not isinstance(where, os.PathLike) and "://" in where:
        host.greet()
    return host


class Host:
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
        self._way, self._beside = way, beside
        self._answers: dict[str, int] = {}  # the last that arrived, of each client
        try:
            self._http = way.client()
        except BaseException:
            way.close()
            raise

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

    def __repr__(self) -> str:
        return f"<netlab agent at {self._way}>"

    def health(self) -> dict[str, Any]:
        """Return the agent's version and how long it has run."""
        found: dict[str, Any] = self.ask("GET", "/health").json()
        return found

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

    def connections(self, *, netns: NetNs = None, port: int | None = None) -> pd.DataFrame:
        """As `netlab.connections`."""
        return self.frame("/connections/now", netns=netns, port=port)

    def conntrack(self, **wanted: Any) -> pd.DataFrame:
        """As `netlab.conntrack`, with its parameters."""
        return self.frame("/conntrack", **wanted)

    def nat(self, **wanted: Any) -> pd.DataFrame:
        """As `netlab.nat`, with its parameters."""
        return self.frame("/nat", **wanted)

    def routes(self, *, netns: NetNs = None, family: int | None = None) -> pd.DataFrame:
        """As `netlab.routes`."""
        return self.frame("/routes", netns=netns, family=family)

    def gateway(self, address: str, *, netns: NetNs = None) -> pd.DataFrame:
        """As `netlab.gateway`."""
        return self.frame(f"/routes/{_segment(address)}", netns=netns)

    def traceroute(
        self,
        target: str,
        *,
        timeout_s: float = 1.0,
        stop: threading.Event | None = None,
        seen: Callable[[pd.DataFrame], object] | None = None,
        **options: Any,
    ) -> pd.DataFrame:
        """As `netlab.traceroute`; stopped, it returns what it had been told by then."""
        asked = {"timeout_ms": round(timeout_s * 1000), **options}
        path = f"/traceroute/{_segment(target)}"
        if stop is None and seen is None:
            return self.frame(path, **asked)
        with contextlib.closing(self.frames(path, **asked)) as frames:  # closed, it hangs up
            for frame in frames:
                if seen is not None:
                    seen(frame)
                if stop is not None and stop.is_set():
                    break
        return frame

    def dns(self) -> pd.DataFrame:
        """As `Capture.dns`, of a capture that everybody on the host shares: since somebody first asked."""
        return self.frame("/dns")

    def requests(self, protocol: str) -> pd.DataFrame:
        """As `Capture.requests`, of the capture that `dns()` reads; of "tls" the handshakes."""
        return self.frame(f"/protocols/{_segment(protocol)}")

    def capture(self, **options: Any) -> RemoteCapture:
        """As `netlab.capture`; it starts when it is entered, or by `start()`."""
        return RemoteCapture(self, options)

    def close(self) -> None:
        """Close the connections to the agent; safe to call again."""
        self._http.close()
        self._way.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def frame(self, path: str, **asked: Any) -> pd.DataFrame:
        """Return the frame that an endpoint answers with."""
        return self._framed(self.ask("GET", path, **asked).content)

    def frames(self, path: str, **asked: Any) -> Generator[pd.DataFrame]:
        """Yield the frames that an endpoint answers with; who takes no more of them ends its work."""
        request = self._request("GET", path, f"{Format.FRAMES}, application/json;q=0.5", asked)
        with self._explained():
            answer = self._http.send(request, stream=True)
            try:
                if answer.is_error:
                    answer.read()
                    raise _error(answer)
                for body in formats.parts(answer.iter_bytes()):
                    if body.startswith(b"{"):
                        raise _told(json.loads(body))
                    yield self._framed(body)
            finally:
                answer.close()

    def _framed(self, body: bytes) -> pd.DataFrame:
        frame = formats.decoded(body)
        if self._beside is not None:
            frame.attrs["coverage"] = [*frame.attrs["coverage"], asdict(self._beside)]
        return frame

    def changed(self, path: str, client: str, after: int | None) -> tuple[pd.DataFrame, int]:
        """Return what changed for a client since the answer of that number, and the number of this one."""
        answer = self.ask("GET", path, client=client, after=after)
        return self._framed(answer.content), int(answer.headers["Netlab-Answer"])

    def ask(self, method: str, path: str, body: Any = None, **asked: Any) -> httpx.Response:
        """Return an endpoint's answer, or raise the error that it tells of; among many, wait for a place."""
        request = self._request(method, path, f"{Format.ARROW}, application/json;q=0.5", asked, body)
        until_s = time.monotonic() + _ANSWER_S
        while True:
            answer = self._sent(request)
            if not answer.is_error:
                return answer
            wait_s = float(answer.headers.get("Retry-After", "inf"))
            if answer.status_code != HTTPStatus.TOO_MANY_REQUESTS or time.monotonic() + wait_s > until_s:
                raise _error(answer)
            time.sleep(wait_s * random.uniform(0.1, 1))  # noqa: S311 - those refused together come back apart

    def _request(
        self, method: str, path: str, accept: str, asked: dict[str, Any], body: Any = None
    ) -> httpx.Request:
        parameters = {name: value for name, value in asked.items() if value is not None}
        headers = {"Accept": accept}
        return self._http.build_request(method, path, params=parameters, json=body, headers=headers)

    def _sent(self, request: httpx.Request) -> httpx.Response:
        """Send *request*, twice if its connection ended and it is one that may be repeated.

        The agent closes connections that have been idle for seconds, maybe at this moment.
        """
        with self._explained():
            try:
                return self._http.send(request)
            except (httpx.NetworkError, httpx.ProtocolError):
                if request.method != "GET":
                    raise
                return self._http.send(request)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectError as error:
            raise self._way.refusal(str(error)) from error
        except httpx.TimeoutException as error:
            raise CaptureError(
                f"the agent at {self._way} does not answer", fix="netlab agent status"
            ) from error
        except httpx.TransportError as error:
            raise CaptureError(
                f"the agent at {self._way} ended the connection: {error}",
                fix="Ask again: after a restart, register() begins a new account",
            ) from error


def _segment(text: str) -> str:
    """Return *text* as one segment of a path."""
    return quote(str(text), safe="")


def _error(answer: httpx.Response) -> NetlabError:
    """Return the error that the agent met, of the class that it has there."""
    try:
        return _told(answer.json())
    except (ValueError, LookupError, TypeError):
        return errors.CaptureError(f"the agent answered {answer.status_code}", fix="netlab agent status")


def _told(problem: Any) -> NetlabError:
    kind = CLASSES.get(problem["code"], CaptureError)
    return kind(problem["message"], fix=problem["fix"])
