"""The words behind a magic's name, taken as words: nothing of them is run."""

from __future__ import annotations

import ast
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from netlab.errors import BadInput, NetlabError


def split(line: str) -> list[str]:
    """Return the words of *line*, as a shell would see them.

    Raises
    ------
    BadInput
        If a quotation does not end.
    """
    try:
        return shlex.split(line)
    except ValueError as error:
        raise BadInput(f"{line!r} cannot be read: {error}", fix="Close the quotation") from error


def value(word: str) -> Any:
    """Return the number, list or other literal that *word* is, a list of words with commas, or the word."""
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return word.split(",") if "," in word else word


@contextmanager
def brief() -> Iterator[None]:
    """Have the notebook show an error of netlab's by its message alone: the way to it is netlab's own."""
    try:
        yield
    except NetlabError as error:
        said = f"{type(error).__name__}: {error}"
        setattr(error, "_render_traceback_", said.splitlines)  # noqa: B010 - IPython asks for it
        raise
