"""A bar for who waits."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from netlab import bars


@contextlib.contextmanager
def counting(total: int, what: str, unit: str, *, shown: bool) -> Iterator[Callable[[], object]]:
    """Yield what is called after each of *total* steps of the block; it moves a bar if one is *shown*."""
    if not shown:
        yield lambda: None
        return
    with bars.bar(total=total, desc=what, unit=unit) as bar:
        yield bar.update
