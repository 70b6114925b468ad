"""What a widget is made of."""

from __future__ import annotations

import ipywidgets as widgets


def whole(widget: widgets.Widget) -> list[widgets.Widget]:
    """Return a widget and everything that it made: each has a channel of its own to the browser."""
    inner = [part for child in getattr(widget, "children", ()) for part in whole(child)]
    own = [getattr(widget, name, None) for name in ("layout", "style")]
    return [*inner, *(part for part in own if part is not None), widget]


def tell(widget: widgets.Widget) -> None:
    """Send all that a widget shows once more, as said by the cell that runs.

    Who executes a notebook without a browser (nbconvert, papermill) saves only what a cell's own messages
    say, and what a panel shows comes from a task that an earlier cell began.
    """
    for part in whole(widget):
        part.send_state()
