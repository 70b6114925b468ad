"""The latest rows of a probe while it runs, as one output of the cell that is shown anew.

It is plain HTML and no widget: the notebook keeps its last state, and shows it without a kernel.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from IPython.display import display

from netlab.probes.outputs import Glance

ROWS = 10


class Tail:
    """An output of the present cell."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, state: str, outputs: Mapping[str, Glance]) -> None:
        """Show *state* and the rows of each output, instead of what was shown before."""
        bundle = {"text/plain": _as_text(state, outputs), "text/html": _as_html(state, outputs)}
        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(bundle, raw=True)


def _as_text(state: str, outputs: Mapping[str, Glance]) -> str:
    return "; ".join([state, *(_counted(name, glance) for name, glance in outputs.items())])


def _as_html(state: str, outputs: Mapping[str, Glance]) -> str:
    parts = [
        f"<div>{html.escape(_counted(name, glance))}</div>"
        f"{glance.frame.to_html(index=False, border=0, notebook=True) if len(glance.frame) else ''}"
        for name, glance in outputs.items()
    ]
    return f'<div role="status">{html.escape(state)}</div>{"".join(parts)}'


def _counted(name: str, glance: Glance) -> str:
    """Return how many rows there are, how many of them are shown, and how many were lost."""
    shown = f", {len(glance.frame)} shown" if len(glance.frame) < glance.total else ""
    losses = [gap for gap in glance.frame.attrs["coverage"] if gap["kind"] == "lost"]
    lost = "".join(f"; lost: {gap['count'] or 'some'} ({gap['detail']})" for gap in losses)
    return f"{name}: {glance.total} rows{shown}{lost}"
