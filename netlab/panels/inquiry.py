"""What is asked about one connection: its way through this host at once, and its path on request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ipywidgets as widgets
import pandas as pd

from netlab.errors import BadInput
from netlab.foreign import visible
from netlab.kernel import netns as namespaces
from netlab.panels.path import LivePath
from netlab.panels.words import end, fault
from netlab.tracer.explain import explain

_LONGEST_ADDRESS = 60


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a connection's packets end, behind its translation if there is one."""

    address: str
    port: int
    protocol: str
    netns: int  # inode

    def __str__(self) -> str:
        return f"{end(visible(self.address, _LONGEST_ADDRESS), self.port)} ({self.protocol})"


def destination(row: pd.Series[Any]) -> Destination | None:
    """Return where to trace a row of connections to; None where the peer or the namespace is not known."""
    for side in ("nat_remote", "remote"):
        values = row[[f"{side}_address", f"{side}_port", "protocol", "netns"]]
        if values.notna().all():
            address, port, protocol, netns = values
            return Destination(str(address), int(port), str(protocol), int(netns))
    return None


def way(row: pd.Series[Any]) -> str:
    """Return the row's way through this host as HTML, or why it cannot be told."""
    try:
        shown = explain(row)._repr_html_()
    except Exception as error:  # noqa: BLE001 - one row that cannot be told ends no panel
        return fault(error)
    return f'<div class="netlab-way">{shown}</div>'


class Inquiry(widgets.VBox):
    """The way of the row that was clicked, a button that traces its path, and below it that path."""

    def __init__(self) -> None:
        self.way, self._fault = widgets.HTML(), widgets.HTML()
        self._trace = widgets.Button(icon="share-alt", layout={"width": "max-content"})
        self._close = widgets.Button(description="Close the path", icon="times")
        self._row: pd.Series[Any] | None = None
        self.path: LivePath | None = None
        self._place = widgets.VBox()
        self._trace.on_click(lambda _: self._trace_shown())
        self._close.on_click(lambda _: self.close_path())
        super().__init__([self.way, widgets.HBox([self._trace, self._close]), self._fault, self._place])
        self.ask(None)

    def ask(self, row: pd.Series[Any] | None) -> None:
        """Be about *row* from now on; a path that is shown stays until another is traced."""
        self._row = row
        to = None if row is None else destination(row)
        self.way.value = self._fault.value = ""
        self._trace.description = f"Trace the path to {to}"
        self._trace.layout.display = None if to else "none"
        self._show_path()

    def trace_path(self) -> LivePath:
        """Begin to probe the path to the row's peer, behind its translation, and show it here.

        Raises
        ------
        BadInput
            If no row is chosen, it has no peer, or its network namespace is gone.
        ProbeError
            If there is no route to the peer.
        """
        to = None if self._row is None else destination(self._row)
        if to is None:
            raise BadInput("there is no path to trace", fix="Click a connection that has a peer")
        place = namespaces.everywhere().get(to.netns)
        if place is None:
            raise BadInput(
                f"network namespace {to.netns} has no process and no name here any more",
                fix="Click a connection whose namespace still exists",
            )
        own = to.netns == namespaces.inode()
        self._fault.value = ""
        path = LivePath(to.address, protocol=to.protocol, port=to.port, netns=None if own else str(place))
        self.close_path()
        self.path = path
        self._show_path()
        path.start_soon()
        return path

    def close_path(self) -> None:
        """End the path that is shown, if one is."""
        if self.path is not None:
            self.path.close()
            self.path = None
        self._show_path()

    def _trace_shown(self) -> None:
        try:
            self.trace_path()
        except Exception as error:  # noqa: BLE001 - shown where it was asked for
            self._fault.value = fault(error)

    def _show_path(self) -> None:
        self._place.children = () if self.path is None else (self.path,)
        self._close.layout.display = None if self.path else "none"
