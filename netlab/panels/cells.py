"""Which cell a panel belongs to, so that running the cell again ends the one it made before."""

from __future__ import annotations

import weakref
from typing import Protocol


class Closable(Protocol):
    """What a cell makes."""

    def close(self) -> None:
        """End it."""


_made: dict[str, list[tuple[str, weakref.ref[Closable]]]] = {}


def adopt(panel: Closable) -> None:
    """Close what earlier runs of the present cell made, and remember *panel* as made by it.

    A widget is held by ipywidgets until it is closed: without this, a panel whose cell is run again would go
    on unseen.
    """
    cell, run = _present()
    if not cell:
        return
    older = _made.get(cell, [])
    _made[cell] = [(run, weakref.ref(panel)), *(one for one in older if one[0] == run)]
    for of_run, reference in older:
        if of_run != run and (former := reference()) is not None:
            former.close()


def _present() -> tuple[str, str]:
    """Return the present cell's id and that of this run of it; empty where nobody tells."""
    try:
        from IPython import get_ipython
    except ImportError:
        return "", ""
    shell = get_ipython()
    parent = getattr(shell, "parent_header", None) or getattr(shell, "get_parent", dict)()
    header = parent.get("header") or {}
    if header.get("msg_type") != "execute_request":  # a click: what it makes belongs to another panel
        return "", ""
    cell = (parent.get("metadata") or {}).get("cellId") or ""
    return str(cell), str(header.get("msg_id") or "")
