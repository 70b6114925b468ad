"""Live views in a notebook; the only package that imports ipywidgets.

A panel is a widget: the last line of a cell shows it. It works in the background, so other cells run
meanwhile; `close()` ends it and frees everything it had in the notebook and in the kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from netlab import lazy
from netlab.checks import needing

with needing("notebook", "panels need ipywidgets and anywidget"):
    import anywidget  # noqa: F401 - tried here so that its absence is explained once
    import ipywidgets as widgets  # noqa: F401

if TYPE_CHECKING:
    from netlab.panels.connections import LiveConnections as LiveConnections
    from netlab.panels.conntrack import LiveConntrack as LiveConntrack
    from netlab.panels.dns import LiveDNS as LiveDNS
    from netlab.panels.path import LivePath as LivePath
    from netlab.panels.requests import LiveRequests as LiveRequests

_HOME = {
    "LiveConnections": "netlab.panels.connections",
    "LiveConntrack": "netlab.panels.conntrack",
    "LiveDNS": "netlab.panels.dns",
    "LivePath": "netlab.panels.path",
    "LiveRequests": "netlab.panels.requests",
}
__all__ = sorted(_HOME)  # noqa: PLE0605 - the table above is the one list of names

__getattr__, __dir__ = lazy.names(__name__, _HOME)
