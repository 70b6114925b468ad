"""The ways to an agent: its unix socket, that of another host through ssh, and TLS with a token."""

from __future__ import annotations

import contextlib
import grp
import os
import shutil
import ssl
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import SplitResult, urlsplit

import httpx

from netlab import checks
from netlab.agent.delegation import SOCKET, answers
from netlab.errors import BadInput, CapabilityError, NetlabError

_ANSWER_S, _CONNECT_S, _TUNNEL_S = 120.0, 5.0, 20.0
_TIMEOUT = httpx.Timeout(_ANSWER_S, connect=_CONNECT_S)
_START = "Start one as root: netlab agent --group NAME"


class Way(Protocol):
    """How to reach one agent."""

    def client(self) -> httpx.Client:
        """Return what sends requests to it; raises what keeps it from being reached."""

    def refusal(self, said: str = "") -> NetlabError:
        """Return why nobody answers, of which an error *said* something."""

    def close(self) -> None:
        """Give up what it took; safe to call again."""


@dataclass(frozen=True, slots=True)
class Local:
    """The unix socket of an agent on this host."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def client(self) -> httpx.Client:
        """Return what sends requests to it."""
        if not answers(self.path):
            raise self.refusal()
        return _over(self.path)

    def refusal(self, said: str = "") -> NetlabError:
        """Return why nobody answers: there is no socket, nobody listens, or this user may not connect."""
        try:
            owner = self.path.stat()
        except OSError:
            return CapabilityError(f"no agent at {self.path}", fix=_START)
        if os.access(self.path, os.W_OK):
            return CapabilityError(
                f"nobody answers at {self.path}" + (f": {said}" if said else ""),
                fix="Start the agent again: netlab agent",
            )
        with contextlib.suppress(KeyError):
            if owner.st_mode & stat.S_IWGRP and owner.st_gid:
                name = grp.getgrgid(owner.st_gid).gr_name
                return CapabilityError(
                    f"only root and the group {name} may use the agent at {self.path}",
                    fix=f"Run: sudo usermod --append --groups {name} $USER, then log in again",
                )
        return CapabilityError(
            f"only root may use the agent at {self.path}", fix="Start it with --group NAME"
        )

    def close(self) -> None:
        """Nothing was taken."""


@dataclass(frozen=True, slots=True)
class Web:
    """An agent that listens over TCP."""

    url: str
    token: str | None = field(repr=False)  # tracebacks may show it
    context: ssl.SSLContext | None

    def __str__(self) -> str:
        return self.url

    @classmethod
    def of(
        cls,
        parts: SplitResult,
        *,
        token: str | None,
        ca: Path | None,
        certificate: tuple[Path, Path] | None,
    ) -> Web:
        """Check a URL, without TLS it is of this very host, and a token, which may come as a file has it."""
        url = f"{parts.scheme}://{parts.netloc}"
        _checked_port(parts)
        token = None if token is None else token.strip()
        if token is not None and (not token or not token.isascii() or len(token.split()) != 1):
            raise BadInput("this is no token", fix="Give what the agent's --token-file has: one word")
        if parts.scheme == "https":
            try:
                context = ssl.create_default_context(cafile=ca)
                if certificate is not None:
                    context.load_cert_chain(*certificate)
            except OSError as error:
                raise BadInput(f"these certificates cannot be used: {error}", fix="PEM files") from error
            return cls(url, token, context)
        with contextlib.suppress(ValueError):
            if ip_address(parts.hostname or "").is_loopback:
                return cls(url, token, None)
        raise BadInput(
            f"{url} would send everything in the clear", fix="Use https://, or ssh://, which needs no port"
        )

    def client(self) -> httpx.Client:
        """Return what sends requests to it."""
        headers = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        return httpx.Client(
            base_url=self.url, headers=headers, verify=self.context or True, timeout=_TIMEOUT, trust_env=False
        )

    def refusal(self, said: str = "") -> NetlabError:
        """Return that nobody answers, or that it is not who it should be."""
        encrypted = "ca= names who signed its certificate"
        return CapabilityError(
            f"no agent answers at {self.url}" + (f": {said}" if said else ""),
            fix=f"netlab agent --listen there; {encrypted if self.context else 'with --tls-cert it takes https://'}",
        )

    def close(self) -> None:
        """Nothing was taken."""


def _checked_port(parts: SplitResult) -> int | None:
    try:
        return parts.port
    except ValueError as error:
        raise BadInput(f"{parts.geturl()} names no port: {error}", fix="Give one from 1 to 65535") from error


class Tunnel:
    """The unix socket of an agent on another host, which ssh(1) forwards to one that is only this user's."""

    def __init__(self, parts: SplitResult, options: Sequence[str]) -> None:
        if not parts.hostname or parts.hostname.startswith("-"):
            raise BadInput(f"{parts.geturl()} names no host", fix=_SUCH_AS)
        number = _checked_port(parts)
        port = [] if number is None else ["-p", str(number)]
        options = checks.several("ssh_options", options)
        self._url, self._remote = parts.geturl(), parts.path or str(SOCKET)
        user = [] if parts.username is None else ["-l", parts.username]
        quiet = [word for option in _SSH for word in ("-o", option)]
        command = ["ssh", "-N", "-T", *quiet, *options, *user, *port]
        with contextlib.ExitStack() as held:
            self._place, self._log = held.enter_context(_room_for_ssh())
            forwarded = ["-L", f"{self._place / 'agent.sock'}:{self._remote}"]
            try:
                self._ssh = subprocess.Popen(
                    [*command, *forwarded, "--", parts.hostname],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=self._log,
                )
            except OSError as error:
                missing = isinstance(error, FileNotFoundError)
                problem = "ssh is not installed" if missing else f"ssh cannot be run: {error.strerror}"
                raise CapabilityError(problem, fix="sudo apt-get install openssh-client") from error
            self._held = held.pop_all()  # its directory, and what it says

    def __str__(self) -> str:
        return self._url

    def client(self) -> httpx.Client:
        """Return what sends requests to it, once ssh forwards."""
        until_s = time.monotonic() + _TUNNEL_S
        path = self._place / "agent.sock"
        while not path.exists():
            if self._ssh.poll() is not None or time.monotonic() > until_s:
                raise self.refusal()
            time.sleep(0.02)
        return _over(path)

    def refusal(self, said: str = "") -> NetlabError:
        """Return what ssh says, or that there is no agent where it forwards to."""
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), said)
        if self._ssh.poll() is not None:
            host = self._url.removeprefix("ssh://").partition("/")[0]
            fix = f"Try it by hand, with a key that needs no typing: ssh {host}"
            return CapabilityError(f"ssh does not reach {self._url}: {last}", fix=fix)
        why = f": {last}" if last else ""
        return CapabilityError(
            f"no agent answers at {self._remote} on {self._url}{why}",
            fix="Start one there as root: netlab agent --group NAME, with the user in that group",
        )

    def close(self) -> None:
        """End ssh and remove its socket; safe to call again."""
        self._ssh.terminate()
        self._ssh.wait()
        self._held.close()


