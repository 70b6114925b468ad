"""The agent's process: its socket, its signals, its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from netlab.agent import app, budget, privileges
from netlab.agent.gate import Gate
from netlab.agent.holding import Holding
from netlab.agent.peers import PeerProtocol, group_id, members_of
from netlab.agent.remote import Remote
from netlab.agent.work import Activity
from netlab.errors import BadInput, CapabilityError

_log = logging.getLogger("netlab.agent")
_BACKLOG = 1024
_AT_ONCE = 16  # connections that asyncio accepts before anybody can refuse them
_MOST_CONNECTIONS = 512
_GRACE_S = 5
_LOOK_S = 0.5
_FIRST_PASSED = 3  # SD_LISTEN_FDS_START
_SOL, _ACCEPTS = socket.SOL_SOCKET, socket.SO_ACCEPTCONN


@contextlib.contextmanager
def listening(path: Path, group: int | None) -> Iterator[socket.socket]:
    """Listen on a unix socket that root and members of *group* may connect to, and remove it in the end.

    Raises
    ------
    BadInput
        If something else is there, another agent answers on it, or no socket can be there.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        with _explained(path):
            _make_room(path)
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            before = os.umask(0o777)  # nobody may connect before it has its mode
            try:
                server.bind(str(path))
            finally:
                os.umask(before)
        made = path.stat()
        try:
            if group is not None:
                os.chown(path, -1, group)
            path.chmod(0o600 if group is None else 0o660)
            server.listen(_BACKLOG)
            yield server
        finally:
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino == made.st_ino:  # not that of the agent that took over
                    path.unlink()


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise CapabilityError(f"{path} cannot be made", fix="Run as root, or give --socket") from error
    except OSError as error:
        raise BadInput(
            f"{path} cannot be a socket: {error.strerror or error}",
            fix="Give --socket a path of at most 107 bytes, in a directory that can be made and written to",
        ) from error


def _make_room(path: Path) -> None:
    """Remove the socket of an agent that is gone; refuse to take that of one that answers."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise BadInput(f"{path} is there and is no socket", fix="Give another --socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise BadInput(f"another agent answers on {path}", fix="Stop it first, or give another --socket")


def activated() -> socket.socket | None:
    """Return the socket that systemd listens on for this process, if it does (sd_listen_fds(3)).

    Raises
    ------
    BadInput
        If there are several, or it is no unix socket that listens.
    """
    count = os.environ.pop("LISTEN_FDS", "0")
    if os.environ.pop("LISTEN_PID", "") != str(os.getpid()) or count == "0":
        return None
    passed = socket.socket(fileno=_FIRST_PASSED) if count == "1" else None
    if passed is None or passed.family != socket.AF_UNIX or not passed.getsockopt(_SOL, _ACCEPTS):
        raise BadInput(
            f"systemd passed {count} sockets that are not the one to listen on",
            fix="The socket unit has one ListenStream=, a path, and Accept=no",
        )
    passed.set_inheritable(False)
    return passed


def run(
    path: Path,
    *,
    group: str | None = None,
    idle_s: float = 600.0,
    exit_idle_s: float | None = None,
    most_bytes: int = budget.MOST_BYTES,
    remote: Remote | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT.

    Parameters
    ----------
    path
        The unix socket, unless systemd passes one that it listens on.
    group
        The group whose members are served besides root.
    idle_s
        A capture that nobody reads ends after so many seconds.
    exit_idle_s
        End when there has been neither a request nor anything that runs for so many seconds.
    most_bytes
        With more memory in use captures are refused, and those that nobody reads end.
    remote
        Where to listen over TCP, too, and for whom.
    """
    signal.signal(signal.SIGTERM, _end)  # while uvicorn runs it has its own, and sends it again at its end
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    number = _checked_group(group)
    with contextlib.ExitStack() as held:
        away = [held.enter_context(remote.listening())] if remote else []
        local = held.enter_context(activated() or listening(path, number))  # the last: who finds it finds all
        held_for = ", ".join(sorted(privileges.give_up())) or "no capability"
        for server in (local, *away):
            _log.info("listening on %s with %s", server.getsockname(), held_for)
        holding = held.enter_context(Holding(idle_s=idle_s, most_bytes=most_bytes))
        activity = Activity(app.create(holding))
        serving = [(_configured(Gate(activity, members_of(number))), local)]
        if remote:
            serving += [(_configured(Gate(activity, remote.admit), remote), away[0])]
        idle = None if exit_idle_s is None else _idle(activity, holding, exit_idle_s)
        asyncio.run(_serve(serving, idle))


class _Server(uvicorn.Server):
    """Accepts few connections at once and lets many wait, which asyncio takes for one number."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve."""
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(_BACKLOG)


async def _serve(
    serving: list[tuple[uvicorn.Config, socket.socket]], idle: Callable[[], bool] | None
) -> None:
    """Serve on each socket; the last server takes a signal, and when it ends passes it on to the other."""
    servers = [_Server(config) for config, _ in serving]
    work = [server.serve([listener]) for server, (_, listener) in zip(servers, serving, strict=True)]
    await asyncio.gather(*work, *([_end_when(idle, servers)] if idle else []))


async def _end_when(idle: Callable[[], bool], servers: Sequence[uvicorn.Server]) -> None:
    while not any(server.should_exit for server in servers):
        await asyncio.sleep(_LOOK_S)
        if idle():
            _log.info("nobody has asked for anything: ending")
            for server in servers:
                server.should_exit = True


def _idle(activity: Activity, holding: Holding, exit_idle_s: float) -> Callable[[], bool]:
    """Return what tells whether there has been nothing to do for so long."""
    return lambda: holding.is_empty() and activity.idle_s() > exit_idle_s


def _configured(served: ASGIApp, remote: Remote | None = None) -> uvicorn.Config:
    encrypted = remote is not None and remote.certificate is not None
    return uvicorn.Config(
        served,
        http=PeerProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=_MOST_CONNECTIONS,
        backlog=_AT_ONCE,
        timeout_graceful_shutdown=_GRACE_S,
        **(_tls(remote) if remote and encrypted else {}),
    )


def _tls(remote: Remote) -> dict[str, Any]:
    return {
        "ssl_certfile": remote.certificate,
        "ssl_keyfile": remote.key,
        "ssl_ca_certs": remote.client_ca and str(remote.client_ca),
        "ssl_cert_reqs": ssl.CERT_REQUIRED if remote.client_ca else ssl.CERT_NONE,
    }


def _end(*_: object) -> None:
    raise SystemExit(0)


def _checked_group(name: str | None) -> int | None:
    if name is None:
        return None
    try:
        return group_id(name)
    except KeyError as error:
        raise BadInput(f"there is no group {name!r}", fix=f"Make it: groupadd --system {name}") from error
