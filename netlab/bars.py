"""A bar for who waits; a saved notebook has it as it was at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def bar(*, leave: bool = True, **options: Any) -> Iterator[Any]:
    """Yield a bar of tqdm's; one that is to *leave* stays as it was last, any other goes.

    What tqdm itself shows in a notebook is a widget beside the words it began with, and those are all that is
    left of it in the file: "0%" for ever. So its place gets its last words at the end.
    """
    from tqdm.auto import tqdm  # it brings asyncio

    if not any(base.__module__ == "tqdm.notebook" for base in tqdm.__mro__):
        with tqdm(leave=leave, **options) as shown:
            yield shown
        return
    from IPython.display import display

    with tqdm(leave=leave, display=False, **options) as shown:
        if shown.disable:
            yield shown
            return
        place = display(shown.container, display_id=True)  # type: ignore[no-untyped-call]
        try:
            yield shown
        finally:
            place.update({"text/plain": str(shown) if leave else ""}, raw=True)
