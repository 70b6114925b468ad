"""Foreign text as a panel shows it: bounded and escaped."""

from __future__ import annotations

import html
from typing import Any

import pandas as pd

from netlab.views.text import DASH, visible

MOST = 200  # characters of foreign text in a cell


def escaped(text: object, most: int = MOST) -> str:
    """Return *text* as HTML that shows it and is nothing else."""
    return html.escape(visible(text, most))


def ends(addresses: pd.Series[str], ports: pd.Series[int]) -> list[str]:
    """Return addresses with their ports, those of IPv6 in brackets."""
    pairs = zip(addresses.tolist(), ports.tolist(), strict=True)
    return [DASH if pd.isna(address) else _end(address, port) for address, port in pairs]


def _end(address: str, port: Any) -> str:
    host = f"[{address}]" if ":" in address else address
    return host if pd.isna(port) else f"{host}:{port}"