@contextlib.contextmanager
def _room_for_ssh() -> Iterator[tuple[Path, BinaryIO]]:
    """Make a directory for a socket that is only this user's, and a file for what ssh says."""
    with contextlib.ExitStack() as held:
        try:
            # Without a finalizer: forked processes leave it alone.
            place = Path(tempfile.mkdtemp(prefix="netlab-ssh-"))
            held.callback(shutil.rmtree, place, ignore_errors=True)
            log = held.enter_context((place / "log").open("w+b"))
        except OSError as error:
            raise CapabilityError(
                f"the socket that ssh forwards to cannot be made: {error}",
                fix="Make room there, or set TMPDIR to a directory that can be written to",
            ) from error
        yield place, log


_SUCH_AS = "Such as ssh://db1 or ssh://user@db1:22"
_SSH = (
    "BatchMode=yes",  # nobody is there to type
    "ExitOnForwardFailure=yes",
    "ServerAliveInterval=15",
    "ClearAllForwardings=no",
)


def _over(path: Path) -> httpx.Client:
    transport = httpx.HTTPTransport(uds=str(path))
    return httpx.Client(transport=transport, base_url="http://netlab", timeout=_TIMEOUT)


def way_to(
    where: str | os.PathLike[str],
    *,
    token: str | None,
    ca: Path | None,
    certificate: tuple[Path, Path] | None,
    ssh_options: Sequence[str],
) -> Way:
    """Return the way to an agent: by the path of its socket, or by the kind of URL that *where* is."""
    parts = urlsplit(where) if isinstance(where, str) and "://" in where else None
    scheme = parts.scheme if parts else ""
    if (token or ca or certificate) and scheme not in {"http", "https"}:
        raise BadInput("token, ca and certificate are for TCP", fix="Give a URL: https://host:port")
    if parts is None:
        return Local(checks.path(where))
    if scheme == "ssh":
        return Tunnel(parts, ssh_options)
    if scheme in {"http", "https"}:
        return Web.of(parts, token=token, ca=ca, certificate=certificate)
    raise BadInput(f"netlab knows no way to {where}", fix="Give a path, ssh://host or https://host:port")
