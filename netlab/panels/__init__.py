"""Live views in a notebook; the only package that imports ipywidgets.

A panel is a widget: the last line of a cell shows it. It works in the background, so other cells run
meanwhile; `close()` ends it and frees everything it had in the notebook and in the kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from netlab.checks import needing

with needing("notebook", "panels need ipywidgets and anywidget"):
    import anywidget  # noqa: F401 - tried here so that its absence is explained once
    import ipywidgets as widgets  # noqa: F401

if TYPE_CHECKING:
    from netlab.panels.connections import LiveConnections as LiveConnections
    from netlab.panels.conntrack import LiveConntrack as LiveConntrack
    from netlab.panels.path import LivePath as LivePath

_HOME = {
    "LiveConnections": "netlab.panels.connections",
    "LiveConntrack": "netlab.panels.conntrack",
    "LivePath": "netlab.panels.path",
}
__all__ = sorted(_HOME)  # noqa: PLE0605 - the table above is the one list of names


def __getattr__(name: str) -> Any:
    import importlib

    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'netlab.panels' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
