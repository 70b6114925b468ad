"""Foreign text, errors and times as a panel shows them."""

from __future__ import annotations

from typing import Any

import pandas as pd

from netlab import foreign
from netlab.errors import NetlabError
from netlab.views.text import DASH

MOST = 200  # characters of foreign text in a cell
UNSAVED = "(not in a saved notebook; netlab.record() keeps it)"  # soon: ipywidgets cuts after 110 characters
_LONGEST_ERROR = 2000


def escaped(text: object, most: int = MOST) -> str:
    """Return *text* as HTML that shows it and is nothing else."""
    return foreign.escaped(text, most)


def fault(error: Exception) -> str:
    """Return an error as HTML: what failed and the fix, and the kind of error where it is not one of ours."""
    kind = "" if isinstance(error, NetlabError) else f"{type(error).__name__}: "
    return f'<div class="netlab-error">{escaped(f"{kind}{error}", _LONGEST_ERROR)}</div>'


def clock(age_s: float, of_s: float | None) -> str:
    """Return how long something has lasted, and how long it will at most if that is known."""
    said = _clock(age_s if of_s is None else min(age_s, of_s))
    return f'<span class="netlab-age">{said if of_s is None else f"{said} of {_clock(of_s)}"}</span>'


def _clock(length_s: float) -> str:
    minutes, seconds = divmod(int(length_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def ends(addresses: pd.Series[str], ports: pd.Series[int]) -> list[str]:
    """Return addresses with their ports, those of IPv6 in brackets."""
    pairs = zip(addresses.tolist(), ports.tolist(), strict=True)
    return [DASH if pd.isna(address) else end(address, port) for address, port in pairs]


def end(address: str, port: Any) -> str:
    """Return an address with its port, if that is known."""
    host = f"[{address}]" if ":" in address else address
    return host if pd.isna(port) else f"{host}:{port}"


def owner(rows: pd.DataFrame) -> list[str]:
    """Return whose each row is, with the process id."""
    names = rows["process"].fillna("?").tolist()
    pids = rows["pid"].tolist()
    return [name if pd.isna(pid) else f"{name} ({pid})" for name, pid in zip(names, pids, strict=True)]
