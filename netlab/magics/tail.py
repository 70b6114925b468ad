"""The latest rows of a probe while it runs, as one output of the cell that is shown anew.

It is plain HTML and no widget: the notebook keeps its last state, and shows it without a kernel.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from IPython.display import display

from netlab.probes.outputs import Glance

ROWS = 10


@dataclass(frozen=True, slots=True)
class Shown:
    """What is shown at one moment: a state, and the latest rows of each output."""

    state: str
    outputs: Mapping[str, Glance]

    def __repr__(self) -> str:
        counts = [_counted(name, glance) for name, glance in self.outputs.items()]
        rows = [glance.frame.to_string(index=False) for glance in self.outputs.values() if len(glance.frame)]
        return "\n".join(["; ".join([self.state, *counts]), *rows])

    def _repr_html_(self) -> str:
        parts = [
            f"<div>{html.escape(_counted(name, glance))}</div>"
            f"{glance.frame.to_html(index=False, border=0, notebook=True) if len(glance.frame) else ''}"
            for name, glance in self.outputs.items()
        ]
        return f'<div role="status">{html.escape(self.state)}</div>{"".join(parts)}'


class Tail:
    """An output of the present cell; a terminal, which cannot show it anew, gets the last state only."""

    def __init__(self, shell: Any) -> None:
        self._can_update = getattr(shell, "kernel", None) is not None
        self._handle: Any = None

    def show(self, shown: Shown) -> None:
        """Show this instead of what was shown before."""
        if self._handle is not None:
            self._handle.update(shown)
        elif self._can_update:
            self._handle = display(shown, display_id=True)  # type: ignore[no-untyped-call]

    def end(self, shown: Shown) -> None:
        """Show this for good."""
        self.show(shown) if self._can_update else display(shown)  # type: ignore[no-untyped-call]


def _counted(name: str, glance: Glance) -> str:
    """Return how many rows there are, how many of them are shown, and how many were lost."""
    shown = f", {len(glance.frame)} shown" if len(glance.frame) < glance.total else ""
    losses = [gap for gap in glance.frame.attrs["coverage"] if gap["kind"] == "lost"]
    lost = "".join(f"; lost: {gap['count'] or 'some'} ({gap['detail']})" for gap in losses)
    return f"{name}: {glance.total} rows{shown}{lost}"
