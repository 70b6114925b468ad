"""Whether the packages are here that are installed on request."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from collections.abc import Callable

from netlab.checkup.finding import Finding, State


def importable(module: str, extra: str) -> Callable[[], Finding]:
    """Return the check for a *module* that netlab's *extra* brings."""

    def check() -> Finding:
        if importlib.util.find_spec(module) is None:
            fix = f"{shlex.quote(sys.executable)} -m pip install 'netlab[{extra}]'"
            return Finding(State.NO, f"{module} is not installed for this Python", fix)
        return Finding(State.YES, f"{module} is installed")

    return check


def parquet() -> Finding:
    """Tell whether pyarrow was built with Parquet."""
    if importlib.util.find_spec("pyarrow.parquet") is None:
        why = "this build of pyarrow has no Parquet"
        return Finding(
            State.NO, why, f"{shlex.quote(sys.executable)} -m pip install --force-reinstall pyarrow"
        )
    return Finding(State.YES, "pyarrow reads and writes Parquet")
