"""Requests to one agent: answered by frames, sent again where that is right, errors raised as it met them."""

from __future__ import annotations

import contextlib
import json
import os
import random
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import asdict
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import httpx
import pandas as pd

from netlab import errors
from netlab.agent import formats
from netlab.agent.formats import Format
from netlab.agent.problems import CLASSES
from netlab.agent.signatures import plain
from netlab.agent.ways import Way
from netlab.closing import Closes
from netlab.errors import CaptureError, NetlabError
from netlab.frames import Missing

_ANSWER_S = 120.0


class Caller(Closes):
    """Asks the agent at the end of *way*; the coverage of every frame says what is *beside*, too."""

    def __init__(self, way: Way, *, beside: Missing | None = None) -> None:
        self._way, self._beside = way, beside
        self._owner = self._process = os.getpid()
        self._inherited: list[httpx.Client] = []  # of the process that this one was forked from
        try:
            self._http = way.client()
        except BaseException:
            way.close()
            raise

    def __repr__(self) -> str:
        return f"<netlab agent at {self._way}>"

    def close(self) -> None:
        """Close the connections to the agent; safe to call again."""
        if os.getpid() == self._process:
            self._http.close()
        if os.getpid() == self._owner:
            self._way.close()

    def frame(self, path: str, **asked: Any) -> pd.DataFrame:
        """Return the frame that an endpoint answers with."""
        return self._framed(self.ask("GET", path, **asked).content)

    def frames(self, path: str, **asked: Any) -> Generator[pd.DataFrame]:
        """Yield the frames that an endpoint answers with; who takes no more of them ends its work."""
        request = self._request("GET", path, f"{Format.FRAMES}, application/json;q=0.5", asked)
        answer = self._answered(request, stream=True)
        with self._explained(), contextlib.closing(answer):
            for body in formats.parts(answer.iter_bytes()):
                if body.startswith(b"{"):
                    raise _told(json.loads(body))
                if body:  # else the agent says that it is still at work
                    yield self._framed(body)

    def changed(self, path: str, client: str, after: int | None) -> tuple[pd.DataFrame, int]:
        """Return what changed for a client since the answer of that number, and the number of this one."""
        answer = self.ask("GET", path, client=client, after=after)
        return self._framed(answer.content), int(answer.headers["Netlab-Answer"])

    def ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, **asked: Any
    ) -> httpx.Response:
        """Return an endpoint's answer, or raise the error that it tells of; among many, wait for a place."""
        return self._answered(
            self._request(method, path, f"{Format.ARROW}, application/json;q=0.5", asked, body)
        )

    def _answered(self, request: httpx.Request, *, stream: bool = False) -> httpx.Response:
        until_s = time.monotonic() + _ANSWER_S
        while True:
            answer = self._sent(request, stream=stream)
            if not answer.is_error:
                return answer
            wait_s = float(answer.headers.get("Retry-After", "inf"))
            if answer.status_code != HTTPStatus.TOO_MANY_REQUESTS or time.monotonic() + wait_s > until_s:
                raise _error(answer)
            time.sleep(wait_s * random.uniform(0.1, 1))  # noqa: S311 - those refused together come back apart

    def _framed(self, body: bytes) -> pd.DataFrame:
        frame = formats.decoded(body)
        if self._beside is not None:
            frame.attrs["coverage"] = [*frame.attrs["coverage"], asdict(self._beside)]
        return frame

    def _client(self) -> httpx.Client:
        """Return what sends requests; a forked process gets connections of its own.

        On one that two processes share each may get the answer to what the other asked.
        """
        if os.getpid() != self._process:
            self._inherited.append(self._http)
            self._http, self._process = self._way.client(), os.getpid()
        if self._http.is_closed:
            raise CaptureError("this connection to an agent was closed", fix="Make another: netlab.connect()")
        return self._http

    def _request(
        self, method: str, path: str, accept: str, asked: dict[str, Any], body: Any = None
    ) -> httpx.Request:
        parameters = {name: plain(value) for name, value in asked.items() if value is not None}
        headers = {"Accept": accept}
        return self._client().build_request(
            method, path, params=parameters, json=plain(body), headers=headers
        )

    def _sent(self, request: httpx.Request, *, stream: bool) -> httpx.Response:
        """Send *request*, twice if its connection ended and it is one that may be repeated.

        The agent closes connections that have been idle for seconds, maybe at this moment.
        """
        with self._explained():
            try:
                answer = self._client().send(request, stream=stream)
            except (httpx.NetworkError, httpx.ProtocolError):
                if request.method != "GET":
                    raise
                answer = self._client().send(request, stream=stream)
            if answer.is_error:
                answer.read()
            return answer

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


def segment(text: object) -> str:
    """Return *text* as one segment of a path."""
    return quote(str(text), safe="")


def _error(answer: httpx.Response) -> NetlabError:
    """Return the error that the agent met, of the class that it has there."""
    try:
        return _told(answer.json())
    except (ValueError, LookupError, TypeError):
        if answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE:  # the server's own word, before the agent's
            return errors.CaptureError(
                "the agent has more connections open than it serves",
                fix="Close what is not used, such as notebooks that are done: Host.close() or a `with` block",
            )
        return errors.CaptureError(f"the agent answered {answer.status_code}", fix="netlab agent status")


def _told(problem: Any) -> NetlabError:
    kind = CLASSES.get(problem["code"], CaptureError)
    return kind(problem["message"], fix=problem["fix"])
