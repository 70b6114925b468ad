"""Foreign text made fit to be drawn, and figures as they are read best."""

from __future__ import annotations

import unicodedata
from typing import Any

import pandas as pd

from netlab.foreign import bounded

DASH = "\N{EN DASH}"  # between two ends, and where there is no value
MINUS = "\N{MINUS SIGN}"
_DRAWABLE = 0x530  # Latin, Greek and Cyrillic end here: what matplotlib's own font has glyphs for


def legible(text: object, most: int) -> str:
    """Return *text* in at most *most* characters, whatever cannot be drawn as a visible escape.

    Escaped are control and format characters (a process may be named with newlines or right-to-left
    overrides), combining marks (they stack), and letters that matplotlib's own font lacks.
    """
    return bounded(text, most, _drawable)


def milliseconds(value: Any) -> str:
    """Return a time in ms with three significant digits, such as ``0.12 ms`` or ``184 ms``.

    From a thousand seconds on it is in the unit that it is read best in.
    """
    if pd.isna(value):
        return DASH
    return f"{significant(value)} ms" if abs(value) < 1e6 else seconds(value / 1000)


def significant(value: float) -> str:
    """Return *value* with two or three significant digits and no exponent, to 0.001 at least."""
    size = abs(value)
    digits = 0 if size >= 99.95 else 1 if size >= 9.995 else 2 if size >= 0.0995 else 3
    return f"{value:.{digits}f}"


def counted(count: int, one: str, many: str = "") -> str:
    """Return *count* with its noun, in the plural (*many*, or with an s) unless it is one."""
    return f"{count} {one}" if count == 1 else f"{count} {many or one + 's'}"


def seconds(value: Any) -> str:
    """Return a duration given in seconds in the unit it is read best in."""
    if pd.isna(value):
        return DASH
    for limit, size, unit in ((1, 1e-3, "ms"), (120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if abs(value) < limit:
            return f"{significant(value / size)} {unit}"
    return f"{significant(value / 86_400)} d"


def octets(value: Any) -> str:
    """Return a number of bytes in the unit it is read best in, such as ``12.3 kB`` (1000 bytes each)."""
    if pd.isna(value):
        return DASH
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 999.5:
            return f"{value} B" if unit == "B" else f"{significant(value)} {unit}"
        value /= 1000
    return f"{significant(value)} TB"


def share(part: int, whole: int) -> str:
    """Return *part* of *whole* as a percentage that says 0 and 100 only when it is exactly that."""
    if not whole:
        return DASH
    percent = 100 * part / whole
    if 0 < percent < 1:
        return "under 1 %"
    if 99 < percent < 100:
        return "over 99 %"
    return f"{percent:.0f} %"


def _drawable(character: str) -> bool:
    return character.isprintable() and ord(character) < _DRAWABLE and not unicodedata.combining(character)
