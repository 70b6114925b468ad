"""Foreign text and numbers as a panel shows them: bounded, escaped, with their units."""

from __future__ import annotations

import html
from typing import Any

import pandas as pd

from netlab.views.text import DASH, significant

_MOST = 200


def plain(text: object, most: int = _MOST) -> str:
    """Return *text* in at most *most* characters; an escape for what is not seen or changes the reading."""
    start = str(text)[: most + 1]
    shown = "".join(c if c.isprintable() else _escape(c) for c in start)
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")


def escaped(text: object, most: int = _MOST) -> str:
    """Return *text* as HTML that shows it and is nothing else."""
    return html.escape(plain(text, most))


def amount(count: Any) -> str:
    """Return a number of bytes in the unit it is read best in."""
    if pd.isna(count):
        return DASH
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{significant(value)} {unit}"
        value /= 1000
    return f"{significant(value)} TB"


def ends(addresses: pd.Series[str], ports: pd.Series[int]) -> list[str]:
    """Return addresses with their ports, those of IPv6 in brackets."""
    pairs = zip(addresses.tolist(), ports.tolist(), strict=True)
    return [DASH if pd.isna(address) else _end(address, port) for address, port in pairs]


def _end(address: str, port: Any) -> str:
    host = f"[{address}]" if ":" in address else address
    return host if pd.isna(port) else f"{host}:{port}"
