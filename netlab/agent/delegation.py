"""What this process may not do itself, an agent on this host does for it."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import pandas as pd

from netlab.errors import CapabilityError
from netlab.frames import Gap, Missing

P = ParamSpec("P")
R = TypeVar("R")

SOCKET = Path(os.environ.get("NETLAB_AGENT", "/run/netlab/agent.sock"))


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
            if not os.access(SOCKET, os.W_OK):
                raise
            answer: R = _asked(function.__name__, error, args, kwargs)
            return answer

    return answered


def _asked(name: str, error: CapabilityError, args: Any, kwargs: Any) -> Any:
    from netlab.agent.client import connect

    answer = getattr(connect(SOCKET), name)(*args, **kwargs)
    if isinstance(answer, pd.DataFrame):
        detail = f"the agent at {SOCKET} answered: {error.problem}"
        answer.attrs["coverage"] = [
            *answer.attrs["coverage"],
            asdict(Missing("what this process sees itself", Gap.UNAVAILABLE, None, detail)),
        ]
    return answer
