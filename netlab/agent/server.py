"""The agent's process: its socket, its signals, its end."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import uvicorn

from netlab.agent import app, privileges
from netlab.agent.captures import Captures
from netlab.agent.gate import Gate
from netlab.agent.peers import PeerProtocol, group_id
from netlab.errors import BadInput, CapabilityError

_log = logging.getLogger("netlab.agent")
_BACKLOG = 256
_MOST_CONNECTIONS = 512
_GRACE_S = 5


@contextlib.contextmanager
def listening(path: Path, group: int | None) -> Iterator[socket.socket]:
    """Listen on a unix socket that root and members of *group* may connect to, and remove it in the end.

    Raises
    ------
    BadInput
        If something else is there, or another agent answers on it.
    """
    _make_room(path)
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        before = os.umask(0o777)  # nobody may connect before it has its mode
        try:
            server.bind(str(path))
        except PermissionError as error:
            raise CapabilityError(f"{path} cannot be made", fix="Run as root, or give --socket") from error
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


def run(path: Path, *, group: str | None = None, idle_s: float = 600.0) -> None:
    """Serve until SIGTERM or SIGINT.

    Parameters
    ----------
    path
        The unix socket.
    group
        The group whose members are served besides root.
    idle_s
        A capture that nobody reads ends after so many seconds.
    """
    signal.signal(signal.SIGTERM, _end)  # while uvicorn runs it has its own, and sends it again at its end
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    number = _checked_group(group)
    with listening(path, number) as server:
        _log.info("listening on %s with %s", path, ", ".join(sorted(privileges.give_up())) or "no capability")
        _serve(server, number, idle_s)


def _serve(server: socket.socket, group: int | None, idle_s: float) -> None:
    with Captures(idle_s=idle_s) as captures:
        config = uvicorn.Config(
            Gate(app.create(captures), group=group),
            http=PeerProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_graceful_shutdown=_GRACE_S,
        )
        uvicorn.Server(config).run(sockets=[server])


def _end(*_: object) -> None:
    raise SystemExit(0)


def _checked_group(name: str | None) -> int | None:
    if name is None:
        return None
    try:
        return group_id(name)
    except KeyError as error:
        raise BadInput(f"there is no group {name!r}", fix=f"Make it: groupadd --system {name}") from error
