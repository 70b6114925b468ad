"""What this process may not do itself, an agent on this host does for it."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from netlab.errors import CapabilityError
from netlab.frames import Gap, Missing

P = ParamSpec("P")
R = TypeVar("R")

SOCKET = Path("/run/netlab/agent.sock")


def usual_socket() -> Path:
    """Return where the agent of this host is asked: where the environment says so, or at the usual place."""
    return Path(os.environ.get("NETLAB_AGENT") or SOCKET)


def reachable() -> bool:
    """Tell whether an agent answers this user."""
    return answers(usual_socket())


def answers(path: Path) -> bool:
    """Tell whether this user can connect to the unix socket at *path*."""
    with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):  # a path that is too long
        return probe.connect_ex(str(path)) == 0
    return False


@functools.cache
def delegated(function: Callable[P, R]) -> Callable[P, R]:
    """Return *function*, but that asks the agent where this process lacks a capability and there is one.

    Its frames say so in their coverage.
    """

    @functools.wraps(function)
    def answered(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except CapabilityError as error:
            if not os.access(usual_socket(), os.F_OK):
                raise
            answer: R = _asked(function.__name__, error, args, kwargs)
            return answer

    return answered


def _asked(name: str, error: CapabilityError, args: Any, kwargs: Any) -> Any:
    from netlab.agent.afar import RemoteCapture, RemoteConntrackEvents
    from netlab.agent.client import Host
    from netlab.agent.ways import Local

    path = usual_socket()
    detail = f"the agent at {path} answered: {error.problem}"
    beside = Missing("what this process sees itself", Gap.UNAVAILABLE, None, detail)
    try:
        host = Host(Local(path), beside=beside)
    except CapabilityError as refusal:
        problem, fix = f"{error.problem}, and {refusal.problem}", f"{refusal.fix}; or: {error.fix}"
        raise CapabilityError(problem, fix=fix) from error
    answer = getattr(host, name)(*args, **kwargs)
    if not isinstance(answer, RemoteCapture | RemoteConntrackEvents):  # which go on asking
        host.close()
    return answer
