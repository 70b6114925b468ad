"""Foreign text fit to be shown: bounded, on one line, and nothing but text."""

from __future__ import annotations

import html
from collections.abc import Callable


def visible(text: object, most: int) -> str:
    """Return *text* in at most *most* characters; an escape for what is not seen or changes the reading.

    For browsers, which have glyphs for all letters: only what `str.isprintable` refuses is escaped.
    """
    return bounded(text, most, str.isprintable)


def escaped(text: object, most: int) -> str:
    """Return *text* as HTML that shows it and is nothing else."""
    return html.escape(visible(text, most))


def bounded(text: object, most: int, shows: Callable[[str], bool]) -> str:
    """Return *text* in at most *most* characters, with an escape for each that *shows* refuses."""
    start = str(text)[: most + 1]  # the rest cannot be seen, however long it is
    if not (start.isascii() and start.isprintable()):
        start = "".join(c if shows(c) else c.encode("unicode_escape").decode() for c in start)
    return start if len(start) <= most else start[: most - 1] + "…"
